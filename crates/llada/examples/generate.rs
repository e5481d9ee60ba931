//! Completes a poem with the embedded model: `llada generate "床前明月光，"`.
//!
//! `cargo run -p llada --example generate -- "白日依山尽，"`
#![expect(clippy::print_stdout, reason = "an example prints its result")]

use llada::{Checkpoint, CpuConfig, Device, Overrides, Precision};

fn main() -> anyhow::Result<()> {
    let prompt = std::env::args().nth(1).unwrap_or("床前明月光，".into());
    let device = Device::cpu(CpuConfig::default())?;
    let llada = Checkpoint::embedded()?.frozen(&device, Precision::F32)?;
    let answer = llada.generate(prompt, &Overrides::default())?;
    println!("{}", answer.whole_text);
    Ok(())
}
