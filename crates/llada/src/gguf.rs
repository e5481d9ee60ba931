//! GGUF files: the weights and the vocabulary of one file together.
//!
//! The vocabulary that llama.cpp reads (`tokenizer.ggml.*`) knows fewer tokenizers than a
//! `tokenizer.json`. So a file that is written here has that too, as it is, under the key that
//! GGUF's documentation names for it (`tokenizer.huggingface.json`), and where it is there it is
//! what is read. For a tokenizer that has no other form, `tokenizer.ggml.model` is `none`.

use std::borrow::Cow;

use llada_model::{Error, Gguf, GgufValue};
use llada_text::{ChatTemplate, Tokenizer, Vocabulary};

use crate::LoadError;

/// The special tokens that a chat template may write, and the keys of their ids.
const SPECIAL: [(&str, &str); 4] = [
    ("bos_token", "tokenizer.ggml.bos_token_id"),
    ("eos_token", "tokenizer.ggml.eos_token_id"),
    ("pad_token", "tokenizer.ggml.padding_token_id"),
    ("mask_token", "tokenizer.ggml.mask_token_id"),
];

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const TEMPLATE: &str = "tokenizer.chat_template";
/// A whole `tokenizer.json`.
const JSON: &str = "tokenizer.huggingface.json";
/// The model of a file without a vocabulary.
const NO_MODEL: &str = "none";

pub(crate) fn tokenizer(file: &Gguf) -> Result<Tokenizer, LoadError> {
    match file.text(JSON)? {
        Some(json) => Ok(Tokenizer::from_bytes(json.as_bytes())?),
        None => Ok(Tokenizer::from_vocabulary(&vocabulary(file)?, file.path())?),
    }
}

/// Whether the file has a tokenizer at all.
pub(crate) fn has_tokenizer(file: &Gguf) -> Result<bool, Error> {
    let has_vocabulary = file.text(MODEL)?.is_some_and(|model| model != NO_MODEL);
    Ok(has_vocabulary || file.text(JSON)?.is_some())
}

fn vocabulary(file: &Gguf) -> Result<Vocabulary<'_>, Error> {
    let text = |key| file.text(key)?.ok_or_else(|| file.missing(key));
    let texts = |key| Ok::<_, Error>(file.texts(key)?.into_iter().map(Cow::from).collect());
    Ok(Vocabulary {
        model: text(MODEL)?.into(),
        pre: text(PRE)?.into(),
        tokens: texts(TOKENS)?,
        token_types: file.numbers(TOKEN_TYPES)?,
        merges: texts(MERGES)?,
    })
}

/// The keys of a tokenizer and a chat template, for a model of `rows` tokens.
pub(crate) fn keys(
    tokenizer: Option<&Tokenizer>,
    template: Option<&ChatTemplate>,
    rows: usize,
) -> Vec<(String, GgufValue)> {
    use GgufValue::{Flag, Number, Numbers, Text, Texts};
    let mut keys = Vec::new();
    let mut put = |key: &str, value| keys.push((key.to_owned(), value));
    let Some(tokenizer) = tokenizer else {
        put(MODEL, Text(NO_MODEL.to_owned()));
        return keys;
    };
    match Vocabulary::of(tokenizer, rows) {
        None => put(MODEL, Text(NO_MODEL.to_owned())),
        Some(vocabulary) => {
            let owned = |texts: Vec<Cow<'static, str>>| texts.into_iter().map(Cow::into_owned);
            let types = vocabulary.token_types.iter();
            put(MODEL, Text(vocabulary.model.into_owned()));
            put(PRE, Text(vocabulary.pre.into_owned()));
            put(TOKENS, Texts(owned(vocabulary.tokens).collect()));
            put(
                TOKEN_TYPES,
                Numbers(types.map(|x| x.cast_signed()).collect()),
            );
            put(MERGES, Texts(owned(vocabulary.merges).collect()));
        }
    }
    let json = String::from_utf8_lossy(tokenizer.to_json());
    put(JSON, Text(json.into_owned()));
    let special = template.map_or(&[][..], ChatTemplate::special);
    let bos = special.iter().find(|(name, _)| name == SPECIAL[0].0);
    let bos = bos.and_then(|(_, token)| tokenizer.token_to_id(token));
    if let Some(bos) = bos {
        put(SPECIAL[0].1, Number(bos));
    }
    // llama.cpp would put a token of another model there.
    put("tokenizer.ggml.add_bos_token", Flag(bos.is_some()));
    if let Some(template) = template {
        put(TEMPLATE, Text(template.source().to_owned()));
    }
    keys
}

pub(crate) fn chat_template(file: &Gguf) -> Result<ChatTemplate, LoadError> {
    let path = file.path();
    let Some(source) = file.text(TEMPLATE)? else {
        let path = path.to_owned();
        return Err(llada_text::Error::NoChatTemplate { path }.into());
    };
    Ok(ChatTemplate::new(source, special_tokens(file)?, path))
}

/// Names such as `bos_token` and their texts.
pub(crate) fn special_tokens(file: &Gguf) -> Result<Vec<(String, String)>, LoadError> {
    let tokenizer = tokenizer(file)?;
    let mut special = Vec::new();
    for (name, key) in SPECIAL {
        let id = file.number(key)?;
        if let Some(token) = id.and_then(|id| tokenizer.token(id)) {
            special.push((name.to_owned(), token));
        }
    }
    Ok(special)
}
