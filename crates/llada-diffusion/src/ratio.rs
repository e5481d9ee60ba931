//! Nats per token over sequences of different lengths.

/// Nats per token of all sequences together, and its standard error over sequences: that of a
/// ratio of sums, `r = sum_i x_i / sum_i n_i` with the residuals `x_i - r n_i`.
///
/// - `nats`: `-ln p` of each sequence; `n_tokens`: how many of its tokens were predicted.
/// - Noise of each estimate is in it. One sequence says nothing of the spread: its error is 0.
///
/// `None` without tokens.
#[must_use]
pub fn nats_per_token(nats: &[f64], n_tokens: &[usize]) -> Option<(f64, f64)> {
    let (n, total) = (nats.len() as f64, n_tokens.iter().sum::<usize>() as f64);
    if total == 0.0 {
        return None;
    }
    let ratio = nats.iter().sum::<f64>() / total;
    let residual = |(x, &length): (&f64, &usize)| x - ratio * length as f64;
    let squares: f64 = nats.iter().zip(n_tokens).map(|x| residual(x).powi(2)).sum();
    let standard_error = if nats.len() > 1 {
        (squares * n / (n - 1.0)).sqrt() / total
    } else {
        0.0
    };
    Some((ratio, standard_error))
}
