//! The reverse process: masked tokens are revealed independently from noise level `t` to `s < t`.
//!
//! `q_{s|t}(x_s^i | x_t)`: a token that is not masked stays; a masked one stays masked with
//! probability `s / t` and is drawn from `q_{0|t}(. | x_t)`, here the mask predictor, with
//! probability `(t - s) / t`.
//!
//! Source: arXiv 2502.09992, appendix A, the reverse of eq. 7 and 8.

use llada_tensor::{Philox, Stream};

use crate::{Error, Result};

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

#[cfg(test)]
mod tests;
