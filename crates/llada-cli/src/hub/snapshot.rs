//! What a model needs of a revision: from the cache, and what is missing from the Hub.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};

use super::RepoId;
use super::cache::{ADAPTER, INDEX, Repo};
use super::client::{Client, Revision, Sibling};
use super::config::HubConfig;
use super::download;
use super::retry::{Failure, Retries, retrying};

/// The files that a model may need, beside `*.safetensors`.
const FILES: [&str; 8] = [
    ADAPTER,
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    INDEX,
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

/// The folder of a snapshot with all files that a model needs.
///
/// # Errors
/// One that says what is missing, and how to get it.
pub(super) fn fetch(id: &RepoId, config: &HubConfig) -> Result<PathBuf> {
    let repo = Repo::new(&config.cache, id);
    let cached = || repo.cached(&id.revision);
    if config.offline {
        return cached().with_context(|| {
            format!("{id} is no folder here, and HF_HUB_OFFLINE is set: only the cache is used")
        });
    }
    let endpoint = &config.endpoint;
    let look_up = || {
        let client = Client::new(config)?;
        let revision = client.revision(id)?;
        Ok((client, revision))
    };
    let (client, Revision { sha, siblings }) = match look_up() {
        Ok(found) => found,
        Err(Failure::Lasting(error)) => {
            let context = format!("{id} is no folder here, and {endpoint} does not give it");
            return Err(error.context(context));
        }
        Err(Failure::Passing(error)) => {
            let problem = format!("{endpoint} cannot be reached ({error:#})");
            let dir = cached().with_context(|| format!("{id} is no folder here, and {problem}"))?;
            crate::output::note(&format!("warning: {problem}, {id} is taken from the cache"));
            return Ok(dir);
        }
    };
    let dir = repo.snapshot(&sha);
    let mut missing = needed(&siblings).with_context(|| format!("{id} of {endpoint}"))?;
    missing.retain(|name| !dir.join(name).is_file());
    if !missing.is_empty() {
        download(id, &sha, &missing, &client, &repo, config)?;
    }
    repo.write_reference(&id.revision, &sha)?;
    Ok(dir)
}

fn download(
    id: &RepoId,
    commit: &str,
    names: &BTreeSet<&str>,
    client: &Client<'_>,
    repo: &Repo,
    config: &HubConfig,
) -> Result<()> {
    let failed = |name: &str| format!("downloading {name} of {id}");
    let mut entries = Vec::new();
    for name in names {
        let entry = retrying(config.backoff, || client.entry(id, commit, name));
        entries.push(entry.with_context(|| failed(name))?);
    }
    let style = "{msg} {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
    let style = ProgressStyle::with_template(style).unwrap_or(ProgressStyle::default_bar());
    let bar = ProgressBar::new(entries.iter().map(|entry| entry.size).sum()).with_style(style);
    let downloaded = entries.iter().try_for_each(|entry| {
        bar.set_message(entry.name.clone());
        let retries = Retries::new(config.backoff);
        let fetched = download::fetch(client, repo, entry, retries, &bar);
        fetched.with_context(|| failed(&entry.name))?;
        repo.link(commit, &entry.name, &entry.etag)
    });
    bar.finish_and_clear();
    downloaded
}

/// The files that a model needs of those that a server lists.
///
/// # Errors
/// If the list would lead out of the snapshot's folder, or holds no model.
fn needed(siblings: &[Sibling]) -> Result<BTreeSet<&str>> {
    let mut names = BTreeSet::new();
    for Sibling { rfilename: name } in siblings {
        let is_parent = name.split(['/', '\\']).any(|part| part == "..");
        if is_parent || name.starts_with(['/', '\\']) {
            anyhow::bail!("the file name {name:?} leads out of the cache: nothing is downloaded");
        }
        if FILES.contains(&&**name) || is_safetensors(name) {
            names.insert(&**name);
        }
    }
    anyhow::ensure!(
        ["config.json", ADAPTER]
            .iter()
            .any(|name| names.contains(name))
            && names.iter().any(|name| is_safetensors(name)),
        "there is no model in it, which has config.json and *.safetensors, and no adapter, which has \
         {ADAPTER} and *.safetensors"
    );
    Ok(names)
}

/// Whether a name is that of a safetensors file in no subfolder.
fn is_safetensors(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c);
    name.ends_with(".safetensors") && !name.starts_with('.') && name.chars().all(allowed)
}

#[cfg(test)]
mod tests;
