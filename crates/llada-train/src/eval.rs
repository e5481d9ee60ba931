//! The held-out bound of a model.

use llada_diffusion::{
    LikelihoodConfig, MaskPredictor, ScoredSequence, TokenBatch, log_likelihood,
};

use crate::step::autoregressive_examples;
use crate::{Objective, Result, Source};

/// Tokens that are given to the model at once.
const MAX_BATCH_TOKENS: usize = 4096;

/// How held-out data are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvalConfig {
    /// What was learned.
    pub objective: Objective,
    /// Seed of the masks.
    pub seed: u64,
    /// Monte Carlo draws per sequence.
    pub mc_samples: usize,
    /// Sequences at most; 0: all.
    pub max_sequences: usize,
}

/// A figure of the held-out data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Nats per token: the bound of eq. 6 for diffusion, in fine-tuning per token of the answers
    /// given their prompts; the mean loss for autoregression.
    pub bound: f64,
    /// Standard error of the bound over held-out sequences, Monte Carlo noise included.
    pub standard_error: f64,
    /// Sequences that were scored.
    pub sequences: usize,
    /// Tokens of these.
    pub tokens: usize,
}

/// Bound on the negative log-likelihood of held-out sequences, in nats per token.
///
/// Diffusion: eq. 6 of the paper by [`log_likelihood`]; autoregression: the mean loss of all tokens
/// but the first of each sequence. Draws depend on the seed and the sequence alone, so that figures
/// of different steps compare. If not all sequences are scored, those that are lie at even
/// distances. `None` without sequences.
///
/// # Errors
/// If the model fails.
pub fn evaluate(
    model: &dyn MaskPredictor,
    sources: &[Source],
    config: &EvalConfig,
) -> Result<Option<Evaluation>> {
    let sequences = choose(sources, config);
    let (nats, unpredicted) = match config.objective {
        Objective::Diffusion => (diffusion_nats(model, &sequences, config)?, 0),
        Objective::Autoregressive => (autoregressive_nats(model, &sequences)?, 1),
    };
    let predicted: Vec<usize> = sequences
        .iter()
        .map(|sequence| sequence.tokens.len() - sequence.prompt_len - unpredicted)
        .collect();
    let tokens = sequences.iter().map(|sequence| sequence.tokens.len()).sum();
    Ok(summarize(&nats, &predicted, tokens))
}

/// Sequences with something to predict, at even distances.
fn choose<'a>(sources: &'a [Source], config: &EvalConfig) -> Vec<ScoredSequence<'a>> {
    let shortest = match config.objective {
        Objective::Diffusion => 1,
        Objective::Autoregressive => 2,
    };
    let of = |source: &'a Source, at: usize| ScoredSequence {
        tokens: source.sequence(at),
        prompt_len: source.prompt_len(at).unwrap_or(0),
    };
    let all: Vec<ScoredSequence<'_>> = sources
        .iter()
        .flat_map(|source| (0..source.n_sequences()).map(move |at| of(source, at)))
        .filter(|sequence| sequence.tokens.len() >= shortest)
        .collect();
    let limit = if config.max_sequences == 0 {
        all.len()
    } else {
        config.max_sequences
    };
    let n = all.len().min(limit);
    (0..n).map(|i| all[i * all.len() / n]).collect()
}

/// Bound on `-ln p` of each sequence.
fn diffusion_nats(
    model: &dyn MaskPredictor,
    sequences: &[ScoredSequence<'_>],
    config: &EvalConfig,
) -> Result<Vec<f64>> {
    let EvalConfig {
        seed, mc_samples, ..
    } = *config;
    let config = LikelihoodConfig {
        mc_samples,
        max_batch_tokens: MAX_BATCH_TOKENS,
        seed,
        ..LikelihoodConfig::default()
    };
    let estimates = log_likelihood(model, sequences, &config)?;
    Ok(estimates
        .iter()
        .map(|estimate| -estimate.log_likelihood)
        .collect())
}

/// `-ln p` of all but the first token of each sequence.
fn autoregressive_nats(
    model: &dyn MaskPredictor,
    sequences: &[ScoredSequence<'_>],
) -> Result<Vec<f64>> {
    let mut nats = Vec::with_capacity(sequences.len());
    let sequences: Vec<&[u32]> = sequences.iter().map(|sequence| sequence.tokens).collect();
    let mut rest = &sequences[..];
    while !rest.is_empty() {
        let mut n_tokens = 0;
        let fits = |sequence: &&&[u32]| {
            n_tokens += sequence.len();
            n_tokens <= MAX_BATCH_TOKENS
        };
        let n = rest.iter().take_while(fits).count().max(1);
        let (group, later) = rest.split_at(n);
        rest = later;
        let examples = autoregressive_examples(&TokenBatch::new(group)?);
        let losses = model.token_losses(&examples.batch, &examples.positions, &examples.targets)?;
        let mut losses = losses.into_iter().map(f64::from);
        for sequence in group {
            nats.push(losses.by_ref().take(sequence.len() - 1).sum());
        }
    }
    Ok(nats)
}

/// Ratio of the sums of nats and of predicted tokens, with the standard error of a ratio.
fn summarize(nats: &[f64], predicted: &[usize], tokens: usize) -> Option<Evaluation> {
    if nats.is_empty() {
        return None;
    }
    let n = nats.len() as f64;
    let total = predicted.iter().sum::<usize>() as f64;
    let bound = nats.iter().sum::<f64>() / total;
    let pairs = nats.iter().zip(predicted);
    let squares: f64 = pairs
        .map(|(x, &length)| (x - bound * length as f64).powi(2))
        .sum();
    let variance = if nats.len() > 1 {
        squares * n / (n - 1.0)
    } else {
        0.0
    };
    let standard_error = variance.sqrt() / total;
    Some(Evaluation {
        bound,
        standard_error,
        sequences: nats.len(),
        tokens,
    })
}

#[cfg(test)]
mod tests;
