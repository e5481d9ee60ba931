//! The predictor of a Markov chain.

use llada_diffusion::{MaskPredictor, PredictorInfo, Result, TokenBatch, cross_entropies};

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
        PredictorInfo {
            vocab_size: self.vocab_size,
            mask_token_id: self.vocab_size as u32 - 1,
            eos_token_id: self.vocab_size as u32 - 2,
            max_sequence_length: 64,
        }
    }

    fn logits(&self, batch: &TokenBatch, positions: &[usize]) -> Result<Vec<f32>> {
        let rows = positions.iter().map(|&at| self.after(batch.ids()[at]));
        Ok(rows.flatten().copied().collect())
    }

    fn token_losses(
        &self,
        batch: &TokenBatch,
        positions: &[usize],
        targets: &[u32],
    ) -> Result<Vec<f32>> {
        Ok(cross_entropies(&self.logits(batch, positions)?, targets))
    }
}
