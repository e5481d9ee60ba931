//! `llada score`.

use std::time::Instant;

use anyhow::Result;
use llada::diffusion::LikelihoodConfig;
use llada::{Prompt, Score};
use serde_json::json;

use super::generate::check_ids;
use super::jobs::{inner, of_text};
use crate::args::{EstimatorName, Format, ScoreArgs};
use crate::config::{Embedded, Misuse, load_checkpoint};
use crate::output::print;

pub(crate) fn run(args: &ScoreArgs) -> Result<()> {
    let only_ids = args.prompt.is_none() && args.target.is_none();
    let (llada, _) = load_checkpoint(&args.model, Embedded::Poems, only_ids)?;
    let (prompt, target) = (
        source(args.prompt.as_deref(), args.prompt_ids.as_deref()),
        source(args.target.as_deref(), args.target_ids.as_deref()),
    );
    let (prompt, target) = llada.encode_pair(&prompt, &target).map_err(of_text)?;
    check_ids(&prompt, &llada)?;
    check_ids(&target, &llada)?;
    if target.is_empty() {
        return Err(Misuse::of("the target is empty: give at least one token"));
    }
    if args.mc_samples == 0 {
        return Err(Misuse::of("--mc-samples must be at least 1"));
    }
    if args.batch_size.is_some() && args.estimator != EstimatorName::L {
        return Err(Misuse::of("--batch-size needs --estimator l"));
    }
    if prompt.is_empty() && llada.info().is_autoregressive() {
        return Err(Misuse::of(
            "an autoregressive model has no probability for a first token: give a --prompt",
        ));
    }
    let n = prompt.len() + target.len();
    let limit = llada.info().max_sequence_length;
    if n > limit {
        return Err(Misuse::of(format!(
            "{n} tokens exceed the context of {limit}"
        )));
    }
    let start = Instant::now();
    let config = LikelihoodConfig {
        mc_samples: args.mc_samples,
        batch_size: args.batch_size,
        seed: args.seed,
        cfg_scale: args.cfg_scale,
        estimator: args.estimator.into(),
        ..LikelihoodConfig::default()
    };
    let Score {
        estimate,
        is_greedy: greedy_match,
    } = llada.score(prompt, &target[..], &config).map_err(inner)?;
    let (log_likelihood, standard_error) = (estimate.log_likelihood, estimate.standard_error);
    let seconds = start.elapsed().as_secs_f64();
    match args.model.run.format {
        Format::Json => {
            // A single draw has no spread: null.
            let standard_error = standard_error.is_finite().then_some(standard_error);
            let result = json!({
                "log_likelihood": log_likelihood,
                "standard_error": standard_error,
                "greedy_match": greedy_match,
                "target_tokens": target.len(),
                "seconds": seconds,
            });
            print(&format!("{result}\n"))
        }
        Format::Text => {
            #[expect(clippy::cast_precision_loss, reason = "a length")]
            let per_token = log_likelihood / target.len() as f64;
            let greedy = if greedy_match { "is" } else { "is not" };
            print(&format!(
                "log-likelihood {log_likelihood:.3} ± {standard_error:.3} nats, {per_token:.3} a \
                 token; the target {greedy} what greedy decoding gives\n"
            ))
        }
    }
}

fn source<'a>(text: Option<&'a str>, ids: Option<&'a [u32]>) -> Prompt<'a> {
    match (ids, text) {
        (Some(ids), _) => ids.into(),
        (None, Some(text)) => text.into(),
        (None, None) => Prompt::Ids(Vec::new().into()),
    }
}
