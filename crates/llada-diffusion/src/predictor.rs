//! The mask predictor, seen from training, sampling and scoring.

use llada_tensor::backend::{Candidate, Noise};
use llada_tensor::ops::candidates::{CandidateRule, reduce_logits};
use llada_tensor::{Device, Tape, Tensor, Var};

use crate::{Result, TokenBatch};

/// What callers must know of a predictor's vocabulary and context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PredictorInfo {
    /// Width of the logits: ids `0..vocab_size` can be predicted (`embedding_size` of the
    /// published configurations).
    pub vocab_size: usize,
    /// The mask M.
    pub mask_token_id: u32,
    /// End of a document.
    pub eos_token_id: u32,
    /// Longest sequence.
    pub max_sequence_length: usize,
}

/// A model `p_theta(. | x_t)` that predicts all masked tokens at once.
///
/// `positions` are indexes into the flattened batch; only they are computed by the head.
/// Results of a sequence do not depend on the other sequences of the batch.
pub trait MaskPredictor {
    /// Vocabulary and context.
    fn info(&self) -> PredictorInfo;

    /// Logits of the given positions, row-major `[N, vocab_size]`.
    ///
    /// # Errors
    /// If a token id or a length is out of range, or the runtime fails.
    fn logits(&self, batch: &TokenBatch, positions: &[usize]) -> Result<Vec<f32>>;

    /// Best token of each position under `rule`, with its confidence: what a sampling step needs.
    ///
    /// `noise` draws the Gumbel noise when the rule's temperature is positive.
    /// `unconditional` is the batch of classifier-free guidance, of the same shape (eq. 16).
    ///
    /// # Errors
    /// As [`Self::logits`].
    fn candidates(
        &self,
        batch: &TokenBatch,
        unconditional: Option<&TokenBatch>,
        positions: &[usize],
        rule: &CandidateRule<'_>,
        noise: &Noise<'_>,
    ) -> Result<Vec<Candidate>> {
        let vocab_size = self.info().vocab_size;
        let mut logits = self.logits(batch, positions)?;
        if let Some(unconditional) = unconditional {
            let un = self.logits(unconditional, positions)?;
            for (x, un) in logits.iter_mut().zip(un) {
                *x = rule.guide(*x, un);
            }
        }
        let rows = logits.chunks_exact(vocab_size).enumerate();
        Ok(rows
            .map(|(row, logits)| reduce_logits(logits, row, rule, noise))
            .collect())
    }

    /// Cross-entropy `-ln p(targets[i] | x_t)` of each position, in nats.
    ///
    /// # Errors
    /// As [`Self::logits`]; if `targets` and `positions` differ in length.
    fn token_losses(
        &self,
        batch: &TokenBatch,
        positions: &[usize],
        targets: &[u32],
    ) -> Result<Vec<f32>>;
}

/// A named parameter.
#[derive(Debug)]
pub struct Parameter {
    /// Name in the checkpoint.
    pub name: String,
    /// Value, `f32`.
    pub value: Tensor,
    /// Whether weight decay applies (matrices yes; norms and biases no).
    pub decay: bool,
}

/// A predictor whose parameters can be trained.
pub trait Trainable: MaskPredictor {
    /// Where the parameters live.
    fn device(&self) -> &Device;

    /// The parameters, always in the same order.
    fn parameters(&self) -> &[Parameter];

    /// The parameters, to be updated. Anything derived from them (packed weights) is dropped.
    fn parameters_mut(&mut self) -> &mut [Parameter];

    /// `sum_i weights[i] * -ln p(targets[i] | batch)` over the given positions, a scalar on the
    /// tape.
    ///
    /// # Errors
    /// As [`MaskPredictor::logits`]; if the arguments differ in length.
    fn weighted_cross_entropy(
        &self,
        tape: &mut Tape,
        batch: &TokenBatch,
        positions: &[usize],
        targets: &[u32],
        weights: &[f32],
    ) -> Result<Var>;
}
