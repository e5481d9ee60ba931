//! The vocabulary of a GGUF file out of a `tokenizer.json`.
//!
//! Source: `get_vocab_base` of `conversion/llada.py` of llama.cpp.

use std::borrow::Cow;

use serde_json::Value;

use super::{BAILING, CONTROL, LLAMA3, MODEL, UNUSED, USER_DEFINED, Vocabulary};
use crate::tokenizer::Tokenizer;

const NORMAL: u32 = 1;
/// The splitting of Ling and LLaDA, as their own files write it.
const BAILING_POSSESSIVE: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";

impl Vocabulary<'static> {
    /// What a GGUF file says about the tokens of a tokenizer, with a token for each of `n_tokens`
    /// ids. `None` if it has no words for it: it is not byte-level BPE, changes the text first,
    /// splits it in a way that has no name there, or has higher ids.
    #[must_use]
    pub fn of(tokenizer: &Tokenizer, n_tokens: usize) -> Option<Self> {
        let file: Value = serde_json::from_slice(tokenizer.to_json()).ok()?;
        let model = &file["model"];
        let absent = [
            "dropout",
            "unk_token",
            "continuing_subword_prefix",
            "end_of_word_suffix",
        ];
        let is_absent = |value: &Value| value.is_null() || value == "" || value == false;
        let is_plain = absent.iter().all(|field| is_absent(&model[field]))
            && is_absent(&model["byte_fallback"])
            && file["normalizer"].is_null()
            && file["decoder"]["type"] == "ByteLevel";
        if model["type"] != "BPE" || !is_plain {
            return None;
        }
        let pre = splitting(&file["pre_tokenizer"])?;
        let mut tokens: Vec<_> = (0..n_tokens)
            .map(|id| Cow::from(format!("[PAD{id}]")))
            .collect();
        let mut token_types = vec![UNUSED; n_tokens];
        let mut set = |id: &Value, token: &str, kind: u32| {
            let id = usize::try_from(id.as_u64()?).ok()?;
            *tokens.get_mut(id)? = token.to_owned().into();
            token_types[id] = kind;
            Some(())
        };
        for (token, id) in model["vocab"].as_object()? {
            set(id, token, NORMAL)?;
        }
        for added in file["added_tokens"].as_array().into_iter().flatten() {
            let is_special = added["special"] == true;
            let kind = if is_special { CONTROL } else { USER_DEFINED };
            set(&added["id"], added["content"].as_str()?, kind)?;
        }
        let merges = model["merges"].as_array()?.iter().map(merge);
        Some(Self {
            model: MODEL.into(),
            pre: pre.into(),
            merges: merges.collect::<Option<_>>()?,
            tokens,
            token_types,
        })
    }
}

/// A merge, written as a text or as a pair.
fn merge(merge: &Value) -> Option<Cow<'static, str>> {
    match merge {
        Value::String(text) => Some(text.clone().into()),
        pair => {
            let (left, right) = (pair[0].as_str()?, pair[1].as_str()?);
            Some(format!("{left} {right}").into())
        }
    }
}

/// The name of a way to split a text before the merges.
fn splitting(pre_tokenizer: &Value) -> Option<&'static str> {
    let is_byte_level = |part: &Value, use_regex: bool| {
        part["type"] == "ByteLevel"
            && part["add_prefix_space"] == false
            // It is on where the field is not there.
            && part["use_regex"].as_bool().unwrap_or(true) == use_regex
    };
    if is_byte_level(pre_tokenizer, true) {
        return Some("gpt-2");
    }
    let [split, bytes] = &pre_tokenizer["pretokenizers"].as_array()?[..] else {
        return None;
    };
    let is_split = split["type"] == "Split"
        && split["behavior"] == "Isolated"
        && split["invert"] != true
        && is_byte_level(bytes, false);
    match split["pattern"]["Regex"].as_str().filter(|_| is_split)? {
        BAILING | BAILING_POSSESSIVE => Some("bailingmoe"),
        LLAMA3 => Some("llama-bpe"),
        _ => None,
    }
}
