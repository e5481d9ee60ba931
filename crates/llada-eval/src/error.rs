//! What can go wrong.

/// Result of an evaluation.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of evaluations.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model failed.
    #[error("mask predictor")]
    Predictor(#[from] llada_diffusion::Error),
    /// The sampler refused or failed.
    #[error("sampler")]
    Sampler(#[from] llada_sample::Error),
    /// A text cannot be encoded.
    #[error("tokenizer")]
    Text(#[from] llada_text::Error),
    /// A line of a data file is not what the task needs.
    #[error("line {line}: {expected}")]
    BadLine {
        /// The line, from 1.
        line: usize,
        /// What it should be.
        expected: &'static str,
    },
    /// A line is not the JSON object that the task needs.
    #[error("line {line}")]
    BadJson {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A text of a data file cannot be encoded.
    #[error("line {line}")]
    BadText {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        source: llada_text::Error,
    },
    /// A text is longer than the model's context.
    #[error("line {line}: {length} tokens exceed the context of {max_sequence_length}")]
    TooLong {
        /// The line, from 1.
        line: usize,
        /// Tokens that it needs.
        length: usize,
        /// What the model allows.
        max_sequence_length: usize,
    },
    /// A data file holds nothing.
    #[error("no {what} in the data")]
    Empty {
        /// What was looked for.
        what: &'static str,
    },
    /// The drawing library failed.
    #[error("drawing: {reason}")]
    Plot {
        /// What it says.
        reason: String,
    },
}
