use std::path::Path;

use super::{RepoId, may_be_id, resolve};

#[track_caller]
fn check_id(text: &str, expected: Option<(&str, &str, &str)>) {
    assert!(may_be_id(text), "{text}");
    let id = text.parse::<RepoId>().ok();
    let parts = id.as_ref().map(|id| (&*id.org, &*id.name, &*id.revision));
    assert_eq!(parts, expected, "{text}");
}

#[test]
fn ids_have_an_organization_a_name_and_a_revision() {
    let llada = "GSAI-ML/LLaDA-8B-Instruct";
    let name = "LLaDA-8B-Instruct";
    check_id(llada, Some(("GSAI-ML", name, "main")));
    check_id(&format!("{llada}@v1.0"), Some(("GSAI-ML", name, "v1.0")));
    check_id("a/b@refs/pr/1", Some(("a", "b", "refs/pr/1")));
    check_id("a/b@feature@2", Some(("a", "b", "feature@2")));
    for wrong in [
        "a/b@", "a/b@../c", "a/b@/c", "a/b@c//d", "a/b@c\\d", "a/b c", "a/b..c", "a/b--c", "a/-b",
        "a/春", "a/b@c:d", "a/.b",
    ] {
        check_id(wrong, None);
    }
}

#[test]
fn what_looks_like_a_path_is_one() {
    for path in [
        "model",
        "./model",
        "../a/b",
        "/models/a",
        "~/a",
        "a/b/c",
        "a/b/",
        ".",
        "a/b/c@main",
        "C:\\models\\a",
        "runs/model.gguf",
        "runs/model.safetensors",
        "runs/config.json",
    ] {
        assert!(!may_be_id(path), "{path}");
        let resolved = resolve(Path::new(path)).expect("a path");
        assert_eq!(resolved, Path::new(path));
    }
}

#[test]
fn a_folder_goes_before_the_hub() {
    let here = Path::new("src/hub");
    assert_eq!(resolve(here).expect("a folder"), here);
}

#[test]
fn what_is_neither_says_so() {
    let error = resolve(Path::new("runs/poem model")).expect_err("neither");
    let error = format!("{error:#}");
    assert!(error.contains("no folder"), "{error}");
    assert!(error.contains("ORG/NAME"), "{error}");
}
