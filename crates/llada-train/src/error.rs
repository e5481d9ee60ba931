//! What can go wrong in training.

use std::path::{Path, PathBuf};

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
        "resume: {key} was {was} and is now {now}; restore it, or allow changes (--allow-changes)"
    )]
    ConfigChanged {
        /// The key, with its section.
        key: String,
        /// Value of the checkpoint.
        was: String,
        /// Value of the configuration.
        now: String,
    },
    /// A run of fine-tuning is resumed from another model.
    #[error(
        "resume: this run began with {was}, and what was given is {now} with other weights; give \
         the model that it began with, or allow changes (--allow-changes)"
    )]
    ModelChanged {
        /// The model that the run began with.
        was: String,
        /// The model that was given.
        now: String,
    },
    /// The data of a resumed run differ from those of the checkpoint.
    #[error(
        "resume: {name} is not what the run began with; restore it, or allow changes \
         (--allow-changes)"
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
    #[error("data: {path} has an unknown format; expected {expected}{hint}")]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What is known.
        expected: &'static str,
        /// How to make a file of a known format of it, if there is a usual way.
        hint: &'static str,
    },
    /// A JSON array where a line for each object is needed.
    #[error(
        "data: {path} is one JSON array; one object a line is needed: `jq -c '.[]' IN > OUT.jsonl`"
    )]
    JsonArray {
        /// The file.
        path: PathBuf,
    },
    /// A chat template refuses a conversation.
    #[error("data: {path} line {line}: the chat template refuses the conversation")]
    Unrendered {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What the template says.
        #[source]
        source: llada_text::Error,
    },
    /// Every answer of a file is marked as not to be learned.
    #[error("data: {path}: no answer is learned, all have \"weight\": 0 or \"train\": false")]
    NothingToLearn {
        /// The file.
        path: PathBuf,
    },
    /// A tokenizer that does not know the text.
    #[error(
        "data: {path}: {n_unknown} of {n_tokens} tokens are unknown to the tokenizer, more than \
         half; the model cannot learn this text, take one whose tokenizer knows it"
    )]
    MostlyUnknown {
        /// The file.
        path: PathBuf,
        /// Unknown tokens.
        n_unknown: usize,
        /// All tokens, EOS counted.
        n_tokens: usize,
    },
    /// A tokenizer is to be made of a file that has no text.
    #[error(
        "data: {path} has ids, of which data.tokenizer = \"char\" can make no tokenizer; name the \
         tokenizer.json that made the ids"
    )]
    NoText {
        /// The file.
        path: PathBuf,
    },
    /// The header of a pre-tokenized file, or the index beside it, is wrong or not supported.
    #[error("data: {path} {what}")]
    TokenHeader {
        /// The file.
        path: PathBuf,
        /// What it says.
        what: String,
    },
    /// The ids of a pre-tokenized file have another width than expected.
    #[error(
        "data: {path}: with a vocabulary of {vocab_size} ids of {width} bytes are expected, but \
         these look like ids of {found} bytes; say so with data.token_dtype = \"{dtype}\""
    )]
    TokenWidth {
        /// The file.
        path: PathBuf,
        /// Bytes of an id as expected.
        width: usize,
        /// Bytes of an id as it seems.
        found: usize,
        /// Name of that type.
        dtype: &'static str,
        /// Entries of the vocabulary.
        vocab_size: usize,
    },
    /// The documents of a pre-tokenized file have no end.
    #[error(
        "data: {path}: a document does not end with the end-of-text token of the tokenizer; make \
         the file with it (Megatron-LM: preprocess_data.py --append-eod)"
    )]
    NoEos {
        /// The file.
        path: PathBuf,
    },
    /// A pre-tokenized file ends amid an id.
    #[error(
        "data: {path} has {bytes} bytes, no multiple of {width}; ids have 2 bytes with a vocabulary of at most 65536 entries, else 4, unless data.token_dtype says otherwise"
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
    #[error(
        "data: the tokenizer has no {what} token; add one of {names} to its special tokens, or give \
         the id of another as {key} in [model]"
    )]
    MissingSpecial {
        /// Which token.
        what: &'static str,
        /// The key that names it.
        key: &'static str,
        /// Its usual names.
        names: String,
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

impl Error {
    /// An error about the extension of a data file.
    pub(crate) fn unknown_format(path: &Path, expected: &'static str) -> Self {
        let hint = match path.extension().and_then(|end| end.to_str()) {
            Some("json") => "; of a JSON array: `jq -c '.[]' IN.json > OUT.jsonl`",
            Some("parquet") => {
                "; in Python: datasets.Dataset.from_parquet(\"IN.parquet\").to_json(\"OUT.jsonl\")"
            }
            Some("arrow") => {
                "; in Python: datasets.Dataset.from_file(\"IN.arrow\").to_json(\"OUT.jsonl\")"
            }
            Some("csv") => {
                "; in Python: datasets.Dataset.from_csv(\"IN.csv\").to_json(\"OUT.jsonl\")"
            }
            Some("gz" | "zst" | "xz" | "bz2") => "; unpack it first",
            Some("idx") => "; of Megatron-LM name the .bin, the .idx is found beside it",
            _ => "",
        };
        let path = path.to_owned();
        Self::UnknownFormat {
            path,
            expected,
            hint,
        }
    }
}
