//! What can go wrong.

use std::path::{Path, PathBuf};

use llada_files::looks_like;

/// Result of a model operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of configurations, checkpoints and models.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried, such as `reading`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// There is nothing at a path.
    #[error("{} does not exist; expected a folder with config.json and model.safetensors, or a GGUF file", path.display())]
    NoSuchPath {
        /// What was given.
        path: PathBuf,
    },
    /// A folder holds no model.
    #[error("{} holds no {missing}; expected config.json and model.safetensors (or model.safetensors.index.json){hint}", path.display())]
    NotACheckpoint {
        /// The folder.
        path: PathBuf,
        /// The file that is not there.
        missing: &'static str,
        /// What is there in its place, after a semicolon, or nothing.
        hint: String,
    },
    /// A file is something else than weights that can be read.
    #[error("{} is {what}, not {expected}: {advice}", path.display())]
    OtherFile {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A JSON file is malformed.
    #[error("{} is not valid", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// A configuration cannot be used.
    #[error("{}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The field.
        #[source]
        source: Box<Error>,
    },
    /// A configuration field has a value that this implementation does not support.
    #[error("config field {field}: {value} is not supported, expected {expected}")]
    UnsupportedField {
        /// The field of config.json.
        field: &'static str,
        /// The value that came.
        value: String,
        /// What is supported.
        expected: String,
    },
    /// A diffusion model that is known and does not run here.
    #[error(
        "the model is {what} ({architecture}), which does not run here: {reason}; docs/models.md says which models do"
    )]
    OtherFamily {
        /// The name in config.json.
        architecture: String,
        /// What the model is.
        what: &'static str,
        /// Why it does not run.
        reason: &'static str,
    },
    /// Nothing says which token is the mask.
    #[error("{}: neither config.json (mask_token_id) nor the tokenizer (mask_token, or an added token such as <[MASK]>) says which token is the mask; give it: --mask-token-id N on the command line, OpenOptions::mask_token_id in a program", path.display())]
    NoMaskToken {
        /// The folder or the file.
        path: PathBuf,
    },
    /// Files contradict each other about the mask.
    #[error("{}: {first} and {second} say different masks; correct one of them, or give the right one: --mask-token-id N on the command line, OpenOptions::mask_token_id in a program", path.display())]
    MaskTokens {
        /// The folder.
        path: PathBuf,
        /// One place and its id.
        first: String,
        /// Another one.
        second: String,
    },
    /// The codes of a quantised matrix are not what a quantiser writes.
    #[error("{}: the codes of {name} are damaged: a scale is not finite or a multiplier above 15; convert the model again", path.display())]
    BadCodes {
        /// The tensor.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// A model is not converted into a folder or file that holds one.
    #[error("{} holds a model already: choose another target or remove it", path.display())]
    Exists {
        /// The folder or file.
        path: PathBuf,
    },
    /// A safetensors file is truncated or malformed.
    #[error("{} is not a valid safetensors file (truncated or damaged?)", path.display())]
    SafeTensors {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// A GGUF file is damaged, or needs what is not supported.
    #[error("{place} of {}: {got}, expected {expected}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// The part of it, such as `key llada.block_count`.
        place: String,
        /// What was found.
        got: String,
        /// What is supported.
        expected: String,
    },
    /// An index names something else than a file beside it.
    #[error("{}: the shard {shard:?} is no safetensors file of this folder", path.display())]
    BadShard {
        /// The index.
        path: PathBuf,
        /// What it names.
        shard: String,
    },
    /// An adapter does not fit, or needs what is not supported.
    #[error("{place} of {}: {got}, expected {expected}", path.display())]
    Adapter {
        /// The file.
        path: PathBuf,
        /// The field or the tensor.
        place: String,
        /// What was found.
        got: String,
        /// What is supported.
        expected: String,
    },
    /// A folder is no adapter.
    #[error("{} holds no adapter_config.json; expected the folder of an adapter, with adapter_config.json and adapter_model.safetensors", path.display())]
    NotAnAdapter {
        /// The folder.
        path: PathBuf,
    },
    /// A folder is an adapter, and the model that it belongs to is not there.
    #[error("{} is an adapter, and its base_model_name_or_path, {}, is no folder here: give the base as the model, and this folder as its adapter (--adapter)", path.display(), base.as_deref().unwrap_or("null"))]
    AdapterAlone {
        /// The folder.
        path: PathBuf,
        /// What it says of its base.
        base: Option<String>,
        /// The base's version on the Hub.
        revision: Option<String>,
    },
    /// A tensor is in two files.
    #[error("tensor {name} is in {} and in {}", first.display(), second.display())]
    TensorTwice {
        /// Name in the checkpoint.
        name: String,
        /// The one file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A tensor that the configuration needs is not there.
    #[error("tensor {name} is missing from {}{hint}", path.display())]
    MissingTensor {
        /// Name in the checkpoint.
        name: String,
        /// Where it was looked for.
        path: PathBuf,
        /// Similar names that are there, after a semicolon, or nothing.
        hint: String,
    },
    /// The embedding and the head are one tensor by the configuration, and two by the file.
    #[error("config.json says weight_tying, and {first} and {second} of {} differ; set weight_tying to false, or leave out the one that is wrong", path.display())]
    TiedTensors {
        /// The embedding.
        first: String,
        /// The head.
        second: String,
        /// The file of the head.
        path: PathBuf,
    },
    /// A tensor that the configuration does not know.
    #[error("tensor {name} of {} does not belong to the model that config.json describes", path.display())]
    UnexpectedTensor {
        /// Name in the checkpoint.
        name: String,
        /// Where it was found.
        path: PathBuf,
    },
    /// A tensor has another shape than the configuration says.
    #[error("tensor {name} of {} has shape {got:?}, config.json needs {expected:?}", path.display())]
    WrongShape {
        /// Name in the checkpoint.
        name: String,
        /// Where it was found.
        path: PathBuf,
        /// Shape by the configuration.
        expected: Vec<usize>,
        /// Shape in the file.
        got: Vec<usize>,
    },
    /// A tensor has an element type that cannot be read.
    #[error("tensor {name} of {} has dtype {dtype}, expected F32, F16 or BF16", path.display())]
    WrongDtype {
        /// Name in the checkpoint.
        name: String,
        /// Where it was found.
        path: PathBuf,
        /// Type in the file.
        dtype: String,
    },
    /// A tensor holds NaN or infinity.
    #[error("tensor {name} of {} holds a value that is not finite", path.display())]
    NotFinite {
        /// Name in the checkpoint.
        name: String,
        /// Where it was found.
        path: PathBuf,
    },
    /// There are no blocks to be multiplied.
    #[error("products of blocks: {what}; take f32, bf16, int8 or int4")]
    NoBlocks {
        /// Why.
        what: &'static str,
    },
    /// The tensor runtime failed.
    #[error("tensor runtime")]
    Tensor(#[from] llada_tensor::Error),
}

impl Error {
    /// Makes the error of an action, such as `reading`, out of its cause.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl Fn(std::io::Error) -> Self {
        move |source| {
            let path = path.to_owned();
            Self::Io {
                action,
                path,
                source,
            }
        }
    }

    /// This error of a reader, or the one that says what the file is in place of `expected`, see
    /// [`looks_like::other_than`].
    pub(crate) fn or_other(self, expected: &'static str, path: &Path, bytes: &[u8]) -> Self {
        match looks_like::other_than(expected, path, bytes) {
            Some((what, advice)) => Self::OtherFile {
                path: path.to_owned(),
                what,
                expected,
                advice,
            },
            None => self,
        }
    }

    /// Makes the error of a JSON file out of its cause.
    pub(crate) fn json(path: &Path) -> impl Fn(serde_json::Error) -> Self {
        move |source| {
            let path = path.to_owned();
            Self::Json { path, source }
        }
    }

    /// Makes the error of a safetensors file out of its cause.
    pub(crate) fn safetensors(path: &Path) -> impl Fn(safetensors::SafeTensorError) -> Self {
        move |source| {
            let path = path.to_owned();
            Self::SafeTensors { path, source }
        }
    }

    pub(crate) fn unsupported(
        field: &'static str,
        value: impl std::fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        let (value, expected) = (value.to_string(), expected.into());
        Self::UnsupportedField {
            field,
            value,
            expected,
        }
    }
}
