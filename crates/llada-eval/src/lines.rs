//! Lines of data files.

use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// Lines that are not blank, with their numbers from 1; a byte order mark is no part of them.
pub(crate) fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().enumerate();
    let lines = lines.map(|(at, line)| (at + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty())
}

/// A JSON object a line; `limit` of them at most, but all are checked.
pub(crate) fn json_lines<T: DeserializeOwned>(
    text: &str,
    limit: Option<usize>,
    what: &'static str,
) -> Result<Vec<(usize, T)>> {
    let parse = |(line, text)| {
        let value = serde_json::from_str(text).map_err(|source| Error::BadJson { line, source })?;
        Ok((line, value))
    };
    let mut lines = not_empty(numbered(text).map(parse).collect::<Result<_>>()?, what)?;
    lines.truncate(limit.unwrap_or(usize::MAX));
    Ok(lines)
}

/// Refuses a file that holds nothing.
pub(crate) fn not_empty<T>(items: Vec<T>, what: &'static str) -> Result<Vec<T>> {
    if items.is_empty() {
        return Err(Error::Empty { what });
    }
    Ok(items)
}
