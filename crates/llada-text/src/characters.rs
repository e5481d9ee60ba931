//! The `tokenizer.json` of a character-level vocabulary.
//!
//! The model is BPE without merges: one id a character, `[UNK]` for the others. It needs no
//! pre-tokenizer, and every implementation of the format reads it. Ids 0, 1, 2 are `[MASK]`,
//! `[EOS]` and `[UNK]`; then come the characters, the most frequent first, equals by code point.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::charsmap;

/// Text of the mask token.
pub(crate) const MASK: &str = "[MASK]";
/// Text of the end-of-text token, which is the padding too.
pub(crate) const EOS: &str = "[EOS]";
/// Text of the token for characters outside the vocabulary.
pub(crate) const UNK: &str = "[UNK]";

/// The characters that occur at least `min_count` times, in the order of their ids.
pub(crate) fn vocabulary<'a>(texts: impl Iterator<Item = &'a str>, min_count: usize) -> Vec<char> {
    let mut counts = BTreeMap::<char, usize>::new();
    for character in texts.flat_map(str::chars) {
        *counts.entry(character).or_default() += 1;
    }
    let mut kept: Vec<(char, usize)> = counts
        .into_iter()
        .filter(|&(_, count)| count >= min_count)
        .collect();
    // The sort is stable and the map was in code point order.
    kept.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    kept.into_iter().map(|(character, _)| character).collect()
}

/// The file for `characters`, with a normalizer that reads characters as others: where a pattern of
/// `phrases` (a regular expression, and what its matches become) matches, and then by the pairs of
/// `fold` (from, to).
///
/// Pairs are dropped whose first character has an id of its own or whose second has none.
pub(crate) fn tokenizer_json(
    characters: &[char],
    fold: impl Iterator<Item = (char, char)>,
    phrases: &[(String, char)],
) -> Vec<u8> {
    let special = [MASK, EOS, UNK];
    let mut vocab = Map::new();
    let tokens = special.iter().map(|token| (*token).to_owned());
    for (id, token) in tokens
        .chain(characters.iter().map(char::to_string))
        .enumerate()
    {
        vocab.insert(token, json!(id));
    }
    let fold: BTreeMap<char, char> = fold
        .filter(|(from, to)| {
            !vocab.contains_key(&from.to_string()) && vocab.contains_key(&to.to_string())
        })
        .collect();
    let of_phrase = |(pattern, to): &(String, char)| json!({ "type": "Replace", "pattern": { "Regex": pattern }, "content": to });
    let mut normalizers: Vec<Value> = phrases.iter().map(of_phrase).collect();
    if !fold.is_empty() {
        let charsmap = charsmap::encode(&fold);
        normalizers.push(json!({ "type": "Precompiled", "precompiled_charsmap": charsmap }));
    }
    let normalizer = match normalizers.len() {
        0 => Value::Null,
        1 => normalizers.remove(0),
        _ => json!({ "type": "Sequence", "normalizers": normalizers }),
    };
    let added: Vec<Value> = special
        .iter()
        .enumerate()
        .map(|(id, token)| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            })
        })
        .collect();
    let file = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": { "type": "Fuse" },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": UNK, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocab, "merges": [],
        },
    });
    let mut bytes = serde_json::to_vec(&file).expect("a JSON value with string keys is writable");
    bytes.push(b'\n');
    bytes
}
