//! Tests of the size limits.

use super::{File, MAX_FILE_BYTES, check, warnings};

fn of_lines(lines: usize) -> File {
    File {
        path: "a.rs".to_owned(),
        bytes: 1,
        text: Some("x\n".repeat(lines)),
    }
}

fn of_bytes(path: &str, bytes: u64) -> File {
    File {
        path: path.to_owned(),
        bytes,
        text: None,
    }
}

#[track_caller]
fn check_files(files: &[File], expected: &[&str]) {
    let offences: Vec<String> = check(files).into_iter().map(|o| o.wrong).collect();
    assert_eq!(offences, expected);
}

#[test]
fn long_files_fail_and_rather_long_ones_warn() {
    for (lines, fails, warns) in [
        (600, false, false),
        (601, false, true),
        (800, false, true),
        (801, true, false),
    ] {
        let files = [of_lines(lines)];
        assert_eq!(
            (!check(&files).is_empty(), !warnings(&files).is_empty()),
            (fails, warns)
        );
    }
    check_files(&[of_lines(801)], &["801 lines, over 800"]);
    let mut generated = of_lines(801);
    let text = generated.text.take().unwrap_or_default();
    generated.text = Some(format!("{} bindgen */\n{text}", crate::tidy::GENERATED));
    check_files(&[generated], &[]);
}

#[test]
fn a_file_has_at_most_16_mib() {
    check_files(&[of_bytes("assets/poems.safetensors", MAX_FILE_BYTES)], &[]);
    let wrong = "16777217 bytes, over 16 MiB";
    check_files(&[of_bytes("doc/picture.png", MAX_FILE_BYTES + 1)], &[wrong]);
}

#[test]
fn assets_and_goldens_count_together() {
    let half = 21 << 20;
    let third = half / 2;
    let files = [
        of_bytes("assets/a.bin", third),
        of_bytes("assets/b.bin", third),
        of_bytes("crates/llada/tests/goldens/c.bin", third),
        of_bytes("crates/llada/tests/goldens/d.bin", third),
    ];
    check_files(
        &files,
        &["44040192 bytes of assets and goldens, over 40 MiB"],
    );
    check_files(&files[..3], &[]);
    let elsewhere = [
        of_bytes("doc/a.png", third),
        of_bytes("assets/b.bin", third),
    ];
    check_files(&elsewhere, &[]);
}
