//! Results in a file of JSON lines, which is written while they come and gone on with.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::output::note;

/// How every line begins; the key of the result follows.
const BEGIN: &str = "{\"key\":\"";

/// A file with a result a line, in the order of the items that they are of.
#[derive(Debug)]
pub(super) struct ResultFile {
    path: PathBuf,
    file: File,
}

/// What stands for all that a result depends on: the same text, the same 16 digits.
pub(super) fn key(text: &str) -> String {
    // FNV-1a of 64 bits: it tells what was changed by mistake, not by an enemy.
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    let hash = text.bytes().fold(0xCBF2_9CE4_8422_2325, hash);
    format!("{hash:016x}")
}

impl ResultFile {
    /// Opens a file, or makes it, and returns the results that it has of the first items; `keys`
    /// are those of all items. Half a line at the end, which a process that was killed has left, is
    /// cut off.
    ///
    /// # Errors
    /// If it holds anything else, or another process writes it.
    pub(super) fn open(path: &Path, keys: &[String]) -> Result<(Self, Vec<Value>)> {
        let name = path.display();
        let is_file = fs::metadata(path).map_or(true, |found| found.is_file());
        ensure!(is_file, "{name} is no file: name one by --output");
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let file = options
            .open(path)
            .with_context(|| format!("opening {name}"))?;
        // Some file systems have no locks.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            bail!("{name} is being written by another process");
        }
        let mut text = String::new();
        let read = (&file).read_to_string(&mut text);
        read.with_context(|| format!("reading {name}"))?;
        let end = text.rfind('\n').map_or(0, |at| at + 1);
        let (whole, rest) = text.split_at(end);
        let results = whole.lines().zip(1..).map(|(line, number)| {
            let key = keys.get(number - 1).map(String::as_str);
            result(line, key).with_context(|| format!("{name}, line {number}"))
        });
        let results: Vec<Value> = results.collect::<Result<_>>()?;
        if !rest.is_empty() {
            let is_ours = rest.starts_with(BEGIN) || BEGIN.starts_with(rest);
            ensure!(is_ours, "{name}, line {}: {FOREIGN}", results.len() + 1);
            note(&format!("{name}: half a line at the end is written again"));
        }
        let mut this = Self {
            path: path.to_owned(),
            file,
        };
        let cut = this.file.set_len(end as u64);
        let cut = cut.and_then(|()| this.file.seek(SeekFrom::End(0)));
        cut.with_context(|| this.writing())?;
        Ok((this, results))
    }

    /// Writes the results of the next items, to stay if the machine stops.
    pub(super) fn append(&mut self, keys: &[String], results: &[Value]) -> Result<()> {
        let mut lines = String::new();
        for (key, result) in keys.iter().zip(results) {
            let fields = result.to_string();
            let fields = fields.strip_prefix('{').unwrap_or(&fields);
            lines.push_str(&format!("{BEGIN}{key}\",{fields}\n"));
        }
        let written = self.file.write_all(lines.as_bytes());
        let written = written.and_then(|()| self.file.sync_data());
        written.with_context(|| self.writing())
    }

    fn writing(&self) -> String {
        format!("writing {}", self.path.display())
    }
}

const FOREIGN: &str = "not a result of this command; name another file by --output";

/// The result in a line, which must have this key.
fn result(line: &str, key: Option<&str>) -> Result<Value> {
    let mut result = serde_json::from_str::<Value>(line).context(FOREIGN)?;
    let found = result
        .as_object_mut()
        .and_then(|fields| fields.remove("key"));
    let Some(Value::String(found)) = found else {
        bail!(FOREIGN);
    };
    ensure!(
        key == Some(&found),
        "made of other input, by another model or with other settings; name another file by \
         --output, or remove this one"
    );
    Ok(result)
}

#[cfg(test)]
mod tests {
    //! Tests of files that are gone on with.

    use serde_json::json;

    use super::*;

    fn keys() -> Vec<String> {
        ["a", "b", "c"].map(key).to_vec()
    }

    #[test]
    fn half_a_line_is_cut_off_and_the_rest_gone_on_with() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("out.jsonl");
        let (mut file, none) = ResultFile::open(&path, &keys()).expect("a new file");
        assert!(none.is_empty());
        file.append(&keys(), &[json!({"x": 0.1}), json!({"x": 2})])
            .expect("a writable file");
        drop(file);
        let whole = fs::read_to_string(&path).expect("a file");
        // Killed at any byte: what is whole stays, byte for byte.
        let first = whole.find('\n').expect("two lines") + 1;
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).expect("a writable folder");
            let (mut file, kept) = ResultFile::open(&path, &keys()).expect("a file of ours");
            assert_eq!(kept.len(), usize::from(end >= first), "{end}");
            let all = [json!({"x": 0.1}), json!({"x": 2})];
            file.append(&keys()[kept.len()..2], &all[kept.len()..])
                .expect("a writable file");
            assert_eq!(fs::read_to_string(&path).expect("a file"), whole);
        }
    }

    #[track_caller]
    fn refused(content: &str, part: &str) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("out.jsonl");
        fs::write(&path, content).expect("a writable folder");
        let error = ResultFile::open(&path, &keys()).expect_err("a file that is not ours");
        let message = format!("{error:#}");
        assert!(message.contains(part), "{message}");
        let kept = fs::read_to_string(&path).expect("a file");
        assert_eq!(kept, content, "it is left alone");
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        refused("春眠不觉晓\n", "line 1: not a result of this command");
        refused(
            "{\"prompt\": \"春\"}",
            "line 1: not a result of this command",
        );
        refused(
            "{\"prompt\": \"春\"}\n",
            "line 1: not a result of this command",
        );
        let line = |key: &str| format!("{BEGIN}{key}\",\"x\":1}}\n");
        let [a, b, c] = ["a", "b", "c"].map(|text| line(&key(text)));
        refused(&format!("{a}{c}"), "line 2: made of other input");
        refused(&format!("{a}{b}{c}{c}"), "line 4: made of other input");
    }

    #[test]
    fn a_file_is_written_by_one_process_at_a_time() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("out.jsonl");
        let _first = ResultFile::open(&path, &keys()).expect("a new file");
        let error = ResultFile::open(&path, &keys()).expect_err("a locked file");
        assert!(error.to_string().contains("written by another process"));
        let error = ResultFile::open(dir.path(), &keys()).expect_err("a folder");
        assert!(error.to_string().contains("is no file"));
    }

    #[test]
    fn keys_are_those_of_fnv() {
        // The published values of FNV-1a.
        assert_eq!(key(""), "cbf29ce484222325");
        assert_eq!(key("foobar"), "85944171f73967e8");
    }
}
