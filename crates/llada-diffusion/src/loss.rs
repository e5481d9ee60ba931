//! The training losses of eq. 3 and eq. 5, as weights of each masked token's cross-entropy.

use crate::forward::expect_length;
use crate::{Noised, Result};

/// Weights with which the cross-entropies of a noised batch add up to the pre-training loss.
///
/// Eq. 3: `L(theta) = -E_{t, x_0, x_t} [1/t * sum_i 1[x_t^i = M] ln p_theta(x_0^i | x_t)]`, here
/// per token: `loss = sum_i weights[i] * -ln p_theta(targets[i] | x_t)` over the masked positions
/// `i`, with `weights[i] = 1 / (p_mask[i] * T)`.
///
/// - `T` is the number of tokens of the batch, masked or not: `B * L` where all lengths are equal,
///   as in the reference. It is not the number of masked tokens.
/// - Returns one weight for each of `noised.positions`; computed in `f64`, rounded to `f32`.
///
/// Source: arXiv 2502.09992, eq. 3; pre-training in the reference's GUIDELINES.md
/// (`token_loss.sum() / (b * l)`).
#[must_use]
pub fn diffusion_loss_weights(noised: &Noised) -> Vec<f32> {
    let n_tokens = noised.batch.n_tokens() as f64;
    noised
        .p_mask
        .iter()
        .map(|&p| (1.0 / (f64::from(p) * n_tokens)) as f32)
        .collect()
}

/// Weights with which the cross-entropies of a noised batch add up to the loss of fine-tuning.
///
/// Eq. 5: `-E_{t, p_0, r_0, r_t} [1/t * sum_i 1[r_t^i = M] ln p_theta(r_0^i | p_0, r_t)]`, here per
/// token of the answer and averaged over the `B` sequences:
/// `weights[i] = w_i / (p_mask[i] * W * B)`, where `w_i` is the weight of the token and `W` the sum
/// of the weights of its sequence. With a weight of 1 for every token of the answer, those that pad
/// it counted, `W` is the length of the answer, as in the reference.
///
/// - `token_weights`: `[T]`, 0 for the tokens of the prompt.
/// - Returns one weight for each of `noised.positions`; computed in `f64`, rounded to `f32`.
///
/// # Errors
/// [`Error::LengthMismatch`](crate::Error::LengthMismatch) if `token_weights` is not `[T]`.
///
/// Source: arXiv 2502.09992, eq. 5; SFT in the reference's GUIDELINES.md
/// (`sum(token_loss / answer_lengths) / b`).
pub fn sft_loss_weights(noised: &Noised, token_weights: &[f32]) -> Result<Vec<f32>> {
    expect_length(
        "token weights",
        noised.batch.n_tokens(),
        token_weights.len(),
    )?;
    let n_sequences = noised.batch.n_sequences() as f64;
    let mut weights = Vec::with_capacity(noised.positions.len());
    let mut masked = noised.positions.iter().zip(&noised.p_mask).peekable();
    for ends in noised.batch.offsets().windows(2) {
        let own = &token_weights[ends[0]..ends[1]];
        let total: f64 = own.iter().map(|&weight| f64::from(weight)).sum();
        while let Some((&at, &p)) = masked.next_if(|&(&at, _)| at < ends[1]) {
            let weight = f64::from(token_weights[at]);
            weights.push((weight / (f64::from(p) * total * n_sequences)) as f32);
        }
    }
    Ok(weights)
}

/// Weights with which the cross-entropies of a noised batch add up to their plain mean.
///
/// Every masked token counts alike, `weights[i] = 1 / M` for `M` masked tokens, whatever the ratio
/// at which its sequence was masked. The best predictor is that of eq. 3, as each masked position
/// still asks for the same conditional distribution; but no token weighs a thousand times as much
/// as another, so that short sequences, of which a small `t` leaves one masked token or none, give
/// gradients of far less variance. The sum is no bound of the likelihood.
///
/// - Returns one weight for each of `noised.positions`.
///
/// Source: the `uniform` weight of `dllm`; Chang et al. 2022, eq. 1 (arXiv 2202.04200).
#[must_use]
pub fn uniform_loss_weights(noised: &Noised) -> Vec<f32> {
    let n_masked = noised.positions.len();
    vec![(1.0 / n_masked as f64) as f32; n_masked]
}

#[cfg(test)]
mod tests;
