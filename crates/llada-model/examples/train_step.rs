//! Times one training step (forward, backward, clipping norm, AdamW) on random tokens:
//! the counterpart of `tools/peers/train_step.py`.
//!
//! Without arguments a small model, as a test. The shape that is compared with `PyTorch`:
//! `cargo run --release -p llada-model --example train_step -- bf16 1 5 384 8 6 1536 8192 16 128`
//! (precision, threads, steps, `d_model`, `n_layers`, `n_heads`, mlp, vocab, batch, length).
#![expect(
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "an example that prints its timings"
)]

use std::path::Path;
use std::time::Instant;

use llada_diffusion::{TokenBatch, Trainable as _, forward_process};
use llada_model::{LladaModel, ModelConfig};
use llada_tensor::backend::AdamWArgs;
use llada_tensor::ops::adamw::{adamw, global_norm};
use llada_tensor::{CpuConfig, DType, Device, Gradients, Philox, Precision, Stream, Tape, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |at: usize, default: usize| args.get(at).and_then(|x| x.parse().ok()).unwrap_or(default);
    let bf16 = args.first().is_none_or(|x| x == "bf16");
    let precision = if bf16 {
        Precision::Bf16
    } else {
        Precision::F32
    };
    let (threads, steps) = (number(1, 1), number(2, 5));
    let (d_model, n_layers, n_heads) = (number(3, 64), number(4, 2), number(5, 2));
    let (mlp, vocab, batch, length) = (number(6, 160), number(7, 500), number(8, 4), number(9, 32));
    let json = format!(
        "{{\"d_model\":{d_model},\"n_heads\":{n_heads},\"n_layers\":{n_layers},\
         \"mlp_hidden_size\":{mlp},\"vocab_size\":{vocab},\"weight_tying\":false,\
         \"mask_token_id\":0,\"eos_token_id\":1}}"
    );
    let config = ModelConfig::from_json(json.as_bytes(), Path::new("arguments"))?;
    let device = Device::cpu(CpuConfig {
        threads,
        level: None,
    })?;
    println!(
        "{}, {precision:?}, {} parameters",
        device.backend().name(),
        config.total_parameters()
    );
    let mut model = LladaModel::random(config, &device, precision, 1)?;
    let zeros = |model: &LladaModel| -> llada_tensor::Result<Vec<Tensor>> {
        let zero = |value: &Tensor| Tensor::zeros(&device, DType::F32, value.shape());
        model.parameters().iter().map(|p| zero(&p.value)).collect()
    };
    let (mut first, mut second) = (zeros(&model)?, zeros(&model)?);
    let mut gradients = Gradients::zeros_like(model.parameters().iter().map(|p| &p.value))?;
    let rng = Philox::new(1, Stream::Test);
    let mut best = f64::INFINITY;
    for step in 1..=steps as u64 {
        let start = Instant::now();
        let draw = |row: usize, at: usize| [at as u32, row as u32, step as u32];
        let sequences: Vec<Vec<u32>> = (0..batch)
            .map(|row| {
                let id = |at| 2 + rng.below(vocab as u64 - 2, draw(row, at)) as u32;
                (0..length).map(id).collect()
            })
            .collect();
        let tokens = TokenBatch::new(&sequences)?;
        let t: Vec<f32> = (0..batch)
            .map(|row| rng.uniform_f32(draw(row, length)))
            .collect();
        let u: Vec<f32> = (0..tokens.n_tokens())
            .map(|at| rng.uniform_f32(draw(batch, at)))
            .collect();
        let noised = forward_process(&tokens, 0, &t, &u, None)?;
        let scale = 1.0 / tokens.n_tokens() as f32;
        let weights: Vec<f32> = noised.p_mask.iter().map(|p| scale / p).collect();
        let mut tape = Tape::recording(&device, precision);
        let loss = model.weighted_cross_entropy(
            &mut tape,
            &noised.batch,
            &noised.positions,
            &noised.targets,
            &weights,
        )?;
        let value = loss.value().f32s()?[0];
        let forward = start.elapsed().as_secs_f64();
        gradients.zero()?;
        tape.backward(&loss, &mut gradients)?;
        drop(loss);
        let backward = start.elapsed().as_secs_f64();
        let norm = global_norm(gradients.tensors())?;
        let gradient_scale = (1.0 / (norm + 1e-6)).min(1.0) as f32;
        for (index, parameter) in model.parameters_mut().iter_mut().enumerate() {
            adamw(AdamWArgs {
                parameter: &mut parameter.value,
                gradient: &gradients.tensors()[index],
                first_moment: &mut first[index],
                second_moment: &mut second[index],
                learning_rate: 1e-4,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: 0.1,
                gradient_scale,
                step,
            })?;
        }
        let seconds = start.elapsed().as_secs_f64();
        best = best.min(seconds);
        println!(
            "step {step}: loss {value:.4}, norm {norm:.3}, forward {forward:.3} s, backward {:.3} s, \
             update {:.3} s, {:.0} tokens/s",
            backward - forward,
            seconds - backward,
            tokens.n_tokens() as f64 / seconds
        );
    }
    println!("best: {:.0} tokens/s", (batch * length) as f64 / best);
    Ok(())
}
