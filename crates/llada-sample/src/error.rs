//! What can go wrong.

/// Result of sampling.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of the sampler. `request` is the number of the request in its session, for
/// [`crate::sample`] its index; 0 before it is submitted.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The mask predictor failed.
    #[error("mask predictor")]
    Predictor(#[from] llada_diffusion::Error),
    /// A setting is outside its range.
    #[error("request {request}: {what} must be {expected}, got {got}")]
    OutOfRange {
        /// Which request.
        request: usize,
        /// Which setting.
        what: &'static str,
        /// The allowed range.
        expected: &'static str,
        /// What came.
        got: f64,
    },
    /// There are fewer steps than blocks that need one.
    #[error("request {request}: {steps} steps are too few for {blocks} blocks")]
    TooFewSteps {
        /// Which request.
        request: usize,
        /// `steps`, all blocks together.
        steps: usize,
        /// Blocks with masks.
        blocks: usize,
    },
    /// Prompt and answer do not fit into the context.
    #[error(
        "request {request}: {length} tokens (prompt and answer) exceed the context of \
         {max_sequence_length}"
    )]
    TooLong {
        /// Which request.
        request: usize,
        /// Tokens of the whole canvas.
        length: usize,
        /// What the predictor allows.
        max_sequence_length: usize,
    },
    /// A token id is outside the vocabulary.
    #[error(
        "request {request}: token id {id} at position {position} is outside the vocabulary of \
         {vocab_size}"
    )]
    TokenOutOfRange {
        /// Which request.
        request: usize,
        /// The id.
        id: u32,
        /// Its place in the canvas.
        position: usize,
        /// Number of ids that exist.
        vocab_size: usize,
    },
    /// A token that a setting names can't be predicted.
    #[error("request {request}: token id {id} cannot be predicted: there are {vocab_size}")]
    TokenNotPredicted {
        /// Which request.
        request: usize,
        /// The id.
        id: u32,
        /// Number of ids that exist.
        vocab_size: usize,
    },
    /// Nothing to fill in.
    #[error("request {request}: the text to fill in has no mask")]
    NoMask {
        /// Which request.
        request: usize,
    },
    /// A set of tokens can't be chosen from.
    #[error("request {request}: tokens are allowed at position {position}, but {what}")]
    Allowed {
        /// Which request.
        request: usize,
        /// Its place in the canvas.
        position: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A confidence is not a number, so positions can't be ranked.
    #[error("request {request}: confidence at position {position} in step {step} is not a number")]
    NotANumber {
        /// Which request.
        request: usize,
        /// Its place in the canvas.
        position: usize,
        /// The step, from 0.
        step: usize,
    },
    /// Recorded draws do not cover the run.
    #[error("request {request}: recorded {what}: expected {expected} numbers, got {got}")]
    RecordedDraws {
        /// Which request.
        request: usize,
        /// Which draws.
        what: &'static str,
        /// Length that was needed.
        expected: usize,
        /// Length that came.
        got: usize,
    },
    /// No such remasking strategy.
    #[error(
        "unknown remasking {name:?}: expected low_confidence, random, margin, entropy or \
         running_confidence"
    )]
    UnknownRemasking {
        /// What came.
        name: String,
    },
    /// No such preset.
    #[error("unknown preset {name:?}: expected fast, balanced or exact")]
    UnknownPreset {
        /// What came.
        name: String,
    },
    /// No such cache mode.
    #[error("unknown cache {name:?}: expected none, prefix, dual or activity")]
    UnknownCache {
        /// What came.
        name: String,
    },
    /// Caches hold the keys and values of one canvas, and guidance needs two.
    #[error(
        "request {request}: a cache or a suffix window cannot be used with cfg_scale: leave one out"
    )]
    GuidedCache {
        /// Which request.
        request: usize,
    },
    /// A setting says how a cache is computed anew, and there is none.
    #[error("request {request}: {what} needs a cache: prefix, dual or activity")]
    NeedsCache {
        /// Which request.
        request: usize,
        /// Which setting.
        what: &'static str,
    },
    /// No such rule of Dream.
    #[error("unknown alg {name:?}: expected origin, maskgit_plus, topk_margin or entropy")]
    UnknownAlg {
        /// What came.
        name: String,
    },
    /// Steps that see nothing after their block need blocks.
    #[error("request {request}: block_length is needed where a step sees nothing after its block")]
    NeedsBlockLength {
        /// Which request.
        request: usize,
    },
    /// A process counts its blocks from the first token, and sees nothing after them.
    #[error(
        "request {request}: {process} needs blocks that are counted from the first token, after \
         which a step sees nothing"
    )]
    NeedsAlignedBlocks {
        /// Which request.
        request: usize,
        /// The process.
        process: &'static str,
    },
    /// The predictor was made for other blocks.
    #[error("request {request}: block_length must be {expected}, as the model's blocks, got {got}")]
    BlockLength {
        /// Which request.
        request: usize,
        /// Block size of the predictor.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// A setting that a process does not go with.
    #[error("request {request}: {what} cannot be used with {process}")]
    NotForProcess {
        /// Which request.
        request: usize,
        /// The setting.
        what: &'static str,
        /// The process.
        process: &'static str,
    },
    /// A setting of another kind of model.
    #[error("{what} cannot be used with the protocol {protocol}")]
    NotForProtocol {
        /// The setting.
        what: &'static str,
        /// Name of the model's protocol.
        protocol: &'static str,
    },
    /// An autoregressive model has no masks to fill: only a prompt can be continued.
    #[error(
        "request {request}: {what} cannot be used with an autoregressive model, which continues a \
         prompt token by token"
    )]
    NotAutoregressive {
        /// Which request.
        request: usize,
        /// What it asks for.
        what: &'static str,
    },
}

impl Error {
    /// The setting that is to blame, by the name of its field; `None` where no setting is, but the
    /// model, the device or recorded draws. A new error has to say which it is.
    #[must_use]
    pub fn setting(&self) -> Option<&'static str> {
        match self {
            Self::OutOfRange { what, .. }
            | Self::NeedsCache { what, .. }
            | Self::NotForProtocol { what, .. }
            | Self::NotForProcess { what, .. }
            | Self::NotAutoregressive { what, .. } => Some(what),
            Self::BlockLength { .. }
            | Self::NeedsBlockLength { .. }
            | Self::NeedsAlignedBlocks { .. } => Some("block_length"),
            Self::TooFewSteps { .. } => Some("steps"),
            Self::TooLong { .. } => Some("gen_length"),
            Self::TokenOutOfRange { .. } | Self::NoMask { .. } => Some("the prompt"),
            Self::Allowed { .. } => Some("allowed"),
            Self::UnknownAlg { .. } => Some("alg"),
            Self::UnknownRemasking { .. } => Some("remasking"),
            Self::UnknownPreset { .. } => Some("preset"),
            Self::UnknownCache { .. } | Self::GuidedCache { .. } => Some("cache"),
            // Token ids of the model's own configuration.
            Self::TokenNotPredicted { .. }
            | Self::Predictor(_)
            | Self::NotANumber { .. }
            | Self::RecordedDraws { .. } => None,
        }
    }
}
