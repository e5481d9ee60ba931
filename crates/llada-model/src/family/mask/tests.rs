//! Tests of where the mask token is found.

use std::fs;

use super::*;

/// A folder with these files.
#[track_caller]
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        fs::write(dir.path().join(name), text).expect("a file");
    }
    dir
}

const ADDED: &str =
    r#"{"added_tokens": [{"id": 5, "content": "<[MASK]>"}, {"id": 2, "content": "</s>"}]}"#;

#[test]
fn the_first_place_that_says_it_counts() {
    let dir = folder(&[("tokenizer.json", ADDED)]);
    let find = |said, given, published| find(dir.path(), said, given, published).ok();
    assert_eq!(find(None, None, None), Some(5));
    assert_eq!(find(None, Some(9), None), Some(9));
    assert_eq!(find(Some(5), None, Some(7)), Some(5));
    let dir = folder(&[(
        "tokenizer_config.json",
        r#"{"mask_token": {"content": "[M]"}, "added_tokens_decoder": {"8": {"content": "[M]"}}}"#,
    )]);
    assert_eq!(super::find(dir.path(), None, None, None).ok(), Some(8));
}

#[test]
fn what_published_models_have_is_the_last_resort() {
    let dir = folder(&[]);
    assert_eq!(find(dir.path(), None, None, Some(7)).ok(), Some(7));
    let error = find(dir.path(), None, None, None).expect_err("nothing says it");
    assert!(matches!(error, Error::NoMaskToken { .. }), "{error}");
    assert!(error.to_string().contains("--mask-token-id"), "{error}");
}

#[test]
fn files_that_disagree_are_refused_unless_the_caller_says_it() {
    let dir = folder(&[("tokenizer.json", ADDED)]);
    let error = find(dir.path(), Some(3), None, None).expect_err("two masks");
    assert!(matches!(error, Error::MaskTokens { .. }), "{error}");
    let message = error.to_string();
    for part in ["config.json (3)", "<[MASK]> (5)"] {
        assert!(message.contains(part), "no {part} in {message}");
    }
    assert_eq!(find(dir.path(), Some(3), Some(3), None).ok(), Some(3));
}
