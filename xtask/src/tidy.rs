//! `cargo xtask tidy`: the rules of the house that no compiler checks.
//!
//! Every rule is a pure function from data to offences; this file gathers the data.

mod files;
mod layers;
mod licenses;
mod manifests;
mod parity;
mod sources;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use crate::metadata::{Metadata, Reach};

/// One breach of one rule; printed as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offence {
    path: String,
    wrong: String,
    fix: String,
}

impl Offence {
    fn new(path: impl Into<String>, wrong: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            wrong: wrong.into(),
            fix: fix.into(),
        }
    }
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.path, self.wrong, self.fix)
    }
}

/// A file of the repository.
#[derive(Debug, Default)]
struct File {
    /// Relative to the workspace, with forward slashes.
    path: String,
    bytes: u64,
    /// Only of source and documentation files.
    text: Option<String>,
}

#[derive(Debug, Default)]
struct Report {
    offences: Vec<Offence>,
    warnings: Vec<Offence>,
}

pub(crate) fn run(sh: &Shell, args: &[String]) -> Result<()> {
    let reach = match args {
        [] => Reach::AllPlatforms,
        [flag] if flag == "--offline" => Reach::ThisPlatform,
        _ => anyhow::bail!("tidy: takes --offline or nothing, got {args:?}"),
    };
    let report = check(sh, reach)?;
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    for offence in &report.offences {
        eprintln!("{offence}");
    }
    anyhow::ensure!(
        report.offences.is_empty(),
        "tidy: {} offences",
        report.offences.len()
    );
    Ok(())
}

fn check(sh: &Shell, reach: Reach) -> Result<Report> {
    let metadata = Metadata::load(sh, reach)?;
    let files = repository_files(sh)?;
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let offences = [
        layers::check(&metadata.members),
        manifests::check(&metadata.members),
        licenses::check(&metadata.third_party),
        files::check(&files),
        sources::check(&files),
        parity::check(&paths, parity::EXCEPTIONS),
    ];
    Ok(Report {
        offences: offences.concat(),
        warnings: files::warnings(&files),
    })
}

/// The files that git knows or would add; without a git checkout, those of the folder.
fn repository_files(sh: &Shell) -> Result<Vec<File>> {
    let root = sh.current_dir();
    let listed = cmd!(sh, "git ls-files -z --cached --others --exclude-standard")
        .quiet()
        .ignore_stderr()
        .read();
    let mut paths = match listed {
        Ok(listed) => listed
            .split('\0')
            .filter(|path| !path.is_empty())
            .map(Into::into)
            .collect(),
        Err(_) => walk(&root)?,
    };
    paths.sort();
    paths.dedup();
    let mut files = Vec::new();
    for path in paths {
        let full = root.join(&path);
        // Git also lists what is deleted but not yet committed.
        let Ok(stat) = full.symlink_metadata() else {
            continue;
        };
        if stat.is_file() {
            files.push(read_file(&full, &path, stat.len())?);
        }
    }
    Ok(files)
}

fn read_file(full: &Path, path: &Path, bytes: u64) -> Result<File> {
    let is_text = path
        .extension()
        .is_some_and(|ext| files::TEXT.iter().any(|text| ext == *text));
    let text = if is_text {
        Some(std::fs::read_to_string(full).with_context(|| format!("reading {}", path.display()))?)
    } else {
        None
    };
    Ok(File {
        path: path.to_string_lossy().replace('\\', "/"),
        bytes,
        text,
    })
}

/// All files under `root`, but for the ignored folders at its top.
fn walk(root: &Path) -> Result<Vec<PathBuf>> {
    let ignored = [".git", "target", "data", "runs"].map(|name| root.join(name));
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            if ignored.contains(&path) {
                continue;
            } else if entry.file_type()?.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(root)?.to_owned());
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
