//! The boost of the token that brings the end of an answer's reasoning nearer.

use crate::EndThink;

impl EndThink {
    /// The token whose logit grows at place `at` of an answer, and by how much; `None` where the
    /// answer has the whole sequence.
    ///
    /// Source: `generate` of iLLaDA's evaluations.
    pub(crate) fn boost(&self, answer: &[u32], at: usize, gen_length: usize) -> Option<(u32, f32)> {
        let ids = &self.token_ids;
        if answer.windows(ids.len()).any(|window| window == ids) {
            return None;
        }
        let ends_with = |n: &usize| answer[..at].ends_with(&ids[..*n]);
        let n_written = (1..ids.len()).rev().find(ends_with).unwrap_or(0);
        let share = ((at + 1) as f64 / gen_length as f64).min(1.0);
        let boost = f64::from(self.logit_boost) * share.powf(f64::from(self.power));
        Some((ids[n_written], boost as f32))
    }
}

#[cfg(test)]
mod tests;
