use std::cell::Cell;
use std::fs;
use std::path::Path;

use super::super::RepoId;
use super::{INDEX, Repo};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn repo(cache: &Path) -> Repo {
    let id: RepoId = "org/name".parse().expect("an id");
    Repo::new(cache, &id)
}

/// Puts a file with its name as content into the snapshot of [`COMMIT`].
fn add(repo: &Repo, name: &str) {
    let blob = repo.blob(name);
    super::create_parent(&blob).expect("a writable folder");
    fs::write(blob, name).expect("a writable folder");
    repo.link(COMMIT, name, name).expect("a link");
}

#[track_caller]
fn lacks(repo: &Repo, revision: &str, part: &str) {
    let error = repo.cached(revision).expect_err("an incomplete cache");
    assert!(format!("{error:#}").contains(part), "{error:#}");
}

#[test]
fn a_snapshot_counts_when_it_is_complete() {
    let cache = tempfile::tempdir().expect("a temporary folder");
    let repo = repo(cache.path());
    lacks(&repo, "main", "revision main");
    lacks(&repo, COMMIT, COMMIT);
    add(&repo, "config.json");
    lacks(&repo, "main", "revision main");
    lacks(&repo, COMMIT, "lacks tokenizer.json");
    add(&repo, "tokenizer.json");
    lacks(&repo, COMMIT, "lacks model.safetensors");
    add(&repo, "model.safetensors");
    let dir = repo.snapshot(COMMIT);
    assert_eq!(repo.cached(COMMIT).expect("a complete one"), dir);
    repo.write_reference("refs/pr/1", COMMIT).expect("a file");
    assert_eq!(repo.cached("refs/pr/1").expect("a complete one"), dir);

    let index = r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    fs::write(dir.join(INDEX), index).expect("a writable folder");
    add(&repo, "model-1.safetensors");
    lacks(&repo, COMMIT, "lacks model-2.safetensors");
    fs::write(dir.join(INDEX), "{").expect("a writable folder");
    lacks(&repo, COMMIT, INDEX);
}

#[test]
fn a_link_replaces_one_to_nothing() {
    let cache = tempfile::tempdir().expect("a temporary folder");
    let repo = repo(cache.path());
    add(&repo, "config.json");
    let path = repo.snapshot(COMMIT).join("config.json");
    fs::remove_file(repo.blob("config.json")).expect("a file");
    assert!(!path.is_file());
    fs::write(repo.blob("other"), "other").expect("a writable folder");
    repo.link(COMMIT, "config.json", "other").expect("a link");
    assert_eq!(fs::read_to_string(path).expect("a file"), "other");
}

#[test]
fn a_reference_that_leads_elsewhere_is_none() {
    let cache = tempfile::tempdir().expect("a temporary folder");
    let repo = repo(cache.path());
    let written = repo.write_reference("main", "../../other");
    written.expect("a writable folder");
    lacks(&repo, "main", "revision main");
}

#[test]
fn a_blob_has_one_writer() {
    let cache = tempfile::tempdir().expect("a temporary folder");
    let repo = repo(cache.path());
    let waited = Cell::new(false);
    let lock = repo.lock("etag", || waited.set(true)).expect("a lock");
    assert!(!waited.get());
    std::thread::scope(|scope| {
        let (send, receive) = std::sync::mpsc::channel();
        let repo = &repo;
        let other = scope.spawn(move || repo.lock("etag", || send.send(()).expect("a receiver")));
        receive.recv().expect("the other thread has to wait");
        drop(lock);
        other.join().expect("no panic").expect("a lock");
    });
}
