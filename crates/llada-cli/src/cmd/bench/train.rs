//! `llada bench train`.

use std::path::Path;

use anyhow::Result;
use llada::diffusion::Trainable as _;
use llada::train::{Batch, Optimizer, TrainConfig, train_step};
use serde_json::json;

use super::measure::Timing;
use super::{Outcome, Subject};
use crate::args::BenchTrainArgs;
use crate::config::Misuse;

/// Sequences of a step, if their number is not given.
const BATCH: usize = 16;
/// The shape, if none is given.
const PRESET: &str = "llada-25m";

pub(super) fn run(args: &BenchTrainArgs) -> Result<()> {
    let length = args.length;
    let subject = Subject::new(&args.subject, BATCH, Some(PRESET))?;
    subject.check_length("--length", length)?;
    let config = train_config(&subject, length)?;
    let model = subject.trainable(length)?;
    let mut model = model.checkpoint_activations(args.activation_checkpointing);
    let batch: Batch = subject.tokens(length)?.into();
    let mut optimizer = Optimizer::new(model.parameters())?;
    // Always the first step, so that every round masks the same tokens.
    let pass = || Ok(train_step(&mut model, &mut optimizer, &batch, &config, 0)?);
    let rounds = args.steps.or(args.subject.rounds);
    let (timing, report) = Timing::of(&subject, rounds, pass)?;
    let tokens = batch.tokens.n_tokens();
    let bytes = |x: &llada::tensor::Tensor| x.numel() * x.dtype().size_bytes();
    Outcome {
        subject: &subject,
        settings: json!({
            "length": length, "masked": report.predicted, "loss": report.loss,
            "activation_checkpointing": args.activation_checkpointing,
        }),
        timing,
        tokens,
        // The gradients of the inputs and of the weights are a product each.
        flops: 3 * subject.config.forward_flops(tokens, report.predicted),
        weights_bytes: model.parameters().iter().map(|p| bytes(&p.value)).sum(),
    }
    .print(args.subject.model.run.format)
}

fn train_config(subject: &Subject, length: usize) -> Result<TrainConfig> {
    if subject.precision.is_integer() {
        return Err(Misuse::of("bench train: expected --dtype f32 or bf16"));
    }
    // Masking ratios that are spread evenly: about half of the tokens are masked.
    let toml = format!(
        "[data]\ntrain = [\"random tokens\"]\nsequence_length = {length}\n\
         [train]\nsteps = 1\nbatch_size = {}\nprecision = \"{}\"\n\
         t_sampler = \"stratified\"\n",
        subject.batch,
        subject.precision.name()
    );
    let config = TrainConfig::from_toml(&toml, Path::new("bench"))?;
    let seed = subject.seed;
    Ok(TrainConfig { seed, ..config })
}
