//! What can go wrong in training.

use std::path::PathBuf;

/// Result of a training operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is not valid TOML, or has a key that does not exist.
    #[error("config: {path} cannot be read as a training configuration")]
    Config {
        /// The file.
        path: PathBuf,
        /// What the parser found.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value of the configuration is out of range.
    #[error("config: {key} must be {expected}, got {got}")]
    ConfigValue {
        /// The key, with its section.
        key: &'static str,
        /// What is allowed.
        expected: &'static str,
        /// What came.
        got: String,
    },
    /// The configuration of a resumed run differs in a key that must stay.
    #[error(
        "resume: {key} was {was} and is now {now}; restore it, or ask for changes to be allowed"
    )]
    ConfigChanged {
        /// The key, with its section.
        key: String,
        /// Value of the checkpoint.
        was: String,
        /// Value of the configuration.
        now: String,
    },
    /// The data of a resumed run differ from those of the checkpoint.
    #[error(
        "resume: {name} is not what the run began with; restore it, or ask for changes to be \
         allowed"
    )]
    DataChanged {
        /// The file as the configuration names it, or the tokenizer.
        name: String,
    },
    /// The ranks of a run were not started alike.
    #[error("rank {rank} has another configuration, other data or another tokenizer than rank 0")]
    RankDiffers {
        /// The first that differs.
        rank: usize,
    },
    /// A file or folder could not be read or written.
    #[error("{action} {path} failed")]
    Io {
        /// What was being done, such as `writing`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A line of a data file that cannot be used: it is not UTF-8, not the JSON object that is
    /// needed, or holds the mask token, which training could not tell from its own masks.
    #[error("data: {path} line {line} {what}")]
    BadLine {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
        /// What the parser found, if the line is no JSON or has fields of another kind.
        #[source]
        source: Option<serde_json::Error>,
    },
    /// A conversation that has nothing to learn, or a turn that nobody known speaks.
    #[error("data: {path} line {line}: {what}")]
    BadConversation {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// Every pair of a file is longer than a sequence may be.
    #[error(
        "data: all pairs of {path} are longer than data.sequence_length = {sequence_length}; raise \
         it as far as the model allows, or cut them (sft.too_long = \"cut\")"
    )]
    AllTooLong {
        /// The file.
        path: PathBuf,
        /// The limit.
        sequence_length: usize,
    },
    /// The configuration asks for a chat template, which the model lacks.
    #[error("config: sft.chat = \"always\", but the model has no chat template")]
    NoChatTemplate,
    /// The extension of a file tells no known format.
    #[error("data: {path} has an unknown format; expected {expected}")]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What is known.
        expected: &'static str,
    },
    /// A pre-tokenized file ends amid an id.
    #[error(
        "data: {path} has {bytes} bytes, no multiple of {width}; ids have 2 bytes with a vocabulary of at most 65536 entries, else 4"
    )]
    BrokenTokens {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// Bytes of an id.
        width: usize,
    },
    /// A pre-tokenized file holds an id that no text has.
    #[error(
        "data: {path}: id {id} at index {index} is the mask, or outside of the vocabulary of {vocab_size}; was the file made with this tokenizer?"
    )]
    BadToken {
        /// The file.
        path: PathBuf,
        /// Ids before it.
        index: usize,
        /// The id.
        id: u32,
        /// Entries of the vocabulary.
        vocab_size: usize,
    },
    /// A file has no documents.
    #[error("data: {path} has no documents")]
    NoDocuments {
        /// The file.
        path: PathBuf,
    },
    /// The tokenizer has no token for a special purpose.
    #[error("data: the tokenizer has no {what} token")]
    MissingSpecial {
        /// Which token.
        what: &'static str,
    },
    /// The model and the data do not fit.
    #[error("train: {what} of the data is {data}, the model has {model}")]
    DataTooLarge {
        /// Which property.
        what: &'static str,
        /// Value of the data.
        data: usize,
        /// Limit of the model.
        model: usize,
    },
    /// Another process trains in this run folder.
    #[error("run folder {path} is in use by another process")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds a model, but no training state.
    #[error("run folder {path} holds a model but no training state; it would be overwritten")]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// There are checkpoints, but none is whole.
    #[error("resume: no checkpoint in {path} is whole: {reason}")]
    NoWholeCheckpoint {
        /// The folder of the checkpoints.
        path: PathBuf,
        /// What is wrong with the newest.
        reason: String,
    },
    /// A checkpoint does not belong to this model.
    #[error("resume: {path} does not fit the model: parameter {parameter}")]
    ForeignCheckpoint {
        /// The file.
        path: PathBuf,
        /// The parameter that is missing, left over or of another shape.
        parameter: String,
    },
    /// A loss or a gradient norm that is no number.
    #[error(
        "step {step}: {what} is {value}; the last checkpoint is kept, lower train.learning_rate, raise train.warmup_steps, or let train.max_skipped_steps leave such steps out"
    )]
    NonFinite {
        /// The step that failed, from 1.
        step: u64,
        /// Which figure.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// A gradient is far larger than usual.
    #[error(
        "step {step}: the norm of the gradient is {norm}, more than {limit}, train.spike_factor times the usual; the last checkpoint is kept"
    )]
    Spike {
        /// The step that failed, from 1.
        step: u64,
        /// The norm.
        norm: f64,
        /// The largest that is taken.
        limit: f64,
    },
    /// The picture of the loss could not be drawn.
    #[error("plot: drawing the loss failed: {reason}")]
    Plot {
        /// What the drawing library said.
        reason: String,
    },
    /// The tokenizer failed.
    #[error("tokenizer")]
    Tokenizer(#[from] llada_text::Error),
    /// The tensor runtime failed.
    #[error("tensor runtime")]
    Tensor(#[from] llada_tensor::Error),
    /// The model or the diffusion mathematics failed.
    #[error("model")]
    Diffusion(#[from] llada_diffusion::Error),
}
