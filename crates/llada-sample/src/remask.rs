//! Remasking: which positions keep their predicted tokens.

use std::cmp::Ordering;

use llada_diffusion::Candidate;

use crate::Remasking;

/// What positions are ranked by: the higher, the rather the token stays.
///
/// Random remasking ranks by draws, before anything is predicted, and needs no score.
pub(crate) fn score(remasking: Remasking, candidate: &Candidate) -> f32 {
    match remasking {
        Remasking::LowConfidence | Remasking::Random => candidate.confidence,
        Remasking::Margin => candidate.margin,
        Remasking::Entropy => -candidate.entropy,
    }
}

/// Indexes of the `quota` highest scores, ascending; the first come first among equals.
///
/// The reference's `topk` leaves the order of equals open. Scores are numbers, not NaN.
pub(crate) fn highest(scores: &[f32], quota: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let by_score =
        |&a: &usize, &b: &usize| scores[b].partial_cmp(&scores[a]).unwrap_or(Ordering::Equal);
    // The sort is stable: equals stay in order.
    order.sort_by(by_score);
    order.truncate(quota);
    order.sort_unstable();
    order
}

#[cfg(test)]
mod tests;
