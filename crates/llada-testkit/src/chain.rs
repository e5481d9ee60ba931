//! The predictor of a Markov chain.

use llada_diffusion::{
    Candidates, Choice, MaskPredictor, PredictorInfo, Query, Result, losses_by_logits,
};

/// An autoregressive predictor whose next token depends on the last one alone, by a table.
#[derive(Debug, Clone, PartialEq)]
pub struct ChainPredictor {
    /// `[V, V]`
    logits: Vec<f32>,
    vocab_size: usize,
}

impl ChainPredictor {
    /// A predictor with the logits `[V, V]` of the token after each token. The last token is the
    /// mask, the one before it the end of a document.
    ///
    /// # Panics
    /// If the table is not square, or has fewer than 3 rows.
    #[must_use]
    pub fn new(logits: Vec<f32>) -> Self {
        let vocab_size = logits.len().isqrt();
        assert!(vocab_size >= 3 && vocab_size * vocab_size == logits.len());
        Self { logits, vocab_size }
    }

    /// Logits of the token after `token`, `[V]`.
    #[must_use]
    pub fn after(&self, token: u32) -> &[f32] {
        &self.logits[token as usize * self.vocab_size..][..self.vocab_size]
    }
}

impl MaskPredictor for ChainPredictor {
    fn info(&self) -> PredictorInfo {
        let n = self.vocab_size;
        PredictorInfo::new(n, n as u32 - 1, n as u32 - 2, 64).autoregressive()
    }

    fn logits(&self, query: Query<'_>) -> Result<Vec<f32>> {
        query.by_logits(|batch, positions| {
            let rows = positions.iter().map(|&at| self.after(batch.ids()[at]));
            Ok(rows.flatten().copied().collect())
        })
    }

    fn candidates(&self, query: Query<'_>, choice: &Choice<'_>) -> Result<Candidates> {
        choice.by_logits(self, query)
    }

    fn token_losses(&self, query: Query<'_>, targets: &[u32]) -> Result<Vec<f32>> {
        losses_by_logits(self, query, targets)
    }
}
