//! GGUF files: the weights and the vocabulary of one file together.

use llada_model::{Error, Gguf};
use llada_text::{ChatTemplate, Tokenizer, Vocabulary};

use crate::LoadError;

/// The special tokens that a chat template may write, and the keys of their ids.
const SPECIAL: [(&str, &str); 4] = [
    ("bos_token", "tokenizer.ggml.bos_token_id"),
    ("eos_token", "tokenizer.ggml.eos_token_id"),
    ("pad_token", "tokenizer.ggml.padding_token_id"),
    ("mask_token", "tokenizer.ggml.mask_token_id"),
];

pub(crate) fn tokenizer(file: &Gguf) -> Result<Tokenizer, LoadError> {
    Ok(Tokenizer::from_vocabulary(&vocabulary(file)?, file.path())?)
}

fn vocabulary(file: &Gguf) -> Result<Vocabulary<'_>, Error> {
    let text = |key| file.text(key)?.ok_or_else(|| file.missing(key));
    Ok(Vocabulary {
        model: text("tokenizer.ggml.model")?,
        pre: text("tokenizer.ggml.pre")?,
        tokens: file.texts("tokenizer.ggml.tokens")?,
        token_types: file.numbers("tokenizer.ggml.token_type")?,
        merges: file.texts("tokenizer.ggml.merges")?,
    })
}

pub(crate) fn chat_template(file: &Gguf) -> Result<ChatTemplate, LoadError> {
    let path = file.path();
    let Some(source) = file.text("tokenizer.chat_template")? else {
        let path = path.to_owned();
        return Err(llada_text::Error::NoChatTemplate { path }.into());
    };
    let tokens = file.texts("tokenizer.ggml.tokens")?;
    let mut special = Vec::new();
    for (name, key) in SPECIAL {
        let id = file.number(key)?;
        if let Some(token) = id.and_then(|id| tokens.get(id as usize)) {
            special.push((name.to_owned(), (*token).to_owned()));
        }
    }
    Ok(ChatTemplate::new(source, special, path))
}
