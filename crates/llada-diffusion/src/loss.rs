//! The training loss of eq. 3, as weights of each masked token's cross-entropy.

use crate::Noised;

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
