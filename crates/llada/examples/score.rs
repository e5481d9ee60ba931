//! How likely a line is after another one: `llada score --prompt "床前明月光，" --target ..`.
//!
//! `cargo run -p llada --example score`
#![expect(clippy::print_stdout, reason = "an example prints its result")]

use llada::diffusion::LikelihoodConfig;
use llada::{Checkpoint, CpuConfig, Device, Precision};

fn main() -> anyhow::Result<()> {
    let device = Device::cpu(CpuConfig::default())?;
    let llada = Checkpoint::embedded()?.frozen(&device, Precision::F32)?;
    for target in ["疑是地上霜。", "春水碧于天。"] {
        let score = llada.score("床前明月光，", target, &LikelihoodConfig::default())?;
        let (nats, error) = (score.estimate.log_likelihood, score.estimate.standard_error);
        println!(
            "{target} {nats:.3} ± {error:.3} nats, greedy: {}",
            score.is_greedy
        );
    }
    Ok(())
}
