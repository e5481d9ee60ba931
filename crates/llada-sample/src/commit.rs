//! Commit rules: how many, or which, of a step's predictions stay.
//!
//! All of them read the record that a forward pass leaves of each mask, [`Candidate`], and nothing
//! else; none needs another pass.

use llada_diffusion::Candidate;

use crate::edit::filled;
use crate::remask::{above_threshold, by_factor};
use crate::{Alg, Process};

/// What a rule sees of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Predicted<'a> {
    /// `[N]`, ascending places in the canvas.
    pub(crate) positions: &'a [usize],
    /// `[N]`
    pub(crate) candidates: &'a [Candidate],
    /// `[N]`, indexes of the candidates, the best first.
    pub(crate) order: &'a [usize],
    /// What the schedule would reveal.
    pub(crate) quota: usize,
    /// Share of the block's masks that are still there.
    pub(crate) mask_ratio: f32,
}

impl Predicted<'_> {
    fn confidence(&self, i: usize) -> f32 {
        self.candidates[i].confidence
    }

    fn first(&self, n: usize) -> Vec<usize> {
        self.order[..n.min(self.order.len())].to_vec()
    }

    /// Those that `stays` names, and the best in any case.
    fn with_best(&self, stays: impl Fn(usize) -> bool) -> Vec<usize> {
        let ranked = self.order.iter().copied().enumerate();
        let kept = ranked.filter(|&(rank, i)| rank == 0 || stays(i));
        kept.map(|(_, i)| i).collect()
    }

    fn by_threshold(&self, threshold: f32) -> Vec<usize> {
        self.first(above_threshold(&self.confidences(), threshold))
    }

    fn confidences(&self) -> Vec<f32> {
        self.order.iter().map(|&i| self.confidence(i)).collect()
    }

    /// Which masks lie within `radius` of one whose confidence reaches `threshold`.
    fn near_anchors(&self, threshold: f32, radius: usize) -> Vec<bool> {
        let is_anchor = |&i: &usize| self.confidence(i) >= threshold;
        let anchors = (0..self.positions.len()).filter(is_anchor);
        let anchors: Vec<usize> = anchors.map(|i| self.positions[i]).collect();
        let near = |&at: &usize| anchors.iter().any(|&anchor| at.abs_diff(anchor) <= radius);
        self.positions.iter().map(near).collect()
    }

    /// The most confident mask of every run of neighbors; the first of equals.
    fn best_of_runs(&self) -> Vec<bool> {
        let mut is_best = vec![false; self.positions.len()];
        let mut best: Option<usize> = None;
        for (i, &at) in self.positions.iter().enumerate() {
            match best {
                Some(b) if self.positions[i - 1] + 1 == at => {
                    if self.confidence(i) > self.confidence(b) {
                        is_best[b] = false;
                        is_best[i] = true;
                        best = Some(i);
                    }
                }
                _ => {
                    is_best[i] = true;
                    best = Some(i);
                }
            }
        }
        is_best
    }
}

/// As [`committed`] of the block that ends at `block_end`, and what passes the bar of the process in
/// the blocks that are open behind it: that of an empty block, since each has its own share of masks.
pub(crate) fn committed_of_open(
    process: Process,
    step: &Predicted<'_>,
    block_end: usize,
) -> Vec<usize> {
    let is_own = |&i: &usize| step.positions[i] < block_end;
    let (own, others): (Vec<usize>, Vec<usize>) = step.order.iter().copied().partition(is_own);
    let bar = process.bar();
    let is_sure = |&i: &usize| bar.is_some_and(|bar| bar.is_passed(&step.candidates[i]));
    let mut kept = committed(
        process,
        &Predicted {
            order: &own,
            ..*step
        },
    );
    kept.extend(others.into_iter().filter(is_sure));
    kept
}

/// Indexes of the candidates that stay, in no order.
pub(crate) fn committed(process: Process, step: &Predicted<'_>) -> Vec<usize> {
    match process {
        Process::Quota | Process::BlockQuota => step.first(step.quota),
        Process::Reverse
        | Process::Timestep {
            alg: Alg::Origin, ..
        } => step.order.to_vec(),
        Process::Timestep { .. } => step.first(step.quota),
        Process::BlockDiffusion { threshold, .. } => {
            let confidences = step.candidates.iter().map(|candidate| candidate.confidence);
            filled(&confidences.collect::<Vec<_>>(), threshold, step.quota)
        }
        // They are no rule of a single step.
        Process::Editing { .. } | Process::Rewriting { .. } => Vec::new(),
        Process::Threshold(threshold) => step.by_threshold(threshold),
        Process::Factor(factor) => step.first(by_factor(&step.confidences(), factor)),
        Process::EntropyBound(gamma) => {
            let entropies = step.order.iter().map(|&i| step.candidates[i].entropy);
            step.first(by_entropy_bound(entropies, gamma))
        }
        Process::EntropyExit(bound) => {
            let quota = step.first(step.quota);
            let rest = step.order[quota.len()..].iter().copied();
            let sure = rest.filter(|&i| step.candidates[i].entropy < bound);
            quota.iter().copied().chain(sure).collect()
        }
        Process::LocalLeap {
            threshold,
            relaxed,
            radius,
        } => {
            let is_near = step.near_anchors(threshold, radius);
            let stays = |i: usize| {
                let bar = if is_near[i] { relaxed } else { threshold };
                // The anchor itself has reached the higher bar.
                step.confidence(i) >= bar.min(threshold)
            };
            step.with_best(stays)
        }
        Process::Hierarchical { high, low } => {
            let is_best = step.best_of_runs();
            step.with_best(|i| {
                let confidence = step.confidence(i);
                confidence >= high || (is_best[i] && confidence >= low)
            })
        }
        Process::FallingThreshold { threshold, fall } => {
            step.by_threshold(threshold * (1.0 - fall * (1.0 - step.mask_ratio)))
        }
    }
}

/// How many of the ranked tokens stay by the entropy bound: the most whose entropies, without the
/// largest of them, add up to no more than `gamma`; one in any case.
///
/// The sum bounds how far the product of the predictions is from the joint distribution of the
/// tokens: `KL(joint || product) <= sum H - max H`.
///
/// Source: arXiv 2505.24857.
fn by_entropy_bound(entropies: impl Iterator<Item = f32>, gamma: f32) -> usize {
    let (mut sum, mut max) = (0.0_f64, 0.0_f64);
    let fits = |entropy: &f32| {
        let entropy = f64::from(*entropy).max(0.0);
        sum += entropy;
        max = max.max(entropy);
        // Grows with each token, so the first that does not fit ends the prefix.
        sum - max <= f64::from(gamma)
    };
    entropies.take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests;
