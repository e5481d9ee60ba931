//! Models by name: `--model ORG/NAME[@REV]`, from the Hugging Face Hub or its cache.

#[cfg(feature = "hub")]
mod cache;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod config;
#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod retry;
#[cfg(feature = "hub")]
mod snapshot;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result};

/// The folder of a model: `model` itself, or the snapshot of the repo that it names.
///
/// # Errors
/// If the repo can neither be downloaded nor found in the cache.
pub(crate) fn resolve(model: &Path) -> Result<PathBuf> {
    let name = model.to_str().filter(|text| may_be_id(text));
    let Some(name) = name.filter(|_| !model.exists()) else {
        return Ok(model.to_owned());
    };
    let id = name.parse::<RepoId>();
    fetch(&id.with_context(|| {
        format!("{name} is no folder here, and not ORG/NAME[@REV] of the Hugging Face Hub either")
    })?)
}

#[cfg(feature = "hub")]
fn fetch(id: &RepoId) -> Result<PathBuf> {
    snapshot::fetch(id, &config::HubConfig::from_env())
}

#[cfg(not(feature = "hub"))]
fn fetch(id: &RepoId) -> Result<PathBuf> {
    anyhow::bail!(
        "{id} is no folder here, and the Hugging Face Hub is not built in: build llada with the \
         feature hub, or give a folder"
    )
}

/// Whether a text that names no file is meant for the Hub: `ORG/NAME`, then `@REV` or nothing; not
/// what is plainly the path of a folder or a file.
pub(crate) fn may_be_id(text: &str) -> bool {
    let repo = text.split_once('@').map_or(text, |(repo, _)| repo);
    let is_file = [".gguf", ".safetensors", ".json", ".bin"]
        .iter()
        .any(|end| repo.to_ascii_lowercase().ends_with(end));
    !text.starts_with(['.', '/', '~'])
        && repo.matches('/').count() == 1
        && !repo.ends_with('/')
        && !repo.contains('\\')
        && !is_file
}

/// A revision of a repo on the Hub.
#[derive(Debug, PartialEq, Eq)]
struct RepoId {
    org: String,
    name: String,
    /// A branch, a tag or a commit.
    revision: String,
}

impl FromStr for RepoId {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (repo, revision) = text.split_once('@').unwrap_or((text, "main"));
        let (org, name) = repo.split_once('/').context("a / is missing")?;
        for part in [org, name] {
            anyhow::ensure!(
                is_repo_name(part),
                "{part:?} is not made of letters, digits, -, _ and ., or has -- or .. in it"
            );
        }
        anyhow::ensure!(
            is_revision(revision),
            "{revision:?} is no branch, tag or commit"
        );
        let [org, name, revision] = [org, name, revision].map(str::to_owned);
        Ok(Self {
            org,
            name,
            revision,
        })
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.org, self.name)?;
        match self.revision.as_str() {
            "main" => Ok(()),
            revision => write!(f, "@{revision}"),
        }
    }
}

/// The rules of the Hub, which also keep the name inside the folder of the cache.
fn is_repo_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c);
    (1..=96).contains(&name.len())
        && name.chars().all(allowed)
        && !name.starts_with(['-', '.'])
        && !name.ends_with(['-', '.'])
        && !name.contains("--")
        && !name.contains("..")
}

/// Most of git's rules; they keep the name inside `refs`.
fn is_revision(revision: &str) -> bool {
    let allowed = |c: char| !c.is_control() && !c.is_whitespace() && !['\\', ':'].contains(&c);
    revision.chars().all(allowed)
        && revision
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.'))
}

#[cfg(test)]
mod tests;
