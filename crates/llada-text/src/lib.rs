//! Tokenizers: `tokenizer.json` files of the Hugging Face layout, vocabularies of GGUF files,
//! character-level ones built from a text, and the special tokens that masked diffusion needs.
//!
//! This crate knows token ids and strings, no tensors and no model.

#![forbid(unsafe_code)]

mod answer;
mod characters;
mod charsmap;
mod chat;
mod encoded;
mod error;
mod side_files;
mod tokenizer;
mod vocabulary;

pub use answer::{AnswerForm, Marked, Parts, Reasoning};
pub use chat::{ChatInputs, ChatTemplate, Message};
pub use encoded::{Encoded, Unknown};
pub use error::{Error, Result};
pub use tokenizer::Tokenizer;
pub use vocabulary::Vocabulary;
