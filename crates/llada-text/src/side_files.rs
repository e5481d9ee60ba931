//! The files beside a `tokenizer.json` that say more about its tokens: `tokenizer_config.json`,
//! `special_tokens_map.json` and `added_tokens.json`.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use llada_files::without_bom;
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::error::{Error, Result};

pub(crate) const CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";
const ADDED_TOKENS: &str = "added_tokens.json";

/// Lists of special tokens without names of their own.
const LISTS: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

/// What the files of a folder say.
///
/// Source: `PreTrainedTokenizerBase._from_pretrained` of transformers 5.24: where
/// `tokenizer_config.json` has `added_tokens_decoder`, the two older files are not read.
#[derive(Debug, Default)]
pub(crate) struct SideFiles {
    /// Tokens, each with its id if the files say one.
    pub(crate) tokens: Vec<(AddedToken, Option<u32>)>,
    /// Names such as `bos_token` and their texts.
    pub(crate) named: Vec<(String, String)>,
    /// `chat_template` of `tokenizer_config.json`.
    pub(crate) chat_template: Option<Value>,
}

impl SideFiles {
    /// Reads those files that the folder `dir` has.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Config`] if one cannot be read.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let mut config = object(&dir.join(CONFIG))?.unwrap_or_default();
        let decoder = config.remove("added_tokens_decoder");
        let mut added = Map::new();
        if decoder.is_none() {
            let special = object(&dir.join(SPECIAL_TOKENS_MAP))?.unwrap_or_default();
            config.extend(special.into_iter().filter(|(_, value)| !value.is_null()));
            added = object(&dir.join(ADDED_TOKENS))?.unwrap_or_default();
        }
        let mut files = Self {
            chat_template: config
                .remove("chat_template")
                .filter(|value| !value.is_null()),
            ..Self::default()
        };
        for (id, token) in decoder.iter().filter_map(Value::as_object).flatten() {
            if let Some(token) = added_token(token, None) {
                files.tokens.push((token, id.parse().ok()));
            }
        }
        files.tokens.sort_by_key(|(_, id)| *id);
        files.add_special(&config);
        let mut added: Vec<(&String, Option<u64>)> = added
            .iter()
            .map(|(token, id)| (token, id.as_u64()))
            .collect();
        added.sort_by_key(|(_, id)| *id);
        for (text, id) in added {
            let id = id.and_then(|id| u32::try_from(id).ok());
            match files
                .tokens
                .iter_mut()
                .find(|(token, _)| token.content == *text)
            {
                Some((_, known)) => *known = id,
                None => files
                    .tokens
                    .push((AddedToken::from(text.as_str(), false), id)),
            }
        }
        // New tokens get the next ids in this order.
        files
            .tokens
            .sort_by_key(|(_, id)| id.map_or((true, 0), |id| (false, id)));
        Ok(files)
    }

    /// Tokens with a name such as `bos_token`, and those of lists.
    fn add_special(&mut self, config: &Map<String, Value>) {
        let named = config.iter().filter(|(name, _)| name.ends_with("_token"));
        let extra = LISTS
            .iter()
            .filter_map(|list| config.get(*list)?.as_object())
            .flatten();
        for (name, value) in named.chain(extra) {
            let is_text = value.is_string() || value.get("content").is_some_and(Value::is_string);
            if let Some(token) = added_token(value, Some(true)).filter(|_| is_text) {
                self.named.push((name.clone(), token.content.clone()));
                self.add(token);
            }
        }
        let lists = LISTS
            .iter()
            .filter_map(|list| config.get(*list)?.as_array());
        for value in lists.flatten() {
            if let Some(token) = added_token(value, Some(true)) {
                self.add(token);
            }
        }
    }

    fn add(&mut self, token: AddedToken) {
        match self
            .tokens
            .iter_mut()
            .find(|(known, _)| known.content == token.content)
        {
            Some((known, _)) => known.special = true,
            None => self.tokens.push((token, None)),
        }
    }
}

/// A token written as a text or as an object with `content`; the files of `special` tokens do not
/// always say that they are.
fn added_token(value: &Value, special: Option<bool>) -> Option<AddedToken> {
    let flag = |name| value.get(name).and_then(Value::as_bool);
    let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
    let special = special.or_else(|| flag("special")).unwrap_or(false);
    let mut token = AddedToken::from(text, special)
        .single_word(flag("single_word").unwrap_or(false))
        .lstrip(flag("lstrip").unwrap_or(false))
        .rstrip(flag("rstrip").unwrap_or(false));
    if let Some(normalized) = flag("normalized") {
        token = token.normalized(normalized);
    }
    Some(token)
}

/// The JSON object in a file, if the file exists.
fn object(path: &Path) -> Result<Option<Map<String, Value>>> {
    let Some(text) = read(path)? else {
        return Ok(None);
    };
    serde_json::from_slice(without_bom(text.as_bytes()))
        .map(Some)
        .map_err(|source| {
            let error = Error::Config {
                path: path.to_owned(),
                source,
            };
            error.or_other(path, text.as_bytes())
        })
}

/// The content of a file, if it exists.
pub(crate) fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(source) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read {
            path: path.to_owned(),
            source,
        }),
    }
}
