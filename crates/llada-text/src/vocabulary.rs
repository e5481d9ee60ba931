//! The `tokenizer.json` of a vocabulary that a GGUF file holds.
//!
//! Only byte-level BPE is known there as `gpt2`; how a text is split before the merges is not in
//! the file but named by it. The ids are those of the tokenizer that was converted: nothing is put
//! before a text, whatever `add_bos_token` says, since the reference puts nothing there either.
//!
//! Source: `conversion/base.py` and `src/llama-vocab.cpp` of llama.cpp.

mod export;

use std::borrow::Cow;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

const MODEL: &str = "gpt2";
/// Values of `tokenizer.ggml.token_type`; all others are ordinary tokens.
const CONTROL: u32 = 3;
const USER_DEFINED: u32 = 4;
const UNUSED: u32 = 5;

/// The splitting of Ling and LLaDA: digits one by one, a line break ends a piece.
const BAILING: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
/// The splitting of Llama 3: digits by threes.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A vocabulary as the keys `tokenizer.ggml.*` of a GGUF file describe it.
#[derive(Debug, Clone)]
pub struct Vocabulary<'a> {
    /// `model`: `gpt2` is supported.
    pub model: Cow<'a, str>,
    /// `pre`: how a text is split before the merges; `bailingmoe` in published LLaDA files.
    pub pre: Cow<'a, str>,
    /// `tokens`, in the order of their ids.
    pub tokens: Vec<Cow<'a, str>>,
    /// `token_type` of each token.
    pub token_types: Vec<u32>,
    /// `merges`: pairs with a space between them, the first to be applied first.
    pub merges: Vec<Cow<'a, str>>,
}

impl Vocabulary<'_> {
    /// The content of the `tokenizer.json`; `path` is for messages.
    pub(crate) fn tokenizer_json(&self, path: &Path) -> Result<Vec<u8>> {
        let fault = |key, got: String, expected| Error::Vocabulary {
            path: path.to_owned(),
            key,
            got,
            expected,
        };
        if self.model != MODEL {
            return Err(fault("model", format!("{:?}", self.model), "\"gpt2\""));
        }
        // Words that are tokens as they stand are not merged in Llama 3.
        let (split, ignore_merges) = match &*self.pre {
            "bailingmoe" | "bailingmoe2" | "llada-moe" => (Some(BAILING), false),
            "llama-bpe" | "llama3" | "llama-v3" => (Some(LLAMA3), true),
            "gpt-2" => (None, false),
            other => {
                let expected = "bailingmoe, bailingmoe2, llada-moe, llama-bpe, llama3 or gpt-2";
                return Err(fault("pre", format!("{other:?}"), expected));
            }
        };
        if self.token_types.len() != self.tokens.len() {
            let got = format!("{} types", self.token_types.len());
            return Err(fault("token_type", got, "as many as there are tokens"));
        }
        let mut vocab = Map::new();
        let mut added = Vec::new();
        for (id, (token, &kind)) in self.tokens.iter().zip(&self.token_types).enumerate() {
            // Rows of the embedding that no token stands for.
            if kind == UNUSED {
                continue;
            }
            if vocab.insert(token.to_string(), json!(id)).is_some() {
                return Err(fault("tokens", format!("{token:?} twice"), "each once"));
            }
            if kind == CONTROL || kind == USER_DEFINED {
                added.push(json!({
                    "id": id, "content": token, "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": kind == CONTROL,
                }));
            }
        }
        for merge in &self.merges {
            let known = |token: &str| vocab.contains_key(token);
            let is_valid = |(left, right): (&str, &str)| {
                known(left) && known(right) && known(&[left, right].concat())
            };
            if !merge.split_once(' ').is_some_and(is_valid) {
                let expected = "two tokens that make a third";
                return Err(fault("merges", format!("{merge:?}"), expected));
            }
        }
        let byte_level = |use_regex: bool| {
            json!({
                "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                "use_regex": use_regex,
            })
        };
        let pre_tokenizer = match split {
            None => byte_level(true),
            Some(regex) => json!({ "type": "Sequence", "pretokenizers": [
                {
                    "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated",
                    "invert": false,
                },
                byte_level(false),
            ]}),
        };
        let file = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": null,
            "pre_tokenizer": pre_tokenizer,
            "post_processor": null,
            "decoder": byte_level(true),
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null,
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
                "byte_fallback": false, "ignore_merges": ignore_merges, "vocab": Value::from(vocab),
                "merges": self.merges,
            },
        });
        Ok(serde_json::to_vec(&file).expect("a JSON value with string keys is writable"))
    }
}

#[cfg(test)]
mod tests;
