//! The forward process: tokens are masked independently with probability `p_mask(t)`.

use crate::{Error, Result, TokenBatch};

/// Smallest masking probability, `eps` of the reference's `forward_process`.
const EPS: f32 = 1e-3;

/// Masking probability of a noise level: `p = (1 - eps) t + eps`, in `f32`.
///
/// Source: `forward_process` in the reference's GUIDELINES.md.
#[must_use]
pub fn p_mask(t: f32) -> f32 {
    (1.0 - EPS) * t + EPS
}

/// A batch after the forward process.
#[derive(Debug, Clone, PartialEq)]
pub struct Noised {
    /// The sequences with masked tokens replaced, `x_t`.
    pub batch: TokenBatch,
    /// Flat indexes of the masked tokens, ascending.
    pub positions: Vec<usize>,
    /// The original token of each masked position, `x_0`.
    pub targets: Vec<u32>,
    /// Masking probability of each masked position's sequence.
    pub p_mask: Vec<f32>,
}

/// Masks every token whose draw is below its sequence's masking probability.
///
/// - `t`: `[B]`, noise level of each sequence in (0, 1].
/// - `u`: `[T]`, a uniform draw for each token.
/// - `maskable`: `[T]`, tokens that may be masked (`None`: all); SFT keeps prompts.
///
/// # Errors
/// [`Error::LengthMismatch`] if `t`, `u` or `maskable` do not fit the batch;
/// [`Error::OutOfRange`] if a `t` is not in [0, 1].
///
/// Source: arXiv 2502.09992 section 2.1; `forward_process` in the reference's GUIDELINES.md.
pub fn forward_process(
    batch: &TokenBatch,
    mask_token_id: u32,
    t: &[f32],
    u: &[f32],
    maskable: Option<&[bool]>,
) -> Result<Noised> {
    expect_length("noise levels t", batch.n_sequences(), t.len())?;
    expect_length("uniform draws u", batch.n_tokens(), u.len())?;
    if let Some(maskable) = maskable {
        expect_length("maskable flags", batch.n_tokens(), maskable.len())?;
    }
    let mut noised = Noised {
        batch: batch.clone(),
        positions: Vec::new(),
        targets: Vec::new(),
        p_mask: Vec::new(),
    };
    for (ends, &t) in batch.offsets().windows(2).zip(t) {
        if !(0.0..=1.0).contains(&t) {
            let got = f64::from(t);
            return Err(Error::OutOfRange {
                what: "t",
                expected: "in [0, 1]",
                got,
            });
        }
        let p = p_mask(t);
        for at in ends[0]..ends[1] {
            if u[at] < p && maskable.is_none_or(|maskable| maskable[at]) {
                noised.positions.push(at);
                noised.targets.push(batch.ids()[at]);
                noised.p_mask.push(p);
                noised.batch.ids_mut()[at] = mask_token_id;
            }
        }
    }
    Ok(noised)
}

pub(crate) fn expect_length(what: &'static str, expected: usize, got: usize) -> Result<()> {
    if expected == got {
        Ok(())
    } else {
        Err(Error::LengthMismatch {
            what,
            expected,
            got,
        })
    }
}

#[cfg(test)]
mod tests;
