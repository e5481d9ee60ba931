//! The cache on disk, in the layout of `huggingface_hub`:
//!
//! ```text
//! models--ORG--NAME/refs/REV                      the commit that a branch or tag meant last
//! models--ORG--NAME/blobs/ETAG                    contents
//! models--ORG--NAME/blobs/ETAG.incomplete         what is there of one
//! models--ORG--NAME/snapshots/COMMIT/FILE  ->  ../../blobs/ETAG
//! .locks/models--ORG--NAME/ETAG.lock              held by who writes the blob
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::RepoId;

/// The configuration of an adapter.
pub(super) const ADAPTER: &str = "adapter_config.json";
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// The folders of one repo.
pub(super) struct Repo {
    dir: PathBuf,
    locks: PathBuf,
}

impl Repo {
    pub(super) fn new(cache: &Path, id: &RepoId) -> Self {
        let folder = format!("models--{}--{}", id.org, id.name);
        Self {
            locks: cache.join(".locks").join(&folder),
            dir: cache.join(folder),
        }
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.dir.join("snapshots").join(commit)
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.dir.join("blobs").join(etag)
    }

    /// A complete snapshot of a revision, without asking the Hub.
    ///
    /// # Errors
    /// One that says what is missing.
    pub(super) fn cached(&self, revision: &str) -> Result<PathBuf> {
        let commit = match fs::read_to_string(self.reference(revision)) {
            Ok(commit) => commit.trim().to_owned(),
            Err(_) => revision.to_owned(),
        };
        let dir = self.snapshot(&commit);
        anyhow::ensure!(
            is_commit(&commit) && dir.is_dir(),
            "revision {revision} is not in the cache, {}",
            self.dir.display()
        );
        let is_adapter = dir.join(ADAPTER).is_file() && !dir.join("config.json").is_file();
        let needed = match is_adapter {
            true => vec!["adapter_model.safetensors".to_owned()],
            false => {
                let first = ["config.json", "tokenizer.json"].map(str::to_owned);
                first.into_iter().chain(weights(&dir)?).collect()
            }
        };
        for name in needed {
            anyhow::ensure!(dir.join(&name).is_file(), "{} lacks {name}", dir.display());
        }
        Ok(dir)
    }

    /// Notes which commit a branch or tag means.
    pub(super) fn write_reference(&self, revision: &str, commit: &str) -> Result<()> {
        let path = self.reference(revision);
        if revision == commit || fs::read_to_string(&path).is_ok_and(|known| known == commit) {
            return Ok(());
        }
        let written = create_parent(&path).and_then(|()| {
            let beside = suffixed(&path, &format!(".{}.tmp", std::process::id()));
            fs::write(&beside, commit)?;
            fs::rename(beside, &path)
        });
        written.with_context(|| format!("writing {}", path.display()))
    }

    /// Puts a blob into a snapshot.
    pub(super) fn link(&self, commit: &str, name: &str, etag: &str) -> Result<()> {
        let path = self.snapshot(commit).join(name);
        let linked = create_parent(&path).and_then(|()| {
            // Whatever is there points to nothing.
            if path.symlink_metadata().is_ok() {
                fs::remove_file(&path)?;
            }
            let target = Path::new("../../blobs").join(etag);
            match symlink(&target, &path) {
                Err(_) if path.is_file() => Ok(()),
                Err(_) => {
                    let beside = suffixed(&path, ".incomplete");
                    fs::copy(self.blob(etag), &beside)?;
                    fs::rename(beside, &path)
                }
                linked => linked,
            }
        });
        linked.with_context(|| format!("writing {}", path.display()))
    }

    /// Keeps other processes from writing the blob; `wait` is called if one does.
    ///
    /// A file system without locks gives none: the checksum still finds what two writers mixed up.
    pub(super) fn lock(&self, etag: &str, wait: impl FnOnce()) -> Result<File> {
        let path = self.locks.join(format!("{etag}.lock"));
        let file = create_parent(&path).and_then(|()| File::create(&path));
        let file = file.with_context(|| format!("writing {}", path.display()))?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            wait();
            let locked = file.lock();
            locked.with_context(|| format!("locking {}", path.display()))?;
        }
        Ok(file)
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.dir.join("refs").join(revision)
    }
}

/// The names of the weights that a snapshot must have.
fn weights(dir: &Path) -> Result<BTreeSet<String>> {
    let path = dir.join(INDEX);
    if !path.is_file() {
        return Ok(BTreeSet::from(["model.safetensors".to_owned()]));
    }
    let read = || -> Result<BTreeSet<String>> {
        let index: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
        let files = index["weight_map"].as_object().into_iter().flatten();
        let files = files.filter_map(|(_, file)| file.as_str());
        Ok(files.map(str::to_owned).collect())
    };
    read().with_context(|| format!("reading {}", path.display()))
}

/// Whether a text is a full commit hash, and so safe as a folder's name.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hex(text)
}

/// Whether a text has only the digits of a hash.
pub(super) fn is_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Makes the folder that a file will lie in.
pub(super) fn create_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// The path of a file beside `path`.
pub(super) fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(unix)]
fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(windows)]
fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, path)
}

#[cfg(test)]
mod tests;
