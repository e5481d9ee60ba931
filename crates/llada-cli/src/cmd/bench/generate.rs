//! `llada bench generate`.

use std::cell::Cell;
use std::ops::ControlFlow;

use anyhow::Result;
use llada::FrozenModel;
use llada::diffusion::{
    Cached, Candidate, MaskPredictor, Noise, PredictorInfo, Result as DiffusionResult, RowPlan,
    TokenBatch,
};
use llada::sample::{CacheMode, Output, Process, Request, SampleConfig, sample};
use llada::tensor::backend::DenoisingStep;
use llada::tensor::ops::candidates::CandidateRule;
use serde_json::json;

use super::measure::{Peak, Timing};
use super::{Outcome, Subject};
use crate::args::BenchGenerateArgs;
use crate::cmd::observe::of_sampler;
use crate::config::Misuse;

pub(super) fn run(args: &BenchGenerateArgs) -> Result<()> {
    let subject = Subject::new(&args.subject, 1, None)?;
    let (prompt_length, gen_length) = lengths(args)?;
    let config = sample_config(args, gen_length)?;
    let length = prompt_length.saturating_add(gen_length);
    subject.check_length("--prompt-length and --gen-length", length)?;
    let model = subject.frozen(length)?;
    let prompts = subject.tokens(prompt_length)?;
    let requests: Vec<Request> = prompts
        .sequences()
        .map(|prompt| Request::generate(prompt.to_vec(), config.clone()))
        .collect();
    let pass = || {
        let counting = Counting::new(&model);
        let outputs = sample(&counting, &requests, &mut |_| ControlFlow::Continue(()));
        Ok((counting.flops.get(), outputs.map_err(of_sampler)?))
    };
    let time = || Timing::of(args.subject.rounds, pass);
    let (peak, (timing, (flops, outputs))) =
        Peak::around(&subject.device, subject.precision, time)?;
    let most = |of: fn(&Output) -> usize| outputs.iter().map(of).max();
    Outcome {
        subject: &subject,
        settings: json!({
            "prompt_length": prompt_length,
            "gen_length": gen_length,
            "block_length": args.block_length.unwrap_or(gen_length),
            "cache": config.cache.name(),
            "steps": most(|output| output.steps),
            "nfe": most(|output| output.nfe),
        }),
        timing,
        peak,
        tokens: subject.batch * gen_length,
        flops,
        weights_bytes: model.bytes(),
    }
    .print(args.subject.model.run.format)
}

/// Of the prompt and of the answer.
fn lengths(args: &BenchGenerateArgs) -> Result<(usize, usize)> {
    const PROMPT: usize = 32;
    const ANSWER: usize = 128;
    let Some(length) = args.length else {
        let prompt = args.prompt_length.unwrap_or(PROMPT);
        return Ok((prompt, args.gen_length.unwrap_or(ANSWER)));
    };
    let prompt = args.prompt_length.unwrap_or(PROMPT.min(length / 2));
    match length.checked_sub(prompt) {
        Some(answer) if answer > 0 => Ok((prompt, answer)),
        _ => Err(Misuse::of(format!(
            "--length {length}: no room for an answer after a prompt of {prompt}"
        ))),
    }
}

fn sample_config(args: &BenchGenerateArgs, gen_length: usize) -> Result<SampleConfig> {
    let steps = args.steps.unwrap_or(gen_length);
    for (flag, value) in [
        ("--prompt-length", args.prompt_length.unwrap_or(1)),
        ("--gen-length", gen_length),
        ("--steps", steps),
        ("--block-length", args.block_length.unwrap_or(1)),
    ] {
        if value == 0 {
            return Err(Misuse::of(format!("{flag} must be at least 1")));
        }
    }
    let cache: Result<CacheMode, _> = args.cache.parse();
    Ok(SampleConfig {
        steps,
        gen_length,
        block_length: args.block_length,
        process: args.threshold.map_or(Process::Quota, Process::Threshold),
        cache: cache.map_err(Misuse::from_error)?,
        // A mask that wins would leave a step more or less to do.
        suppress_mask: true,
        seed: args.subject.seed,
        ..SampleConfig::default()
    })
}

/// A predictor that counts what it computes.
struct Counting<'a> {
    model: &'a FrozenModel,
    flops: Cell<u64>,
}

impl<'a> Counting<'a> {
    fn new(model: &'a FrozenModel) -> Self {
        let flops = Cell::new(0);
        Self { model, flops }
    }

    fn count(&self, positions: usize, asked: usize) {
        let flops = self.model.config().forward_flops(positions, asked);
        self.flops.set(self.flops.get() + flops);
    }
}

impl MaskPredictor for Counting<'_> {
    fn info(&self) -> PredictorInfo {
        self.model.info()
    }

    fn logits(&self, batch: &TokenBatch, positions: &[usize]) -> DiffusionResult<Vec<f32>> {
        self.count(batch.n_tokens(), positions.len());
        self.model.logits(batch, positions)
    }

    fn candidates(
        &self,
        batch: &TokenBatch,
        unconditional: Option<&TokenBatch>,
        positions: &[usize],
        rule: &CandidateRule<'_>,
        noise: &Noise<'_>,
    ) -> DiffusionResult<Vec<Candidate>> {
        for batch in [Some(batch), unconditional].into_iter().flatten() {
            self.count(batch.n_tokens(), positions.len());
        }
        self.model
            .candidates(batch, unconditional, positions, rule, noise)
    }

    fn candidates_cached(
        &self,
        batch: &TokenBatch,
        cached: Cached<'_>,
        positions: &[usize],
        rule: &CandidateRule<'_>,
        noise: &Noise<'_>,
    ) -> DiffusionResult<Vec<Candidate>> {
        let computed = cached.plans.iter().map(RowPlan::n_rows).sum();
        self.count(computed, positions.len());
        self.model
            .candidates_cached(batch, cached, positions, rule, noise)
    }

    fn steps_at_once(&self) -> usize {
        self.model.steps_at_once()
    }

    fn candidates_ahead(
        &self,
        batch: &TokenBatch,
        positions: &[usize],
        rule: &CandidateRule<'_>,
        steps: &[DenoisingStep<'_>],
    ) -> DiffusionResult<Vec<Vec<Candidate>>> {
        for _ in steps {
            self.count(batch.n_tokens(), positions.len());
        }
        self.model.candidates_ahead(batch, positions, rule, steps)
    }

    fn token_losses(
        &self,
        batch: &TokenBatch,
        positions: &[usize],
        targets: &[u32],
    ) -> DiffusionResult<Vec<f32>> {
        self.count(batch.n_tokens(), positions.len());
        self.model.token_losses(batch, positions, targets)
    }
}
