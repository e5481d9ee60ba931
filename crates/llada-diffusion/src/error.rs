//! What can go wrong.

/// Result of a diffusion operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of the diffusion mathematics and of mask predictors.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tensor runtime failed.
    #[error("tensor runtime")]
    Tensor(#[from] llada_tensor::Error),
    /// A token id is outside the vocabulary.
    #[error("token id {id} at position {position} is outside the vocabulary of {vocab_size}")]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Index into the flattened batch.
        position: usize,
        /// Number of ids that exist.
        vocab_size: usize,
    },
    /// A sequence is longer than the model allows.
    #[error("sequence of {length} tokens exceeds the context of {max_sequence_length}")]
    TooLong {
        /// Tokens in the sequence.
        length: usize,
        /// What the model allows.
        max_sequence_length: usize,
    },
    /// A batch without tokens.
    #[error("sequence {row} of the batch is empty")]
    EmptySequence {
        /// Index of the sequence.
        row: usize,
    },
    /// Lengths of two arguments differ.
    #[error("{what}: expected {expected}, got {got}")]
    LengthMismatch {
        /// Which argument.
        what: &'static str,
        /// Length that was needed.
        expected: usize,
        /// Length that came.
        got: usize,
    },
    /// The predictor cannot do what was asked.
    #[error("this predictor has no {what}")]
    Unsupported {
        /// What it lacks.
        what: &'static str,
    },
    /// An autoregressive model was asked for what only a masked diffusion model can do.
    #[error("{what} cannot be used with an autoregressive model")]
    NotAutoregressive {
        /// The setting.
        what: &'static str,
    },
    /// No such estimator of likelihoods.
    #[error("unknown estimator {name:?}: expected l, t, chain or confidence")]
    UnknownEstimator {
        /// What came.
        name: String,
    },
    /// A result of the model is no number.
    #[error(
        "{what} is not a number: the weights are damaged, or too large for the precision (try f32)"
    )]
    NotANumber {
        /// Which result.
        what: &'static str,
    },
    /// An argument is outside its range.
    #[error("{what} must be {expected}, got {got}")]
    OutOfRange {
        /// Which argument.
        what: &'static str,
        /// The allowed range.
        expected: &'static str,
        /// What came.
        got: f64,
    },
}

impl Error {
    /// The argument that is to blame, by its name; `None` where none is, but the model, its weights
    /// or the device. A new error has to say which it is.
    #[must_use]
    pub fn argument(&self) -> Option<&'static str> {
        match self {
            Self::OutOfRange { what, .. } | Self::NotAutoregressive { what } => Some(what),
            Self::TooLong { .. } | Self::TokenOutOfRange { .. } | Self::EmptySequence { .. } => {
                Some("the prompt")
            }
            Self::UnknownEstimator { .. } => Some("estimator"),
            Self::Tensor(_)
            | Self::LengthMismatch { .. }
            | Self::Unsupported { .. }
            | Self::NotANumber { .. } => None,
        }
    }
}
