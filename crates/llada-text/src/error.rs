//! What can go wrong with a tokenizer.

use std::path::{Path, PathBuf};

use llada_files::looks_like;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong with a tokenizer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A checkpoint folder has no tokenizer.
    #[error(
        "tokenizer: {path} not found; a checkpoint folder holds config.json, *.safetensors and \
         tokenizer.json",
        path = path.display()
    )]
    Missing {
        /// The file that was looked for.
        path: PathBuf,
    },
    /// A file could not be read.
    #[error("tokenizer: reading {path} failed", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("tokenizer: writing {path} failed", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A file is something else than what its name says, such as a pointer of Git LFS.
    #[error("tokenizer: {path} is {what}: {advice}", path = path.display())]
    OtherFile {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A file is not a tokenizer in the Hugging Face `tokenizer.json` format.
    #[error(
        "tokenizer: {path} is not a valid tokenizer.json; copy it again from where the model came",
        path = path.display()
    )]
    Parse {
        /// The file, `tokenizer.json` where it came from memory.
        path: PathBuf,
        /// What the parser found (the `tokenizers` crate has no error type of its own).
        #[source]
        source: tokenizers::Error,
    },
    /// The vocabulary of a GGUF file does not fit together, or is of a kind that is not supported.
    #[error("key tokenizer.ggml.{key} of {path}: {got}, expected {expected}", path = path.display())]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// The end of the key.
        key: &'static str,
        /// What was found.
        got: String,
        /// What is supported.
        expected: &'static str,
    },
    /// A file says another id of a token than it gets.
    #[error(
        "tokenizer: the files beside {path} give {token:?} the id {expected}, and it would get \
         {got}; add the tokens to tokenizer.json itself, in the order of their ids",
        path = path.display()
    )]
    TokenId {
        /// The `tokenizer.json`.
        path: PathBuf,
        /// The token.
        token: String,
        /// The id in the file.
        expected: u32,
        /// The id that is free.
        got: u32,
    },
    /// White space goes on for so long that the text can't be split as in Python.
    #[error(
        "encode: more than {length} characters of white space in a row, at line {line} of the \
         text; shorten them: ids after such a run would differ from those of other tokenizers"
    )]
    LongRun {
        /// The longest run that is encoded.
        length: usize,
        /// The line in which it is too long, from 1.
        line: usize,
    },
    /// A text could not be encoded.
    #[error("encode: the tokenizer rejected the text")]
    Encode {
        /// What the tokenizer said.
        #[source]
        source: tokenizers::Error,
    },
    /// Ids could not be decoded.
    #[error("decode: the tokenizer rejected the ids")]
    Decode {
        /// What the tokenizer said.
        #[source]
        source: tokenizers::Error,
    },
    /// A character that the vocabulary lacks.
    #[error(
        "encode: character {character:?} (number {position} of the text) is not in the vocabulary"
    )]
    UnknownCharacter {
        /// The character.
        character: char,
        /// Its place in the text, counted in characters from 1.
        position: usize,
    },
    /// A text of which the vocabulary has nothing.
    #[error(
        "encode: the vocabulary has no character of the text ({text}..): the model was trained on \
         another language or writing (the embedded one on classical Chinese poems); give another \
         by --model"
    )]
    UnknownText {
        /// How the text begins.
        text: String,
    },
    /// A file beside the tokenizer is not JSON.
    #[error("tokenizer: {path} is not valid JSON", path = path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What the parser found.
        #[source]
        source: serde_json::Error,
    },
    /// A checkpoint has no chat template.
    #[error(
        "chat: {path} has no chat template, neither in tokenizer_config.json nor as \
         chat_template.jinja; complete a plain prompt instead",
        path = path.display()
    )]
    NoChatTemplate {
        /// The checkpoint folder.
        path: PathBuf,
    },
    /// A checkpoint has chat templates, but not the one that was asked for.
    #[error(
        "chat: {path} has no chat template {name:?}; it has {names}; choose one of them, or give a \
         file",
        path = path.display()
    )]
    NoSuchTemplate {
        /// The checkpoint folder.
        path: PathBuf,
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        names: String,
    },
    /// A chat template could not be rendered.
    #[error("chat: the template in {path} cannot be rendered", path = path.display())]
    Template {
        /// The file.
        path: PathBuf,
        /// What the template engine said.
        #[source]
        source: Box<minijinja::Error>,
    },
    /// A character-level vocabulary was asked of a text without characters.
    #[error("character_level: the text has no character that occurs {min_count} times")]
    EmptyVocabulary {
        /// The least count that was asked for.
        min_count: usize,
    },
}

impl Error {
    /// This error of a reader of JSON, or the one that says what the file is instead.
    pub(crate) fn or_other(self, path: &Path, bytes: &[u8]) -> Self {
        match looks_like::other_than(looks_like::JSON, path, bytes) {
            Some((what, advice)) => Self::OtherFile {
                path: path.to_owned(),
                what,
                advice,
            },
            None => self,
        }
    }
}
