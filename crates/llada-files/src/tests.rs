use super::*;

fn names(folder: &Path) -> Vec<OsString> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name()).collect()
}

#[test]
fn a_file_that_is_not_finished_leaves_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    write(&path, "old").unwrap();
    let mut file = NewFile::create(&path).unwrap();
    file.write_all(b"half of the n").unwrap();
    assert_eq!(names(folder.path()).len(), 2);
    drop(file);
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(names(folder.path()), ["a.txt"]);
    write(&path, "new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(names(folder.path()), ["a.txt"]);
}

#[test]
fn leftovers_of_a_killed_process_are_removed_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("a.txt"), "whole").unwrap();
    std::mem::forget(NewFile::create(&folder.path().join("b.txt")).unwrap());
    assert_eq!(names(folder.path()).len(), 2);
    remove_leftovers(folder.path()).unwrap();
    assert_eq!(names(folder.path()), ["a.txt"]);
}

#[cfg(unix)]
#[test]
fn a_file_is_as_readable_as_any_new_one() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let [ours, plain] = ["ours", "plain"].map(|name| folder.path().join(name));
    write(&ours, "").unwrap();
    fs::write(&plain, "").unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(ours), mode(plain));
}

#[cfg(target_os = "linux")]
#[test]
fn a_device_is_written_to_and_a_full_disk_is_an_error() {
    let error = write(Path::new("/dev/full"), "x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    write(Path::new("/dev/null"), "x").unwrap();
}

#[test]
fn a_byte_order_mark_is_no_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jsonl");
    for (content, text) in [
        (&b"\xef\xbb\xbf{}"[..], "{}"),
        (b"{}\xef\xbb\xbf", "{}\u{feff}"),
        (b"", ""),
    ] {
        fs::write(&path, content).unwrap();
        assert_eq!(read_text(&path).unwrap(), text);
    }
    fs::write(&path, b"\xff\xfe{").unwrap();
    let error = read_text(&path).unwrap_err();
    assert!(error.to_string().contains("utf-8"), "{error}");
}
