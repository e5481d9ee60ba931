//! A predictor whose logits are a hash of what it sees.

use llada_diffusion::{
    Candidates, Choice, Error, MaskPredictor, PredictorInfo, Query, Result, TokenBatch,
    losses_by_logits,
};
use llada_tensor::{Philox, Stream};

/// Logits drawn from (seed, all tokens of the sequence, position, token), uniform in [-5, 5).
///
/// Any change of a visible token changes every logit of its sequence, so tests see whether a
/// sampler shows the predictor the right canvas. Other sequences of the batch have no influence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToyPredictor {
    info: PredictorInfo,
    seed: u64,
}

impl ToyPredictor {
    /// A predictor over ids `0..vocab_size`, the last of which is the mask and the one before it
    /// the end of a document.
    ///
    /// # Panics
    /// If `vocab_size` is below 3 or does not fit in 32 bits.
    #[must_use]
    pub fn new(vocab_size: usize, max_sequence_length: usize, seed: u64) -> Self {
        assert!(
            vocab_size >= 3,
            "a token, the end of a document and the mask"
        );
        let mask_token_id = u32::try_from(vocab_size - 1).expect("ids have 32 bits");
        let eos_token_id = mask_token_id - 1;
        let info = PredictorInfo::new(vocab_size, mask_token_id, eos_token_id, max_sequence_length);
        Self { info, seed }
    }

    /// The same logits from a predictor that says that it is autoregressive.
    #[must_use]
    pub fn autoregressive(self) -> Self {
        let info = self.info.autoregressive();
        Self { info, ..self }
    }

    fn logit(&self, context: u64, position: usize, token: usize) -> f32 {
        let [position, token] =
            [position, token].map(|x| u32::try_from(x).expect("indexes have 32 bits"));
        10.0 * Philox::new(context, Stream::Test).uniform_f32([position, token, 0]) - 5.0
    }

    /// Logits `[V]` of a position of a whole sequence.
    #[must_use]
    pub fn row(&self, sequence: &[u32], position: usize) -> Vec<f32> {
        let context = hash(self.seed, sequence);
        let ids = 0..self.info.vocab_size;
        ids.map(|token| self.logit(context, position, token))
            .collect()
    }

    /// Logits of positions of whole sequences, `[N, V]`.
    ///
    /// # Errors
    /// If a token id or a length is out of range.
    pub fn rows(&self, batch: &TokenBatch, positions: &[usize]) -> Result<Vec<f32>> {
        let info = &self.info;
        if let Some(at) = batch
            .ids()
            .iter()
            .position(|&id| id as usize >= info.vocab_size)
        {
            let (id, vocab_size) = (batch.ids()[at], info.vocab_size);
            return Err(Error::TokenOutOfRange {
                id,
                position: at,
                vocab_size,
            });
        }
        if let Some(sequence) = batch
            .sequences()
            .find(|s| s.len() > info.max_sequence_length)
        {
            let max_sequence_length = info.max_sequence_length;
            return Err(Error::TooLong {
                length: sequence.len(),
                max_sequence_length,
            });
        }
        let contexts: Vec<u64> = batch.sequences().map(|ids| hash(self.seed, ids)).collect();
        let mut logits = Vec::with_capacity(positions.len() * info.vocab_size);
        for &at in positions {
            let row = row_of(batch, at);
            let position = at - batch.offsets()[row];
            let of_token = |token| self.logit(contexts[row], position, token);
            logits.extend((0..info.vocab_size).map(of_token));
        }
        Ok(logits)
    }
}

impl MaskPredictor for ToyPredictor {
    fn info(&self) -> PredictorInfo {
        self.info
    }

    fn logits(&self, query: Query<'_>) -> Result<Vec<f32>> {
        query.by_logits(|batch, positions| self.rows(batch, positions))
    }

    fn candidates(&self, query: Query<'_>, choice: &Choice<'_>) -> Result<Candidates> {
        choice.by_logits(self, query)
    }

    fn token_losses(&self, query: Query<'_>, targets: &[u32]) -> Result<Vec<f32>> {
        losses_by_logits(self, query, targets)
    }
}

/// The sequence that holds a flat position.
pub(crate) fn row_of(batch: &TokenBatch, at: usize) -> usize {
    batch.offsets().partition_point(|&offset| offset <= at) - 1
}

/// FNV-1a over tokens.
fn hash(seed: u64, ids: &[u32]) -> u64 {
    ids.iter().fold(0xCBF2_9CE4_8422_2325 ^ seed, |hash, &id| {
        (hash ^ u64::from(id)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}
