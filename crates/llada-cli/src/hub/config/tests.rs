use std::fs;
use std::path::{Path, PathBuf};

use super::HubConfig;

fn config(variables: &[(&str, &str)]) -> HubConfig {
    let find = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.into())
    };
    HubConfig::new(&find, Some(PathBuf::from("/home/me")))
}

#[track_caller]
fn check_cache(variables: &[(&str, &str)], expected: &str) {
    assert_eq!(config(variables).cache, Path::new(expected));
}

#[test]
fn the_cache_is_where_huggingface_hub_has_it() {
    let all = [
        ("HF_HUB_CACHE", "/a"),
        ("HF_HOME", "/b"),
        ("XDG_CACHE_HOME", "/c"),
    ];
    check_cache(&all, "/a");
    check_cache(&all[1..], "/b/hub");
    check_cache(&all[2..], "/c/huggingface/hub");
    check_cache(&[], "/home/me/.cache/huggingface/hub");
    check_cache(
        &[("HF_HUB_CACHE", ""), ("HF_HOME", "~/d")],
        "/home/me/d/hub",
    );
}

#[test]
fn offline_is_what_python_takes_for_true() {
    for (value, expected) in [
        ("1", true),
        ("ON", true),
        ("yes", true),
        ("True", true),
        ("0", false),
        ("false", false),
        ("", false),
    ] {
        let offline = config(&[("HF_HUB_OFFLINE", value)]).offline;
        assert_eq!(offline, expected, "{value}");
    }
}

#[test]
fn the_endpoint_loses_its_slash() {
    let default = config(&[]).endpoint;
    assert_eq!(default, "https://huggingface.co");
    let mirror = config(&[("HF_ENDPOINT", "https://mirror.example/hub/")]);
    assert_eq!(mirror.endpoint, "https://mirror.example/hub");
}

#[test]
fn the_token_comes_from_the_variable_or_a_file() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let home = dir.path().to_str().expect("a readable name");
    let other = dir.path().join("other");
    let other_path = other.to_str().expect("a readable name");
    let token = |variables: &[(&str, &str)]| config(variables).token;
    assert_eq!(token(&[("HF_HOME", home)]), None);
    fs::write(dir.path().join("token"), "hf_home\n").expect("a writable folder");
    fs::write(&other, "hf_other").expect("a writable folder");
    let all = [
        ("HF_TOKEN", " hf_variable "),
        ("HF_TOKEN_PATH", other_path),
        ("HF_HOME", home),
    ];
    assert_eq!(token(&all).as_deref(), Some("hf_variable"));
    assert_eq!(token(&all[1..]).as_deref(), Some("hf_other"));
    assert_eq!(token(&all[2..]).as_deref(), Some("hf_home"));
}
