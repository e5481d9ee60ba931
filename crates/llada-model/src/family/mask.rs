//! Which token is the mask: not every published configuration says it.

use std::collections::BTreeMap;
use std::path::Path;

use llada_files::without_bom;
use serde::Deserialize;

use crate::{Error, Result};

/// What masks are called among the added tokens of published tokenizers.
const KNOWN: [&str; 3] = ["<[MASK]>", "<|mdm_mask|>", "<|mask|>"];

/// A special token in `tokenizer_config.json`: its text, or an object with it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Object { content: String },
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Object { content: text } => text,
        }
    }
}

/// An added token of `tokenizer.json`.
#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
}

#[derive(Deserialize, Default)]
struct TokenizerJson {
    #[serde(default)]
    added_tokens: Vec<Added>,
}

#[derive(Deserialize, Default)]
struct TokenizerConfig {
    mask_token: Option<Token>,
    #[serde(default)]
    added_tokens_decoder: BTreeMap<String, Token>,
}

/// The mask token of a folder: what the caller says; else `mask_token_id` of `config.json`, the
/// tokenizer's `mask_token`, and an added token that is called like a mask, which must agree; else
/// that of the `published` models of the family.
///
/// # Errors
/// [`Error::MaskTokens`] if two of them differ, [`Error::NoMaskToken`] if there is none. A file of
/// the tokenizer that can't be read says nothing here: who needs the tokenizer will name it.
pub(crate) fn find(
    dir: &Path,
    said: Option<u32>,
    given: Option<u32>,
    published: Option<u32>,
) -> Result<u32> {
    if let Some(id) = given {
        return Ok(id);
    }
    let json: TokenizerJson = read(&dir.join("tokenizer.json"));
    let config: TokenizerConfig = read(&dir.join("tokenizer_config.json"));
    let mut added: BTreeMap<&str, u32> = BTreeMap::new();
    for (id, token) in &config.added_tokens_decoder {
        if let Ok(id) = id.parse() {
            added.insert(token.text(), id);
        }
    }
    added.extend(
        json.added_tokens
            .iter()
            .map(|token| (&*token.content, token.id)),
    );
    let named = config.mask_token.as_ref().map(Token::text);
    let mut found: Vec<(String, u32)> = Vec::new();
    found.extend(said.map(|id| ("mask_token_id of config.json".to_owned(), id)));
    let of = |text: &str, what: String| added.get(text).map(|&id| (what, id));
    found.extend(named.and_then(|text| of(text, format!("mask_token {text} of the tokenizer"))));
    found.extend(
        KNOWN
            .iter()
            .filter_map(|text| of(text, format!("the added token {text}"))),
    );
    let Some((first, id)) = found.first() else {
        let path = dir.to_owned();
        return published.ok_or(Error::NoMaskToken { path });
    };
    match found.iter().find(|(_, other)| other != id) {
        None => Ok(*id),
        Some((second, other)) => Err(Error::MaskTokens {
            path: dir.to_owned(),
            first: format!("{first} ({id})"),
            second: format!("{second} ({other})"),
        }),
    }
}

fn read<T: for<'a> Deserialize<'a> + Default>(path: &Path) -> T {
    let bytes = std::fs::read(path).unwrap_or_default();
    serde_json::from_slice(without_bom(&bytes)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
