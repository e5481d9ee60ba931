//! One file from the Hub into the cache.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use indicatif::ProgressBar;
use sha1::Sha1;
use sha2::digest::DynDigest;
use sha2::{Digest as _, Sha256};
use ureq::http::StatusCode;

use super::cache::{Repo, create_parent, suffixed};
use super::client::{Client, Entry, text_of};
use super::retry::{Failure, Retries};

const BUFFER_BYTES: usize = 1 << 17;
const AGAIN: &str = "run the same command again to go on";

/// Brings a blob into the cache; goes on with what an earlier call left.
///
/// # Errors
/// One that names the file. What has come is kept, unless it is wrong.
pub(super) fn fetch(
    client: &Client<'_>,
    repo: &Repo,
    entry: &Entry,
    mut retries: Retries,
    bar: &ProgressBar,
) -> Result<()> {
    let Entry { name, size, .. } = entry;
    let blob = repo.blob(&entry.etag);
    let _lock = repo.lock(&entry.etag, || {
        let text = format!("{name}: another process downloads it, waiting for that");
        bar.suspend(|| crate::output::note(&text));
    })?;
    let start = bar.position();
    if !blob.exists() {
        let mut partial = Partial::open(&suffixed(&blob, ".incomplete"), entry)?;
        bar.set_position(start + partial.len);
        bar.reset_eta();
        let mut most = partial.len;
        while let Err(failure) = stream(client, entry, &mut partial, &|len| {
            bar.set_position(start + len);
        }) {
            if partial.len > most {
                most = partial.len;
                retries.reset();
            }
            let kept = || format!("{} of {size} bytes are there, {AGAIN}", partial.len);
            retries.pause(match failure {
                Failure::Passing(error) => Failure::Passing(error.context(kept())),
                lasting => lasting,
            })?;
        }
        partial.finish(&blob, entry)?;
    }
    bar.set_position(start + size);
    Ok(())
}

/// Appends what is missing; on success the length is right.
fn stream(
    client: &Client<'_>,
    entry: &Entry,
    partial: &mut Partial,
    progress: &dyn Fn(u64),
) -> Result<(), Failure> {
    let size = entry.size;
    if partial.len == size {
        return Ok(());
    }
    let mut response = client.bytes(entry, partial.len)?;
    match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let range = text_of(&response, "content-range")?.unwrap_or_default();
            let expected = format!("bytes {}-{}/{size}", partial.len, size - 1);
            if range != expected {
                let error = anyhow!("the server sends {range:?}, expected {expected:?}");
                return Err(error.into());
            }
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            partial.restart()?;
            return Err(Failure::Passing(anyhow!("the server has fewer bytes")));
        }
        // The range was ignored: all bytes come again.
        _ => partial.restart()?,
    }
    let missing = size - partial.len;
    if let Some(length) = response.body().content_length()
        && length != missing
    {
        let error = anyhow!("the server announces {length} bytes, expected {missing}");
        return Err(error.into());
    }
    let mut reader = response.body_mut().as_reader();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let bytes = match reader.read(&mut buffer) {
            Ok(n) => &buffer[..n],
            Err(error) => {
                let error = anyhow!(error).context("the connection broke");
                return Err(Failure::Passing(error));
            }
        };
        if bytes.is_empty() {
            break;
        }
        if bytes.len() as u64 > size - partial.len {
            partial.remove()?;
            return Err(anyhow!("the server sends more than the {size} bytes of the file").into());
        }
        partial.append(bytes)?;
        progress(partial.len);
    }
    if partial.len < size {
        return Err(Failure::Passing(anyhow!("the connection ended early")));
    }
    Ok(())
}

/// The beginning of a blob, with its checksum.
struct Partial {
    path: PathBuf,
    file: File,
    /// In bytes.
    len: u64,
    hasher: Box<dyn DynDigest>,
    /// The hasher of no bytes.
    fresh: Box<dyn DynDigest>,
}

impl Partial {
    fn open(path: &Path, entry: &Entry) -> Result<Self> {
        let opened = create_parent(path).and_then(|()| {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            options.open(path)
        });
        let file = opened.with_context(|| format!("writing {}", path.display()))?;
        let fresh = hasher(entry);
        let mut partial = Self {
            path: path.to_owned(),
            len: 0,
            hasher: fresh.clone(),
            fresh,
            file,
        };
        let read = partial.read(entry.size);
        read.with_context(|| format!("reading {}", path.display()))?;
        Ok(partial)
    }

    /// Takes up what is there, if it is not too much.
    fn read(&mut self, size: u64) -> io::Result<()> {
        let len = self.file.metadata()?.len();
        if len > size {
            return self.file.set_len(0);
        }
        let mut buffer = vec![0; BUFFER_BYTES];
        while self.len < len {
            let n = self.file.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            self.hasher.update(&buffer[..n]);
            self.len += n as u64;
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .with_context(|| format!("writing {}; {AGAIN}", self.path.display()))?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self) -> Result<()> {
        if self.len > 0 {
            let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
            emptied.with_context(|| format!("emptying {}", self.path.display()))?;
            self.len = 0;
            self.hasher = self.fresh.clone();
        }
        Ok(())
    }

    fn remove(&self) -> Result<()> {
        let removed = fs::remove_file(&self.path);
        removed.with_context(|| format!("removing {}", self.path.display()))
    }

    /// Makes a blob of it, if the checksum is right.
    fn finish(self, blob: &Path, entry: &Entry) -> Result<()> {
        let (expected, got) = (&entry.etag, hex(&self.hasher.clone().finalize()));
        if got != *expected {
            self.remove()?;
            anyhow::bail!(
                "its checksum is wrong, expected {expected}, got {got}; what came is removed"
            );
        }
        let moved = llada_files::move_synced(&self.file, &self.path, blob);
        moved.with_context(|| format!("writing {}; {AGAIN}", blob.display()))
    }
}

/// The checksum that the length of an `ETag` tells: SHA-256, or as git names a file, SHA-1 of
/// `blob`, the size and the bytes.
fn hasher(entry: &Entry) -> Box<dyn DynDigest> {
    match entry.etag.len() {
        64 => Box::new(Sha256::new()),
        _ => Box::new(Sha1::new_with_prefix(format!("blob {}\0", entry.size))),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
