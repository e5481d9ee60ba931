//! Ragged batches of token sequences.

use crate::{Error, Result};

/// Sequences of any lengths, one after the other, without padding.
///
/// Positions in the methods of [`crate::MaskPredictor`] are indexes into [`Self::ids`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenBatch {
    ids: Vec<u32>,
    offsets: Vec<usize>,
}

impl TokenBatch {
    /// Joins sequences.
    ///
    /// # Errors
    /// [`Error::EmptySequence`] if one of them has no tokens.
    pub fn new<S: AsRef<[u32]>>(sequences: &[S]) -> Result<Self> {
        let mut batch = Self {
            ids: Vec::new(),
            offsets: vec![0],
        };
        for (row, sequence) in sequences.iter().enumerate() {
            if sequence.as_ref().is_empty() {
                return Err(Error::EmptySequence { row });
            }
            batch.ids.extend_from_slice(sequence.as_ref());
            batch.offsets.push(batch.ids.len());
        }
        Ok(batch)
    }

    /// All tokens, `[T]`.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// All tokens, to be changed in place.
    #[must_use]
    pub fn ids_mut(&mut self) -> &mut [u32] {
        &mut self.ids
    }

    /// `[B + 1]` boundaries: sequence `b` is `ids[offsets[b]..offsets[b + 1]]`.
    #[must_use]
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// Number of sequences `B`.
    #[must_use]
    pub fn n_sequences(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Number of tokens `T` in all sequences.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.ids.len()
    }

    /// One sequence.
    #[must_use]
    pub fn sequence(&self, row: usize) -> &[u32] {
        &self.ids[self.offsets[row]..self.offsets[row + 1]]
    }

    /// The sequences in order.
    pub fn sequences(&self) -> impl Iterator<Item = &[u32]> {
        self.offsets
            .windows(2)
            .map(|ends| &self.ids[ends[0]..ends[1]])
    }
}
