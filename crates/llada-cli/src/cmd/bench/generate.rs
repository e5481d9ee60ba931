//! `llada bench generate`.

use std::cell::Cell;
use std::ops::ControlFlow;

use anyhow::Result;
use llada::FrozenModel;
use llada::diffusion::{
    Candidates, Choice, MaskPredictor, PredictorInfo, Query, Result as DiffusionResult, RowPlan,
};
use llada::sample::{CacheMode, Output, Process, Request, SampleConfig, sample};
use serde_json::json;

use super::measure::Timing;
use super::{Outcome, Subject};
use crate::args::BenchGenerateArgs;
use crate::cmd::observe::of_sampler;
use crate::config::{Misuse, check_counts};

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
    let (timing, (flops, outputs)) = Timing::of(&subject, args.subject.rounds, pass)?;
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
            "speculate": config.speculate,
            "rows": most(|output| output.rows),
        }),
        timing,
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
    check_counts(&[
        ("--prompt-length", args.prompt_length),
        ("--gen-length", Some(gen_length)),
        ("--steps", Some(steps)),
        ("--block-length", args.block_length),
    ])?;
    let cache: Result<CacheMode, _> = args.cache.parse();
    Ok(SampleConfig {
        steps,
        gen_length,
        block_length: args.block_length,
        process: args.threshold.map_or(Process::Quota, Process::Threshold),
        cache: cache.map_err(Misuse::from_error)?,
        speculate: args.speculate,
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

    /// Passes of a query and of so many steps that were taken with it.
    fn count(&self, query: &Query<'_>, ahead: usize) {
        let computed = match &query.cached {
            Some(cached) => cached.plans.iter().map(RowPlan::n_rows).sum(),
            None => query.batch.n_tokens(),
        };
        let flops = (self.model.config()).forward_flops(computed, query.positions.len());
        let passes = 1 + ahead + usize::from(query.guidance.is_some());
        self.flops.set(self.flops.get() + passes as u64 * flops);
    }
}

impl MaskPredictor for Counting<'_> {
    fn info(&self) -> PredictorInfo {
        self.model.info()
    }

    fn logits(&self, query: Query<'_>) -> DiffusionResult<Vec<f32>> {
        self.count(&query, 0);
        self.model.logits(query)
    }

    fn candidates(&self, query: Query<'_>, choice: &Choice<'_>) -> DiffusionResult<Candidates> {
        self.count(&query, choice.ahead.len().saturating_sub(1));
        self.model.candidates(query, choice)
    }

    fn token_losses(&self, query: Query<'_>, targets: &[u32]) -> DiffusionResult<Vec<f32>> {
        self.count(&query, 0);
        self.model.token_losses(query, targets)
    }
}
