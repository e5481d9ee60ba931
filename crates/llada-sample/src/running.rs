//! Confidence over steps: what is predicted again and again comes first.

use llada_diffusion::Candidate;

/// The share of the mean that a step before keeps.
const DECAY: f32 = 0.5;

/// Of each place of a canvas the token that was predicted last, and the running mean of its
/// confidence.
#[derive(Debug, Clone, Default)]
pub(crate) struct Running {
    /// `[L]`, by place.
    places: Vec<Option<(u32, f32)>>,
}

impl Running {
    /// The running mean of the confidence of a candidate at a place, which counts it: `m = (m + c) /
    /// 2`, where the mean before is that of the same token, and 0 of another one. So a token that was
    /// predicted before comes before another one of equal confidence, the more so the longer.
    ///
    /// Running-confidence remasking keeps the running confidence of places too, of whatever token
    /// (MDPO, arXiv 2508.13148), and masks tokens again by it, which is not done here.
    pub(crate) fn count(&mut self, at: usize, candidate: &Candidate) -> f32 {
        if self.places.len() <= at {
            self.places.resize(at + 1, None);
        }
        let before = match self.places[at] {
            Some((token, mean)) if token == candidate.token => mean,
            _ => 0.0,
        };
        let mean = DECAY * before + (1.0 - DECAY) * candidate.confidence;
        self.places[at] = Some((candidate.token, mean));
        mean
    }
}

#[cfg(test)]
mod tests;
