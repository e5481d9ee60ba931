//! `llada score`.

use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::Result;
use llada::Llada;
use llada::diffusion::{
    Estimator, LikelihoodConfig, MaskPredictor as _, ScoredSequence, autoregressive_log_likelihood,
    chain_rule, log_likelihood,
};
use llada::sample::{CacheMode, Request, SampleConfig};
use serde_json::json;

use super::generate::end_of_text;
use super::observe::{of_sampler, sample};
use crate::args::{EstimatorName, Format, ScoreArgs};
use crate::config::{Misuse, is_autoregressive, load, needs_diffusion};
use crate::output::print;

pub(crate) fn run(args: &ScoreArgs) -> Result<()> {
    let llada = load(&args.model)?;
    let (prompt, target) = prompt_and_target(args, &llada)?;
    if target.is_empty() {
        return Err(Misuse::of("the target is empty: give at least one token"));
    }
    if args.mc_samples == 0 {
        return Err(Misuse::of("--mc-samples must be at least 1"));
    }
    if args.batch_size.is_some() && args.estimator != EstimatorName::L {
        return Err(Misuse::of("--batch-size needs --estimator l"));
    }
    let is_autoregressive = is_autoregressive(&llada);
    if is_autoregressive {
        check_autoregressive(args, &prompt)?;
    }
    let tokens = [&prompt[..], &target].concat();
    let limit = llada.model.info().max_sequence_length;
    if tokens.len() > limit {
        let n = tokens.len();
        return Err(Misuse::of(format!(
            "{n} tokens exceed the context of {limit}"
        )));
    }
    let sequence = ScoredSequence {
        tokens: &tokens,
        prompt_len: prompt.len(),
    };
    let start = Instant::now();
    let config = LikelihoodConfig {
        mc_samples: args.mc_samples,
        batch_size: args.batch_size,
        seed: args.seed,
        cfg_scale: args.cfg_scale,
        estimator: match args.estimator {
            EstimatorName::T => Estimator::Ratio,
            EstimatorName::L | EstimatorName::Chain => Estimator::Count,
        },
        ..LikelihoodConfig::default()
    };
    let (log_likelihood, standard_error) = if is_autoregressive {
        let values = autoregressive_log_likelihood(&llada.model, &[sequence], tokens.len())?;
        (values[0].iter().sum::<f64>(), 0.0)
    } else if args.estimator == EstimatorName::Chain {
        let order: Vec<usize> = (0..target.len()).collect();
        let values = chain_rule(&llada.model, &sequence, &order, &config)?;
        (values.iter().sum::<f64>(), 0.0)
    } else {
        let estimate = log_likelihood(&llada.model, &[sequence], &config)?[0];
        (estimate.log_likelihood, estimate.standard_error)
    };
    let greedy_match = greedy(&llada, prompt, target.len(), args.cfg_scale)? == target;
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

/// The chain rule in one pass, whatever the draws, if nothing asks for more.
fn check_autoregressive(args: &ScoreArgs, prompt: &[u32]) -> Result<()> {
    let of_diffusion = [
        ("--estimator t", args.estimator == EstimatorName::T),
        ("--batch-size", args.batch_size.is_some()),
        ("--cfg-scale", args.cfg_scale > 0.0),
    ];
    if let Some((flag, _)) = of_diffusion.iter().find(|(_, is_set)| *is_set) {
        return Err(needs_diffusion(flag));
    }
    if prompt.is_empty() {
        return Err(Misuse::of(
            "an autoregressive model has no probability for a first token: give a --prompt",
        ));
    }
    Ok(())
}

fn prompt_and_target(args: &ScoreArgs, llada: &Llada) -> Result<(Vec<u32>, Vec<u32>)> {
    let mut prompt = ids(args.prompt.as_deref(), args.prompt_ids.as_deref(), llada)?;
    let mut target = ids(args.target.as_deref(), args.target_ids.as_deref(), llada)?;
    // Two texts are encoded as one, as in the reference: tokens may not end where the prompt does.
    if let (Some(prompt_text), Some(target_text)) = (&args.prompt, &args.target)
        && args.prompt_ids.is_none()
        && args.target_ids.is_none()
    {
        (prompt, target) = llada.tokenizer.encode_pair(prompt_text, target_text)?;
    }
    let room = llada.model.info().max_sequence_length > prompt.len() + target.len();
    let is_text = args.target_ids.is_none() && !target.is_empty();
    target.extend(end_of_text(llada, room && is_text));
    Ok((prompt, target))
}

fn ids(text: Option<&str>, ids: Option<&[u32]>, llada: &Llada) -> Result<Vec<u32>> {
    let ids = match (ids, text) {
        (Some(ids), _) => ids.to_vec(),
        (None, Some(text)) => {
            let ids = llada.tokenizer.encode_strict(text);
            ids.map_err(Misuse::from_error)?
        }
        (None, None) => Vec::new(),
    };
    let vocab_size = llada.model.info().vocab_size;
    match ids.iter().find(|&&id| id as usize >= vocab_size) {
        Some(id) => Err(Misuse::of(format!(
            "token id {id}: the vocabulary ends at {}",
            vocab_size - 1
        ))),
        None => Ok(ids),
    }
}

/// What the model writes after the prompt if the surest token is revealed in each pass:
/// `suffix_greedy_prediction` of the reference. An autoregressive model writes from left to right.
fn greedy(llada: &Llada, prompt: Vec<u32>, length: usize, cfg_scale: f32) -> Result<Vec<u32>> {
    let config = SampleConfig {
        steps: length,
        gen_length: length,
        block_length: None,
        cfg_scale,
        cache: match is_autoregressive(llada) {
            true => CacheMode::Prefix,
            false => CacheMode::None,
        },
        ..SampleConfig::default()
    };
    let requests = [Request::generate(prompt, config)];
    let outputs = sample(llada, &requests, &mut |_| ControlFlow::Continue(()));
    let outputs = outputs.map_err(of_sampler)?;
    Ok(outputs[0].answer().to_vec())
}
