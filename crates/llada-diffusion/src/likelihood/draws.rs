//! What the draws of eq. 5 and eq. 6 mask.

use llada_tensor::{Philox, Stream};

use super::{LikelihoodConfig, ScoredSequence};

/// The numbers of masked tokens of a batch of `batch` draws of eq. 6 over `length` tokens, from one
/// random `k` in `{1, .., length}`: `round(linspace(k, k + (batch - 1) * length / batch, batch))`,
/// wrapped into `{1, .., length}`.
///
/// In `f32`, halves to even, as the reference computes it. Where an offset is half a token, the
/// rounding depends on `k`, and over all `k` some numbers never come: `log_likelihood` turns the
/// numbers of one `k` by a random amount, which is the same but for the halves, and has no bias.
///
/// # Panics
/// If `length` is 0.
///
/// Source: arXiv 2502.09992, eq. 6; `forward_process` in the reference's `get_log_likelihood.py`.
#[must_use]
pub fn stratified_counts(k: usize, batch: usize, length: usize) -> Vec<usize> {
    let last = batch.saturating_sub(1);
    let start = k as f32;
    let end = (k as f64 + last as f64 * (length as f64 / batch.max(1) as f64)) as f32;
    let step = (end - start) / last.max(1) as f32;
    let place = |i: usize| {
        // PyTorch walks the second half from the end.
        if i < batch / 2 {
            step.mul_add(i as f32, start)
        } else {
            (-step).mul_add((last - i) as f32, end)
        }
    };
    (0..batch)
        .map(|i| (place(i).round_ties_even() as usize + length - 1) % length + 1)
        .collect()
}

/// `l` of each draw of eq. 6, stratified.
pub(super) fn masked_counts(
    sequence: &ScoredSequence<'_>,
    config: &LikelihoodConfig,
    index: usize,
) -> Vec<usize> {
    let philox = Philox::new(config.seed, Stream::Likelihood);
    let (n, length) = (config.mc_samples, sequence.answer_len());
    let Some(batch_size) = config.batch_size else {
        let count = |draw: usize| {
            let uniform = philox.uniform_f64(counter([index, draw, 0]));
            let quantile = (draw as f64 + uniform) / n as f64;
            // l - 1 = floor(quantile * L); the quantile is below 1, but the product can round up.
            ((quantile * length as f64) as usize).min(length - 1) + 1
        };
        return (0..n).map(count).collect();
    };
    let batch = |first: usize| {
        let turn = philox.below(length as u64, counter([index, first, 0])) as usize;
        let counts = stratified_counts(1, batch_size.get().min(n - first), length);
        counts.into_iter().map(move |l| (l - 1 + turn) % length + 1)
    };
    (0..n).step_by(batch_size.get()).flat_map(batch).collect()
}

/// One draw of eq. 6: which `l` positions of a sequence are masked, ascending, and `L / l`.
pub(super) fn masked_by_count(
    sequence: &ScoredSequence<'_>,
    config: &LikelihoodConfig,
    [index, draw]: [usize; 2],
    l: usize,
) -> (Vec<usize>, f64) {
    let philox = Philox::new(config.seed, Stream::Likelihood);
    let answer_len = sequence.answer_len();
    // The first l places of a shuffle (Fisher and Yates).
    let mut positions: Vec<usize> = (sequence.prompt_len..sequence.tokens.len()).collect();
    for i in 0..l {
        let left = (answer_len - i) as u64;
        positions.swap(
            i,
            i + philox.below(left, counter([index, draw, i + 1])) as usize,
        );
    }
    positions.truncate(l);
    positions.sort_unstable();
    (positions, answer_len as f64 / l as f64)
}

/// One draw of eq. 5: which positions are masked, perhaps none, and `1 / t`.
pub(super) fn masked_by_ratio(
    sequence: &ScoredSequence<'_>,
    config: &LikelihoodConfig,
    index: usize,
    draw: usize,
) -> (Vec<usize>, f64) {
    let philox = Philox::new(config.seed, Stream::Likelihood);
    let uniform = |i: usize| philox.uniform_f64(counter([index, draw, i]));
    // In (0, 1]: the draws are in [0, 1).
    let t = 1.0 - uniform(0);
    let answer = sequence.prompt_len..sequence.tokens.len();
    let is_masked = |at: &usize| uniform(at - sequence.prompt_len + 1) < t;
    (answer.filter(is_masked).collect(), 1.0 / t)
}

/// Index of a sequence, draw, and place within the draw, as the words of Philox.
fn counter(place: [usize; 3]) -> [u32; 3] {
    place.map(|x| u32::try_from(x).expect("indexes and lengths fit in 32 bits"))
}
