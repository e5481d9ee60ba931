//! Files that are either old or new, never half written: temporary sibling, sync, rename.
#![forbid(unsafe_code)]

pub mod looks_like;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The content of a file without the byte order mark with which some editors begin UTF-8.
#[must_use]
pub fn without_bom(content: &[u8]) -> &[u8] {
    content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content)
}

/// The text in a file, without a byte order mark.
///
/// # Errors
/// If it cannot be read or is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    let content = fs::read(path)?;
    let text = String::from_utf8(without_bom(&content).to_vec());
    text.map_err(|error| io::Error::new(ErrorKind::InvalidData, error.utf8_error()))
}

/// How the names of temporary siblings begin; the name of the target follows.
const TEMPORARY: &str = ".llada-tmp-";

/// A file that is being written beside its target and takes its place by [`NewFile::commit`]; if it
/// is dropped before, the target stays as it is.
///
/// What is there and is no file (a device, a pipe) is written to, not replaced. What a process that
/// was killed has left of a file is overwritten when the file is written again; two processes must
/// not write the same file at once.
#[derive(Debug)]
pub struct NewFile {
    file: BufWriter<File>,
    target: PathBuf,
    /// Where it is written until it is whole.
    sibling: Option<PathBuf>,
}

impl NewFile {
    /// Begins a file that will replace the one at `target`, with the permissions of any new file.
    ///
    /// # Errors
    /// If no file can be made in the folder of `target`.
    pub fn create(target: &Path) -> io::Result<Self> {
        let is_replaced = target.is_file() || !target.exists();
        let sibling = is_replaced.then(|| {
            let mut name = OsString::from(TEMPORARY);
            name.push(target.file_name().unwrap_or_default());
            target.with_file_name(name)
        });
        let file = File::create(sibling.as_deref().unwrap_or(target))?;
        Ok(Self {
            file: BufWriter::with_capacity(1 << 20, file),
            target: target.to_owned(),
            sibling,
        })
    }

    /// Puts the file into its place, once its content is on the disk.
    ///
    /// # Errors
    /// If not all could be written, such as on a full disk; the target is then as it was.
    pub fn commit(mut self) -> io::Result<()> {
        self.file.flush()?;
        if let Some(sibling) = &self.sibling {
            move_synced(self.file.get_ref(), sibling, &self.target)?;
            self.sibling = None;
        }
        Ok(())
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // The failure before is the one to report, and a leftover harms nobody.
        let _ = self.sibling.as_ref().map(fs::remove_file);
    }
}

/// Writes a whole file or nothing.
///
/// # Errors
/// As [`NewFile::create`] and [`NewFile::commit`].
pub fn write(path: &Path, content: impl AsRef<[u8]>) -> io::Result<()> {
    let mut file = NewFile::create(path)?;
    file.write_all(content.as_ref())?;
    file.commit()
}

/// Renames a file that was written beside its target, once its content is on the disk.
///
/// # Errors
/// If the file cannot be synced or renamed, or its folder not synced.
pub fn move_synced(file: &File, from: &Path, to: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(from, to)?;
    sync_folder(folder_of(to))
}

/// Waits until the names in a folder are on the disk.
///
/// # Errors
/// If the folder cannot be opened or synced.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    // Only Unix can open a folder to sync it, and not every file system can sync one; elsewhere a
    // rename is as durable as it gets.
    match cfg!(unix).then(|| File::open(path)?.sync_all()) {
        Some(Err(error)) if error.kind() != ErrorKind::InvalidInput => Err(error),
        _ => Ok(()),
    }
}

/// Removes what processes that were killed were writing in a folder. No other may write there.
///
/// # Errors
/// If the folder cannot be read, or a file not removed.
pub fn remove_leftovers(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|path| !path.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests;
