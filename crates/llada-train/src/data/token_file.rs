//! Pre-tokenized files: ids one after the other and nothing else, little-endian, of 2 bytes if the
//! vocabulary has at most 65,536 entries, else of 4, as nanoGPT's `prepare.py` writes them.
//!
//! They may be larger than memory: a sequence is read when it is needed, and the system's cache of
//! files keeps what is read often.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::SpecialIds;
use crate::durable::{Crc32, io};
use crate::{Error, Result};

/// Ids that are read at once where a whole file is looked through.
const CHUNK: usize = 1 << 18;
/// Places of a file that its checksum looks at, and ids at each.
const PROBES: usize = 64;
const PROBE: usize = 1 << 14;

/// A file of ids.
#[derive(Debug)]
pub(crate) struct TokenFile {
    path: PathBuf,
    file: Mutex<File>,
    /// Bytes of an id.
    width: usize,
    /// Ids in the file.
    len: usize,
    vocab_size: usize,
    mask_token_id: u32,
}

impl TokenFile {
    /// # Errors
    /// [`Error::Io`]; [`Error::NoDocuments`] if it is empty; [`Error::BrokenTokens`] if it ends
    /// amid an id.
    pub(crate) fn open(path: &Path, vocab_size: usize, special: SpecialIds) -> Result<Self> {
        let file = File::open(path).map_err(io("opening", path))?;
        let bytes = file.metadata().map_err(io("reading", path))?.len();
        let width = if vocab_size <= 1 << 16 { 2 } else { 4 };
        let path = path.to_owned();
        if bytes == 0 {
            return Err(Error::NoDocuments { path });
        }
        if bytes % width as u64 != 0 {
            return Err(Error::BrokenTokens { path, bytes, width });
        }
        Ok(Self {
            path,
            file: Mutex::new(file),
            width,
            len: usize::try_from(bytes).unwrap_or(usize::MAX) / width,
            vocab_size,
            mask_token_id: special.mask_token_id,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Some of the ids.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::BadToken`] for an id that is none of the vocabulary, or the mask.
    pub(crate) fn read(&self, range: Range<usize>) -> Result<Vec<u32>> {
        let mut bytes = vec![0; range.len() * self.width];
        {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            let start = SeekFrom::Start((range.start * self.width) as u64);
            file.seek(start)
                .and_then(|_| file.read_exact(&mut bytes))
                .map_err(io("reading", &self.path))?;
        }
        let ids: Vec<u32> = match self.width {
            2 => (bytes.chunks_exact(2))
                .map(|id| u32::from(u16::from_le_bytes([id[0], id[1]])))
                .collect(),
            _ => (bytes.chunks_exact(4))
                .map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]]))
                .collect(),
        };
        let is_bad = |id: &u32| *id as usize >= self.vocab_size || *id == self.mask_token_id;
        match ids.iter().position(is_bad) {
            None => Ok(ids),
            Some(at) => Err(Error::BadToken {
                path: self.path.clone(),
                index: range.start + at,
                id: ids[at],
                vocab_size: self.vocab_size,
            }),
        }
    }

    /// Ends of documents, each behind its EOS, and of what follows the last one.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn document_ends(&self, eos_token_id: u32) -> Result<Vec<usize>> {
        let mut ends = Vec::new();
        for start in (0..self.len).step_by(CHUNK) {
            let ids = self.read(start..self.len.min(start + CHUNK))?;
            let is_end = |&(_, &id): &(usize, &u32)| id == eos_token_id;
            ends.extend(
                ids.iter()
                    .enumerate()
                    .filter(is_end)
                    .map(|(at, _)| start + at + 1),
            );
        }
        if ends.last() != Some(&self.len) {
            ends.push(self.len);
        }
        Ok(ends)
    }

    /// Checksum of the length and of what stands at some places.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn fingerprint(&self) -> Result<u32> {
        let mut crc = Crc32::new();
        crc.update(&(self.len as u64).to_le_bytes());
        for probe in 0..PROBES {
            let start = self.len.saturating_sub(PROBE) / (PROBES - 1) * probe;
            let ids = self.read(start..self.len.min(start + PROBE))?;
            crc.update(bytemuck::cast_slice(&ids));
        }
        Ok(crc.value())
    }
}
