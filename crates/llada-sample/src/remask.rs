//! Remasking: which positions keep their predicted tokens.

use std::cmp::Ordering;

use llada_diffusion::Candidate;

use crate::Remasking;

/// What positions are ranked by: the higher, the rather the token stays.
///
/// Random remasking ranks by draws, before anything is predicted, and needs no score.
pub(crate) fn score(remasking: Remasking, candidate: &Candidate) -> f32 {
    match remasking {
        // The running mean counts the steps before, which a candidate does not know.
        Remasking::LowConfidence | Remasking::Random | Remasking::RunningConfidence => {
            candidate.confidence
        }
        Remasking::Margin => candidate.margin,
        Remasking::Entropy => -candidate.entropy,
    }
}

/// Indexes of the scores, the highest first; the first come first among equals.
///
/// The reference's `topk` leaves the order of equals open. Scores are numbers, not NaN.
pub(crate) fn ranked(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let by_score =
        |&a: &usize, &b: &usize| scores[b].partial_cmp(&scores[a]).unwrap_or(Ordering::Equal);
    // The sort is stable: equals stay in order.
    order.sort_by(by_score);
    order
}

/// Indexes of the `quota` highest scores, ascending.
pub(crate) fn highest(scores: &[f32], quota: usize) -> Vec<usize> {
    let mut order = ranked(scores);
    order.truncate(quota);
    order.sort_unstable();
    order
}

/// How many of the ranked confidences are kept by a threshold: those that reach it, and the best.
///
/// Source: `get_transfer_index` of Fast-dLLM.
pub(crate) fn above_threshold(ranked: &[f32], threshold: f32) -> usize {
    let kept = ranked
        .iter()
        .take_while(|&&confidence| confidence >= threshold);
    kept.count().max(1)
}

/// How many of the ranked confidences are kept by a factor.
///
/// Source: `get_transfer_index_dynamic` of Fast-dLLM.
pub(crate) fn by_factor(ranked: &[f32], factor: f32) -> usize {
    let bound = |rank: usize| 1.0 - f64::from(factor) / (rank + 1) as f64;
    // The best one counts in any case.
    let fails = |i: usize| i > 0 && f64::from(ranked[i]) < bound(i + 1);
    match (0..ranked.len()).find(|&i| fails(i)) {
        Some(i) if i + 1 < ranked.len() => i,
        _ => ranked.len(),
    }
}

#[cfg(test)]
mod tests;
