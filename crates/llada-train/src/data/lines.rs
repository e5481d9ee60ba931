//! Data files of text: a document a line, as it is or in JSON.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use llada_files::without_bom;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::durable::io;
use crate::{Error, Result};

/// A document of a file.
pub(super) struct Document<'a> {
    /// Line number, from 1.
    pub(super) line: usize,
    pub(super) text: &'a str,
    /// Names of the fields beside the text.
    pub(super) unused: Vec<String>,
}

/// Calls `each` with every document that is not blank.
pub(super) fn for_each_document(
    path: &Path,
    mut each: impl FnMut(Document<'_>) -> Result<()>,
) -> Result<()> {
    let format = Format::of(path)?;
    if let Format::Tokens = format {
        let path = path.to_owned();
        return Err(Error::NoText { path });
    }
    for_each_line(path, |line, text| match format {
        Format::Text | Format::Tokens => each(Document {
            line,
            text,
            unused: Vec::new(),
        }),
        Format::JsonLines => {
            let what = "is not a JSON object with a string \"text\"";
            let bad = |source| bad_line(path, line, what, Some(source));
            let document: JsonDocument = serde_json::from_str(text).map_err(bad)?;
            each(Document {
                line,
                text: &document.text,
                unused: document.unused.into_keys().collect(),
            })
        }
    })
}

/// Calls `each` with number and text of every line that is not blank. A byte order mark before the
/// first is no part of it.
pub(crate) fn for_each_line(
    path: &Path,
    mut each: impl FnMut(usize, &str) -> Result<()>,
) -> Result<()> {
    let file = File::open(path).map_err(io("opening", path))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let read = reader.read_until(b'\n', &mut bytes);
        if read.map_err(io("reading", path))? == 0 {
            break;
        }
        let content = match line {
            1 => without_bom(&bytes),
            _ => &bytes,
        };
        let text = std::str::from_utf8(content).map_err(|_| {
            let is_utf_16 =
                line == 1 && (bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff"));
            let what = match is_utf_16 {
                true => "is UTF-16, not UTF-8; save the file as UTF-8",
                false => "is not UTF-8",
            };
            bad_line(path, line, what, None)
        })?;
        let text = text.trim_end_matches(['\n', '\r']);
        let is_json = path.extension().is_some_and(|end| end == "jsonl");
        if line == 1 && is_json && text.trim_start().starts_with('[') {
            let path = path.to_owned();
            return Err(Error::JsonArray { path });
        }
        if !text.trim().is_empty() {
            each(line, text)?;
        }
    }
    Ok(())
}

/// What is wrong with a line that holds the mask token.
pub(crate) const HOLDS_MASK: &str = "holds the mask token";

pub(crate) fn bad_line(
    path: &Path,
    line: usize,
    what: &'static str,
    source: Option<serde_json::Error>,
) -> Error {
    let path = path.to_owned();
    Error::BadLine {
        path,
        line,
        what,
        source,
    }
}

#[derive(Deserialize)]
struct JsonDocument {
    text: String,
    #[serde(flatten)]
    unused: BTreeMap<String, IgnoredAny>,
}

#[derive(Clone, Copy)]
pub(super) enum Format {
    Text,
    JsonLines,
    Tokens,
}

impl Format {
    pub(super) fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("txt") => Ok(Self::Text),
            Some("jsonl") => Ok(Self::JsonLines),
            Some("bin" | "npy") => Ok(Self::Tokens),
            _ => Err(Error::unknown_format(path, ".txt, .jsonl, .bin or .npy")),
        }
    }
}
