use std::fs;
use std::path::Path;

use super::{Entry, Partial, hasher, hex};

const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// What `git hash-object` says about `hello\n`.
const HELLO_GIT: &str = "ce013625030ba8dba906f756967f9e9ca394464a";

fn entry(etag: &str, size: u64) -> Entry {
    Entry {
        name: "config.json".to_owned(),
        url: String::new(),
        etag: etag.to_owned(),
        size,
    }
}

fn open(path: &Path, entry: &Entry) -> Partial {
    Partial::open(path, entry).expect("a writable folder")
}

#[test]
fn checksums_are_those_of_sha256sum_and_git() {
    let empty = hasher(&entry(EMPTY_SHA256, 0)).finalize();
    assert_eq!(hex(&empty), EMPTY_SHA256);
    let mut hasher = hasher(&entry(HELLO_GIT, 6));
    hasher.update(b"hel");
    hasher.update(b"lo\n");
    assert_eq!(hex(&hasher.finalize()), HELLO_GIT);
}

#[test]
fn what_an_earlier_process_left_is_taken_up() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (path, blob) = (dir.path().join("x.incomplete"), dir.path().join("x"));
    let entry = entry(HELLO_GIT, 6);
    fs::write(&path, "hel").expect("a writable folder");
    let mut partial = open(&path, &entry);
    assert_eq!(partial.len, 3);
    partial.append(b"lo\n").expect("room");
    partial.finish(&blob, &entry).expect("the right checksum");
    assert_eq!(fs::read(&blob).expect("a blob"), b"hello\n");
    assert!(!path.exists());
}

#[test]
fn too_much_is_thrown_away() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("x.incomplete");
    fs::write(&path, "hello\nhello\n").expect("a writable folder");
    assert_eq!(open(&path, &entry(HELLO_GIT, 6)).len, 0);
    assert_eq!(fs::read(&path).expect("a file"), b"");
}

#[test]
fn a_restart_forgets_what_was_there() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (path, blob) = (dir.path().join("x.incomplete"), dir.path().join("x"));
    let entry = entry(HELLO_GIT, 6);
    fs::write(&path, "wrong").expect("a writable folder");
    let mut partial = open(&path, &entry);
    partial.restart().expect("a file");
    partial.append(b"hello\n").expect("room");
    partial.finish(&blob, &entry).expect("the right checksum");
    assert_eq!(fs::read(&blob).expect("a blob"), b"hello\n");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_says_so() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("x.incomplete");
    std::os::unix::fs::symlink("/dev/full", &path).expect("a link");
    let mut partial = open(&path, &entry(HELLO_GIT, 6));
    let error = partial.append(b"hello\n").expect_err("a full device");
    let error = format!("{error:#}");
    for part in [
        "x.incomplete",
        "run the same command again",
        "No space left",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert!(path.exists());
}
