//! Likelihoods of an autoregressive model, the baseline of the paper.

use crate::{Error, MaskPredictor, Query, Result, ScoredSequence, TokenBatch};

/// `ln p(x_i | x_0 .. x_{i-1})` of each token after the prompt: the chain rule, in one pass over
/// each sequence.
///
/// The predictor's attention is causal, and its output at a position is about the token after it.
/// So the first token of a sequence has no probability, and a prompt is at least one token long.
/// A call has at most `max_batch_tokens` tokens (a longer sequence goes alone); this bounds memory
/// and changes no result.
///
/// # Errors
/// [`Error::OutOfRange`] if a prompt is empty or leaves nothing to score; [`Error::NotANumber`] for
/// a loss; what the predictor returns otherwise.
pub fn autoregressive_log_likelihood(
    predictor: &dyn MaskPredictor,
    sequences: &[ScoredSequence<'_>],
    max_batch_tokens: usize,
) -> Result<Vec<Vec<f64>>> {
    for sequence in sequences {
        let prompt_len = sequence.prompt_len;
        if !(1..sequence.tokens.len()).contains(&prompt_len) {
            return Err(Error::OutOfRange {
                what: "prompt_len",
                expected: "at least 1 and less than the length of the sequence",
                got: prompt_len as f64,
            });
        }
    }
    let mut values = Vec::with_capacity(sequences.len());
    let mut rest = sequences;
    while !rest.is_empty() {
        let mut n_tokens = 0;
        let fits = |sequence: &&ScoredSequence<'_>| {
            n_tokens += sequence.tokens.len();
            n_tokens <= max_batch_tokens
        };
        let n = rest.iter().take_while(fits).count().max(1);
        let (group, later) = rest.split_at(n);
        values.extend(score(predictor, group)?);
        rest = later;
    }
    Ok(values)
}

/// One call of the predictor.
fn score(predictor: &dyn MaskPredictor, sequences: &[ScoredSequence<'_>]) -> Result<Vec<Vec<f64>>> {
    let tokens: Vec<&[u32]> = sequences.iter().map(|sequence| sequence.tokens).collect();
    let batch = TokenBatch::new(&tokens)?;
    let (mut positions, mut targets) = (Vec::new(), Vec::new());
    for (sequence, start) in sequences.iter().zip(batch.offsets()) {
        let (first, end) = (sequence.prompt_len, sequence.tokens.len());
        positions.extend(start + first - 1..start + end - 1);
        targets.extend_from_slice(&sequence.tokens[first..]);
    }
    let losses = predictor.token_losses(Query::new(&batch, &positions), &targets)?;
    crate::likelihood::expect_losses(positions.len(), &losses)?;
    let mut values = losses.into_iter().map(|loss| -f64::from(loss));
    let of = |sequence: &ScoredSequence<'_>| {
        let n = sequence.tokens.len() - sequence.prompt_len;
        values.by_ref().take(n).collect()
    };
    Ok(sequences.iter().map(of).collect())
}
