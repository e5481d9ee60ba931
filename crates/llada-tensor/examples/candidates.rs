//! What the choice of a token costs beside the head's product: 32 positions of LLaDA's vocabulary,
//! with a head so narrow that its product, which is timed too, hardly counts.
//!
//! `cargo run --release -p llada-tensor --example candidates -- [threads]`.

#![expect(
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "an example that prints its timings"
)]

use std::time::Instant;

use llada_tensor::backend::{CandidateArgs, MatmulArgs, Noise, Rhs};
use llada_tensor::ops::candidates::{CandidateRule, candidates};
use llada_tensor::ops::matmul::{matmul, pack};
use llada_tensor::{CpuConfig, DType, Device, Philox, Precision, Result, Stream, Tensor};

const POSITIONS: usize = 32;
const VOCABULARY: usize = 126_464;
const WIDTH: usize = 64;

fn main() -> Result<()> {
    let threads = std::env::args().nth(1).and_then(|x| x.parse().ok());
    let device = Device::cpu(CpuConfig {
        threads: threads.unwrap_or(1),
        level: None,
    })?;
    let rng = Philox::new(1, Stream::Test);
    let random = |rows: usize, seed: u32| {
        let draw = |i| rng.normal_pair([i as u32, seed, 0])[0] as f32;
        let values: Vec<f32> = (0..rows * WIDTH).map(draw).collect();
        Tensor::from_f32(&device, &[rows, WIDTH], &values)
    };
    let precision = Precision::Int8;
    let (hidden, head) = (random(POSITIONS, 1)?, random(VOCABULARY, 2)?);
    let head = pack(&head, precision)?;
    let mut logits = Tensor::zeros(&device, DType::F32, &[POSITIONS, VOCABULARY])?;
    let product = best(|| {
        matmul(MatmulArgs {
            a: &hidden,
            b: Rhs::Packed(&head),
            c: &mut logits,
            accumulate: false,
            precision,
        })
    })?;
    println!("product alone, all logits stored {product:7.2} ms");
    let keys: Vec<[u32; 3]> = (0..POSITIONS as u32).map(|i| [0, i, 0]).collect();
    let philox = Noise::Philox {
        seeds: &[1; POSITIONS],
        keys: &keys,
    };
    for (temperature, noise) in [(0.0, Noise::None), (1.0, philox)] {
        let rule = CandidateRule {
            temperature,
            ..CandidateRule::default()
        };
        let args = CandidateArgs {
            hidden: &hidden,
            unconditional: None,
            head: Rhs::Packed(&head),
            bias: None,
            rule: &rule,
            noise: &noise,
            precision,
        };
        let choice = best(|| candidates(args).map(|chosen| drop(std::hint::black_box(chosen))))?;
        println!("product and choice, temperature {temperature} {choice:7.2} ms");
    }
    Ok(())
}

/// Milliseconds of the best of ten runs.
fn best(mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..10 {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(best)
}
