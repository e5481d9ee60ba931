//! What stands in the source files: module docs, reasons, no token ids.

use super::{File, GENERATED, Offence};

/// Token ids of the published LLaDA models: mask, end of text, end of turn.
const TOKEN_IDS: &[&str] = &["126336", "126081", "126348"];

/// A folder or file of this name may hold token ids: they are configuration or tests.
const MAY_HOLD_TOKEN_IDS: &[&str] = &[
    "config", "configs", "preset", "presets", "tests", "examples", "goldens",
];

pub(super) fn check(files: &[File]) -> Vec<Offence> {
    let mut offences = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        let text = file.text.as_deref().unwrap_or_default();
        if text.starts_with(GENERATED) {
            continue;
        }
        if needs_module_doc(&file.path) && !text.starts_with("//!") {
            let fix = "begin it with a `//!` line that says what it is for";
            offences.push(Offence::new(&file.path, "no module doc", fix));
        }
        for line in allows_without_reason(text) {
            let path = format!("{}:{line}", file.path);
            let fix = "write `#[expect(.., reason = \"..\")]`";
            offences.push(Offence::new(
                path,
                "a lint is allowed without a reason",
                fix,
            ));
        }
        if in_src_of_a_crate(&file.path) && !may_hold_token_ids(&file.path) {
            for (line, id) in token_ids(text) {
                let path = format!("{}:{line}", file.path);
                let wrong = format!("the token id {id} is written out");
                offences.push(Offence::new(path, wrong, "read it from the model's config"));
            }
        }
    }
    offences
}

/// A `tests.rs` tests the module that it stands beside, and need not say so.
fn needs_module_doc(path: &str) -> bool {
    let in_package = in_src_of_a_crate(path) || path.starts_with("xtask/src/");
    in_package && !path.ends_with("/tests.rs")
}

fn in_src_of_a_crate(path: &str) -> bool {
    path.strip_prefix("crates/")
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(_, inside)| inside.starts_with("src/"))
}

fn may_hold_token_ids(path: &str) -> bool {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    path.split('/')
        .any(|part| MAY_HOLD_TOKEN_IDS.contains(&part))
}

/// Numbers of the lines on which an `allow` attribute without a reason begins.
fn allows_without_reason(text: &str) -> Vec<usize> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let line = line.trim_start();
        if !line.starts_with("#[allow(") && !line.starts_with("#![allow(") {
            continue;
        }
        // The attribute ends with the first line that holds a closing bracket.
        let end = lines[at..]
            .iter()
            .position(|line| line.contains(")]"))
            .unwrap_or(0);
        if !lines[at..=at + end]
            .iter()
            .any(|line| line.contains("reason ="))
        {
            found.push(at + 1);
        }
    }
    found
}

/// Line numbers and ids of the token ids outside comments.
fn token_ids(text: &str) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for number in code.split(|c: char| !c.is_ascii_digit() && c != '_') {
            let digits = number.replace('_', "");
            if let Some(id) = TOKEN_IDS.iter().find(|id| **id == digits) {
                found.push((at + 1, *id));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
