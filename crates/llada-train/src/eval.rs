//! The held-out bound of a model.

use llada_diffusion::{
    LikelihoodConfig, MaskPredictor, ScoredSequence, autoregressive_log_likelihood, log_likelihood,
    nats_per_token,
};

use crate::communicator::{Communicator, share};
use crate::{Objective, Result, Single, Source};

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
    evaluate_shared(model, sources, config, &Single)
}

/// As [`evaluate`], with the same bits: each rank scores its share of the sequences.
pub(crate) fn evaluate_shared(
    model: &dyn MaskPredictor,
    sources: &[Source],
    config: &EvalConfig,
    communicator: &dyn Communicator,
) -> Result<Option<Evaluation>> {
    let chosen = choose(sources, config);
    let mine = share(chosen.len(), communicator);
    let texts: Vec<_> = (chosen[mine.clone()].iter())
        .map(|&(source, at)| source.sequence(at))
        .collect::<Result<_>>()?;
    let prompt_len = |&(source, at): &(&Source, usize)| source.prompt_len(at).unwrap_or(0);
    let sequences: Vec<ScoredSequence<'_>> = (chosen[mine.clone()].iter().zip(&texts))
        .map(|(of, tokens)| ScoredSequence {
            tokens,
            prompt_len: prompt_len(of),
        })
        .collect();
    let (nats, unpredicted) = match config.objective {
        Objective::Diffusion => (diffusion_nats(model, &sequences, mine.start, config)?, 0),
        Objective::Autoregressive => (autoregressive_nats(model, &sequences)?, 1),
    };
    let nats = communicator.all_gather(&nats).concat();
    let length = |&(source, at): &(&Source, usize)| source.sequence_len(at);
    let predicted: Vec<usize> = (chosen.iter())
        .map(|of| length(of) - prompt_len(of) - unpredicted)
        .collect();
    let figure = nats_per_token(&nats, &predicted);
    Ok(figure.map(|(bound, standard_error)| Evaluation {
        bound,
        standard_error,
        sequences: chosen.len(),
        tokens: chosen.iter().map(length).sum(),
    }))
}

/// Sequences with something to predict, at even distances.
fn choose<'a>(sources: &'a [Source], config: &EvalConfig) -> Vec<(&'a Source, usize)> {
    let shortest = match config.objective {
        Objective::Diffusion => 1,
        Objective::Autoregressive => 2,
    };
    let all: Vec<(&Source, usize)> = sources
        .iter()
        .flat_map(|source| (0..source.n_sequences()).map(move |at| (source, at)))
        .filter(|(source, at)| source.sequence_len(*at) >= shortest)
        .collect();
    let limit = if config.max_sequences == 0 {
        all.len()
    } else {
        config.max_sequences
    };
    let n = all.len().min(limit);
    (0..n).map(|i| all[i * all.len() / n]).collect()
}

/// Bound on `-ln p` of each sequence; `first_index` is the place of the first one in the whole list.
fn diffusion_nats(
    model: &dyn MaskPredictor,
    sequences: &[ScoredSequence<'_>],
    first_index: usize,
    config: &EvalConfig,
) -> Result<Vec<f64>> {
    let EvalConfig {
        seed, mc_samples, ..
    } = *config;
    let config = LikelihoodConfig {
        mc_samples,
        max_batch_tokens: MAX_BATCH_TOKENS,
        seed,
        first_index,
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
    let mut scored = sequences.to_vec();
    for sequence in &mut scored {
        sequence.prompt_len = 1;
    }
    let values = autoregressive_log_likelihood(model, &scored, MAX_BATCH_TOKENS)?;
    Ok(values
        .iter()
        .map(|values| -values.iter().sum::<f64>())
        .collect())
}

#[cfg(test)]
mod tests;
