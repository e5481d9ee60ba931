use super::*;

#[track_caller]
fn check(name: &str, bytes: &[u8], parts: &[&str]) {
    let (what, advice) = other_than(GGUF, Path::new(name), bytes).expect("is told");
    let message = format!("{what}: {advice}");
    for part in parts {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
}

#[test]
fn files_that_are_something_else_are_named() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    check("m.gguf", pointer, &["Git LFS", "git lfs pull"]);
    let old = b"version https://hawser.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    check("m.gguf", old, &["Git LFS"]);
    check(
        "m.gguf",
        b"/annex/objects/SHA256E-s1--2.gguf\n",
        &["git annex get"],
    );
    check("m.gguf", b"<!DOCTYPE html>\n<html>", &["HTML", "login"]);
    check("m.gguf", b"\xef\xbb\xbf\n <HTML lang=en>", &["HTML"]);
    check("m.gguf", b"<?xml version='1.0'?><Error>", &["HTML"]);
    check("m.gguf", br#"{"error":"Repository not found"}"#, &["JSON"]);
    check("m.gguf", b"PK\x03\x04\0\0", &["zip", "safetensors"]);
    check("m.gguf", b"\x80\x02}q\0.", &["pickle"]);
    check("m.gguf", b"tjgg\x03\0\0\0", &["before GGUF"]);
    check("m.gguf", b"\x1f\x8b\x08", &["gzip"]);
    check(
        "m.safetensors",
        b"\x08\0\0\0\0\0\0\0{}      ",
        &["safetensors", "folder"],
    );
    check("a.1f2e3d4c.incomplete", b"GGUF", &["broke off"]);
}

#[test]
fn a_text_in_place_of_json_is_named() {
    let path = Path::new("config.json");
    let what = |bytes: &[u8]| other_than(JSON, path, bytes).map(|(what, _)| what);
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    assert_eq!(what(pointer), Some("a pointer of Git LFS"));
    assert_eq!(what(b"<html>"), Some("a web page (HTML)"));
    assert_eq!(what(b"{\"d_model\": "), None);
}

#[test]
fn what_is_expected_or_unknown_is_not_named() {
    let path = Path::new("m");
    assert!(other_than(GGUF, path, b"GGUF\x03\0\0\0").is_none());
    let safetensors = b"\x08\0\0\0\0\0\0\0{}      ";
    assert!(other_than(SAFETENSORS, path, safetensors).is_none());
    for unknown in [&b""[..], b"{}", b"\0\0\0\0", b"hello"] {
        assert!(other_than(GGUF, path, unknown).is_none());
    }
}
