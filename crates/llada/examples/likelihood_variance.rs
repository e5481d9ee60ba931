//! How much an estimate of the likelihood bound depends on its draws: eq. 6 with 128 of them
//! against eq. 5 with 1000 (arXiv 2502.09992, section 2.4), on poems that the embedded model has
//! not seen.
//!
//! `cargo run --release -p llada --example likelihood_variance -- 16`: so many estimates of each
//! kind, 2 without a number.
#![expect(clippy::print_stdout, reason = "an example prints its result")]

use std::num::NonZeroUsize;

use llada::diffusion::{
    Estimator, LikelihoodConfig, MaskPredictor as _, ScoredSequence, log_likelihood,
};
use llada::{CpuConfig, Device, Precision};

/// Held-out quatrains.
const POEMS: [&str; 2] = [
    "垂緌饮清露，流响出疏桐。居高声自远，非是藉秋风。",
    "水如一匹练，此地即平天。耐可乘明月，看花上酒船。",
];

fn main() -> anyhow::Result<()> {
    let repetitions: u64 = std::env::args().nth(1).map_or(Ok(2), |n| n.parse())?;
    anyhow::ensure!(repetitions > 1, "a standard deviation takes two estimates");
    let device = Device::cpu(CpuConfig::default())?;
    let llada = llada::Checkpoint::embedded()?.frozen(&device, Precision::Bf16)?;
    let kinds = [
        ("eq. 6", Estimator::Count, 128, None),
        (
            "eq. 6, batches of 16",
            Estimator::Count,
            128,
            NonZeroUsize::new(16),
        ),
        ("eq. 5", Estimator::Ratio, 128, None),
        ("eq. 5", Estimator::Ratio, 1000, None),
    ];
    println!(
        "estimator, forward passes: mean and standard deviation of an estimate, nats per poem"
    );
    for (name, estimator, mc_samples, batch_size) in kinds {
        let (mut mean, mut variance) = (0.0, 0.0);
        for (poem, text) in (0..).zip(POEMS) {
            // A poem ends with an EOS.
            let mut tokens = llada.tokenizer.encode_strict(text)?;
            tokens.push(llada.model.info().eos_token_id);
            let sequence = ScoredSequence {
                tokens: &tokens,
                prompt_len: 0,
            };
            let estimate = |repetition| {
                let config = LikelihoodConfig {
                    mc_samples,
                    batch_size,
                    estimator,
                    seed: poem * repetitions + repetition,
                    ..LikelihoodConfig::default()
                };
                let estimates = log_likelihood(&llada.model, &[sequence], &config)?;
                anyhow::Ok(estimates[0].log_likelihood)
            };
            let found = (0..repetitions)
                .map(estimate)
                .collect::<Result<Vec<f64>, _>>()?;
            let of_poem = found.iter().sum::<f64>() / repetitions as f64;
            let squares: f64 = found.iter().map(|x| (x - of_poem).powi(2)).sum();
            mean += of_poem / POEMS.len() as f64;
            variance += squares / (repetitions - 1) as f64 / POEMS.len() as f64;
        }
        println!("{name}, {mc_samples}: {mean:.2}, {:.2}", variance.sqrt());
    }
    Ok(())
}
