//! The predictor of a known distribution.

use llada_diffusion::{
    Candidates, Choice, MaskPredictor, PredictorInfo, Query, Result, TokenBatch, losses_by_logits,
};

use crate::toy::row_of;

/// The exact conditionals of a joint distribution over short sequences.
///
/// With this predictor the bound of eq. 6 is the log-likelihood itself, and revealing one token at
/// a time in any order draws from the joint distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct JointPredictor {
    /// Tokens `0..n_tokens`; the mask is `n_tokens` and is never predicted.
    n_tokens: usize,
    seq_len: usize,
    probabilities: Vec<f64>,
}

impl JointPredictor {
    /// A predictor of sequences of `seq_len` tokens in `0..n_tokens`, which come with the given
    /// probabilities `[n_tokens ^ seq_len]`, the last token varying fastest.
    ///
    /// # Panics
    /// If there are not as many probabilities, or they do not add up to one.
    #[must_use]
    pub fn new(n_tokens: usize, seq_len: usize, probabilities: Vec<f64>) -> Self {
        assert_eq!(
            probabilities.len(),
            n_tokens.pow(seq_len as u32),
            "one for each sequence"
        );
        let sum: f64 = probabilities.iter().sum();
        assert!((sum - 1.0).abs() < 1e-9, "probabilities add up to {sum}");
        Self {
            n_tokens,
            seq_len,
            probabilities,
        }
    }

    /// Index of a sequence in the table of probabilities.
    #[must_use]
    pub fn index(&self, tokens: &[u32]) -> usize {
        tokens
            .iter()
            .fold(0, |index, &token| index * self.n_tokens + token as usize)
    }

    /// Probability of a sequence.
    #[must_use]
    pub fn probability(&self, tokens: &[u32]) -> f64 {
        self.probabilities[self.index(tokens)]
    }

    /// The sequence of an index.
    fn tokens(&self, index: usize) -> impl Iterator<Item = usize> {
        let digit = move |place| index / self.n_tokens.pow(place) % self.n_tokens;
        (0..self.seq_len as u32).rev().map(digit)
    }

    /// `p(x^i = v | visible tokens)` up to a factor, for each `v`.
    fn conditional(&self, canvas: &[u32], position: usize) -> Vec<f64> {
        let mut marginal = vec![0.0; self.n_tokens];
        for (index, p) in self.probabilities.iter().enumerate() {
            let tokens: Vec<usize> = self.tokens(index).collect();
            let fits = |(&token, &seen): (&usize, &u32)| {
                seen as usize == self.n_tokens || seen as usize == token
            };
            if tokens.iter().zip(canvas).all(fits) {
                marginal[tokens[position]] += p;
            }
        }
        marginal
    }
    /// Logarithms of the conditionals at positions, `[N, V]`.
    #[must_use]
    pub fn rows(&self, batch: &TokenBatch, positions: &[usize]) -> Vec<f32> {
        let mut logits = Vec::with_capacity(positions.len() * (self.n_tokens + 1));
        for &at in positions {
            let row = row_of(batch, at);
            let marginal = self.conditional(batch.sequence(row), at - batch.offsets()[row]);
            logits.extend(marginal.iter().map(|p| p.ln() as f32));
            logits.push(f32::NEG_INFINITY);
        }
        logits
    }
}

impl MaskPredictor for JointPredictor {
    fn info(&self) -> PredictorInfo {
        PredictorInfo::new(self.n_tokens + 1, self.n_tokens as u32, 0, self.seq_len)
    }

    fn logits(&self, query: Query<'_>) -> Result<Vec<f32>> {
        query.by_logits(|batch, positions| Ok(self.rows(batch, positions)))
    }

    fn candidates(&self, query: Query<'_>, choice: &Choice<'_>) -> Result<Candidates> {
        choice.by_logits(self, query)
    }

    fn token_losses(&self, query: Query<'_>, targets: &[u32]) -> Result<Vec<f32>> {
        losses_by_logits(self, query, targets)
    }
}
