//! Likelihoods of an autoregressive model, the baseline of the paper.

use crate::{MaskPredictor, Result, ScoredSequence, Scoring};

/// `ln p(x_i | x_0 .. x_{i-1})` of each token after the prompt: the chain rule, in one pass over
/// each sequence.
///
/// The predictor's attention is causal, and its output at a position is about the token after it.
/// So the first token of a sequence has no probability, and a prompt is at least one token long.
/// A call has at most `max_batch_tokens` tokens (a longer sequence goes alone); this bounds memory
/// and changes no result.
///
/// # Errors
/// [`crate::Error::OutOfRange`] if a prompt is empty or leaves nothing to score;
/// [`crate::Error::NotANumber`] for a loss; what the predictor returns otherwise.
pub fn autoregressive_log_likelihood(
    predictor: &dyn MaskPredictor,
    sequences: &[ScoredSequence<'_>],
    max_batch_tokens: usize,
) -> Result<Vec<Vec<f64>>> {
    let info = predictor.info();
    let mut scoring = Scoring::next_token(sequences, max_batch_tokens, &info)?;
    scoring.run(predictor)?;
    let values = |at: usize| scoring.token_scores(at).map(|score| score.log_probability);
    Ok((0..sequences.len())
        .map(|at| values(at).collect())
        .collect())
}
