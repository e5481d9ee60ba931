//! The reverse process: masked tokens are revealed independently from noise level `t` to `s < t`.
//!
//! `q_{s|t}(x_s^i | x_t)`: a token that is not masked stays; a masked one stays masked with
//! probability `s / t` and is drawn from `q_{0|t}(. | x_t)`, here the mask predictor, with
//! probability `(t - s) / t`.
//!
//! Source: arXiv 2502.09992, appendix A, the reverse of eq. 7 and 8.

use llada_tensor::{Philox, Stream};

use crate::forward::expect_length;
use crate::{Error, Result, TokenBatch};

/// Probability `(t - s) / t` that a token masked at noise level `t` is revealed at `s`.
///
/// # Errors
/// [`Error::OutOfRange`] unless `0 <= s <= t <= 1` and `t > 0`.
///
/// Source: arXiv 2502.09992, appendix A.
pub fn reveal_probability(t: f64, s: f64) -> Result<f64> {
    if !(t > 0.0 && t <= 1.0) {
        return Err(Error::OutOfRange {
            what: "t",
            expected: "in (0, 1]",
            got: t,
        });
    }
    if !(0.0..=t).contains(&s) {
        return Err(Error::OutOfRange {
            what: "s",
            expected: "in [0, t]",
            got: s,
        });
    }
    Ok((t - s) / t)
}

/// What the draws of one sequence in one step depend on, besides the position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepKey {
    /// Seed of the request.
    pub seed: u64,
    /// Sequence within the request; not its place in a batch.
    pub sequence: u32,
    /// Sampling step, from 0.
    pub step: u32,
}

impl StepKey {
    /// The uniform draw that decides about one position: whether the reverse process reveals it,
    /// or its rank in random remasking.
    ///
    /// # Panics
    /// If the position does not fit in 32 bits.
    #[must_use]
    pub fn remask_uniform(&self, position: usize) -> f32 {
        let position = u32::try_from(position).expect("positions fit in 32 bits");
        let philox = Philox::new(self.seed, Stream::Remask);
        philox.uniform_f32([position, self.step, self.sequence])
    }
}

/// Draws which masked tokens the reverse process reveals between noise levels `t` and `s`.
///
/// - `t`, `s`, `keys`: `[B]`, the noise levels and the draws of each sequence.
/// - Returns flat positions, ascending. The tokens to put there are the mask predictor's.
/// - Draws of a sequence depend on its key alone, not on the rest of the batch.
///
/// # Errors
/// [`Error::LengthMismatch`] if `t`, `s` or `keys` do not fit the batch;
/// [`Error::OutOfRange`] as in [`reveal_probability`].
///
/// Source: arXiv 2502.09992, appendix A.
pub fn reverse_transition(
    batch: &TokenBatch,
    mask_token_id: u32,
    t: &[f64],
    s: &[f64],
    keys: &[StepKey],
) -> Result<Vec<usize>> {
    expect_length("noise levels t", batch.n_sequences(), t.len())?;
    expect_length("noise levels s", batch.n_sequences(), s.len())?;
    expect_length("step keys", batch.n_sequences(), keys.len())?;
    let mut revealed = Vec::new();
    for (row, sequence) in batch.sequences().enumerate() {
        let p = reveal_probability(t[row], s[row])?;
        let is_revealed = |&(position, &token): &(usize, &u32)| {
            token == mask_token_id && f64::from(keys[row].remask_uniform(position)) < p
        };
        let start = batch.offsets()[row];
        let positions = sequence.iter().enumerate().filter(is_revealed);
        revealed.extend(positions.map(|(position, _)| start + position));
    }
    Ok(revealed)
}

#[cfg(test)]
mod tests;
