use std::path::Path;

use super::{CONTROL, UNUSED, USER_DEFINED, Vocabulary};
use crate::Tokenizer;

/// a b c 1 ab, then an added token, a hole, and a special token.
fn vocabulary() -> Vocabulary<'static> {
    Vocabulary {
        model: "gpt2",
        pre: "bailingmoe",
        tokens: vec!["a", "b", "c", "1", "ab", "<c>", "[PAD6]", "<|mdm_mask|>"],
        token_types: vec![1, 1, 1, 1, 1, USER_DEFINED, UNUSED, CONTROL],
        merges: vec!["a b"],
    }
}

fn read(vocabulary: &Vocabulary<'_>) -> crate::Result<Tokenizer> {
    Tokenizer::from_vocabulary(vocabulary, Path::new("a.gguf"))
}

#[track_caller]
fn fails(change: impl FnOnce(&mut Vocabulary<'static>), parts: &[&str]) {
    let mut vocabulary = vocabulary();
    change(&mut vocabulary);
    let message = read(&vocabulary).unwrap_err().to_string();
    for part in ["a.gguf", "tokenizer.ggml."].iter().chain(parts) {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
}

#[test]
fn ids_are_those_of_the_file() {
    let tokenizer = read(&vocabulary()).unwrap();
    let ids = tokenizer.encode("abc11<c>a<|mdm_mask|>").unwrap();
    assert_eq!(ids, [4, 2, 3, 3, 5, 0, 7]);
    assert_eq!(
        tokenizer.decode(&ids, false).unwrap(),
        "abc11<c>a<|mdm_mask|>"
    );
    assert_eq!(tokenizer.decode(&[0, 5, 6, 7], true).unwrap(), "a<c>");
    assert_eq!(tokenizer.mask_token_id(), Some(7));
    assert_eq!(tokenizer.unk_token_id(), None);
}

#[test]
fn digits_are_split_as_pre_says() {
    for (pre, expected) in [
        ("bailingmoe", &[3, 3][..]),
        ("llama-bpe", &[5]),
        ("gpt-2", &[5]),
    ] {
        let mut vocabulary = vocabulary();
        vocabulary.pre = pre;
        vocabulary.tokens[5] = "11";
        vocabulary.token_types[5] = 1;
        vocabulary.merges.push("1 1");
        assert_eq!(
            read(&vocabulary).unwrap().encode("11").unwrap(),
            expected,
            "{pre}"
        );
    }
}

#[test]
fn what_does_not_fit_is_named() {
    fails(|v| v.model = "llama", &["model", "\"llama\"", "gpt2"]);
    fails(|v| v.pre = "qwen2", &["pre", "qwen2", "bailingmoe"]);
    fails(|v| v.token_types.truncate(3), &["token_type", "3"]);
    fails(|v| v.tokens[1] = "a", &["tokens", "\"a\" twice"]);
    for merge in ["a", "a c", "a x", ""] {
        fails(|v| v.merges.push(merge), &["merges", merge]);
    }
}
