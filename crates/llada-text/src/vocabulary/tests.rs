use std::path::Path;

use super::{CONTROL, UNUSED, USER_DEFINED, Vocabulary};
use crate::Tokenizer;

/// a b c 1 ab, then an added token, a hole, and a special token.
fn vocabulary() -> Vocabulary<'static> {
    Vocabulary {
        model: "gpt2".into(),
        pre: "bailingmoe".into(),
        tokens: ["a", "b", "c", "1", "ab", "<c>", "[PAD6]", "<|mdm_mask|>"]
            .map(Into::into)
            .into(),
        token_types: vec![1, 1, 1, 1, 1, USER_DEFINED, UNUSED, CONTROL],
        merges: vec!["a b".into()],
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
        vocabulary.pre = pre.into();
        vocabulary.tokens[5] = "11".into();
        vocabulary.token_types[5] = 1;
        vocabulary.merges.push("1 1".into());
        assert_eq!(
            read(&vocabulary).unwrap().encode("11").unwrap(),
            expected,
            "{pre}"
        );
    }
}

#[test]
fn what_does_not_fit_is_named() {
    fails(
        |v| v.model = "llama".into(),
        &["model", "\"llama\"", "gpt2"],
    );
    fails(|v| v.pre = "qwen2".into(), &["pre", "qwen2", "bailingmoe"]);
    fails(|v| v.token_types.truncate(3), &["token_type", "3"]);
    fails(|v| v.tokens[1] = "a".into(), &["tokens", "\"a\" twice"]);
    for merge in ["a", "a c", "a x", ""] {
        fails(|v| v.merges.push(merge.into()), &["merges", merge]);
    }
}

#[test]
fn the_vocabulary_of_a_tokenizer_makes_it_again() {
    for pre in ["bailingmoe", "llama-bpe", "gpt-2"] {
        let mut first = vocabulary();
        first.pre = pre.into();
        let tokenizer = read(&first).unwrap();
        let second = Vocabulary::of(&tokenizer, 8).unwrap();
        assert_eq!(first.tokens, second.tokens, "{pre}");
        assert_eq!(first.token_types, second.token_types, "{pre}");
        assert_eq!((first.pre, first.merges), (second.pre, second.merges));
        let longer = Vocabulary::of(&tokenizer, 10).unwrap();
        assert_eq!(longer.tokens[9], "[PAD9]");
        assert_eq!(longer.token_types[9], UNUSED);
        // An id that the model has no row for.
        assert!(Vocabulary::of(&tokenizer, 7).is_none());
    }
}

#[test]
fn what_has_no_words_in_gguf_makes_no_vocabulary() {
    let characters = Tokenizer::character_level(["春眠"].into_iter(), 1).unwrap();
    assert!(Vocabulary::of(&characters, 8).is_none());
    let good = read(&vocabulary()).unwrap();
    let json: serde_json::Value = serde_json::from_slice(good.to_json()).unwrap();
    for (place, value) in [
        ("/normalizer", serde_json::json!({ "type": "NFC" })),
        (
            "/pre_tokenizer",
            serde_json::json!({ "type": "Whitespace" }),
        ),
        ("/decoder", serde_json::json!({ "type": "Fuse" })),
        ("/model/unk_token", "a".into()),
        ("/model/byte_fallback", true.into()),
        ("/pre_tokenizer/pretokenizers/0/pattern/Regex", r"\d".into()),
    ] {
        let mut json = json.clone();
        *json.pointer_mut(place).unwrap() = value;
        let other = Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap();
        assert!(Vocabulary::of(&other, 8).is_none(), "{place}");
    }
}
