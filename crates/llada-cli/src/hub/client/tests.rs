use ureq::http::Uri;

use super::{join, percent_encoded, same_origin};

fn uri(text: &str) -> Uri {
    text.parse().expect("a URL")
}

#[test]
fn redirects_lead_where_browsers_go() {
    let base = uri("https://huggingface.co/a/b?c=d");
    for (target, expected) in [
        (
            "https://cdn.example/x?y=z",
            Some("https://cdn.example/x?y=z"),
        ),
        ("/x/y", Some("https://huggingface.co/x/y")),
        ("//cdn.example/x", Some("https://cdn.example/x")),
        ("x", None),
        ("http://", None),
        ("", None),
    ] {
        assert_eq!(join(&base, target), expected.map(uri), "{target}");
    }
}

#[track_caller]
fn check_origin(a: &str, b: &str, expected: bool) {
    assert_eq!(same_origin(&uri(a), &uri(b)), expected, "{a} {b}");
}

#[test]
fn an_origin_is_scheme_host_and_port() {
    check_origin("https://a.example/x", "https://A.example:443/y", true);
    check_origin("http://a.example:80", "http://a.example", true);
    check_origin("http://a.example", "https://a.example", false);
    check_origin("https://a.example", "https://a.example.evil", false);
    check_origin("https://a.example", "https://cdn.a.example", false);
    check_origin("http://127.0.0.1:1", "http://127.0.0.1:2", false);
}

#[test]
fn a_revision_is_one_segment() {
    assert_eq!(percent_encoded("refs/pr/1"), "refs%2Fpr%2F1");
    assert_eq!(percent_encoded("v1.0-a_b"), "v1.0-a_b");
    assert_eq!(percent_encoded("春?"), "%E6%98%A5%3F");
}
