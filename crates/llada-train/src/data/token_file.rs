//! Pre-tokenized files: ids one after the other, of 2 bytes if the vocabulary has at most 65,536
//! entries, else of 4, as nanoGPT's `prepare.py` writes them; or as a header says.
//!
//! They may be larger than memory: a sequence is read when it is needed, and the system's cache of
//! files keeps what is read often.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::SpecialIds;
use super::layout::Layout;
use crate::config::TokenDType;
use crate::durable::{Crc32, io};
use crate::{Error, Result};

/// Ids that are read at once where a whole file is looked through.
const CHUNK: usize = 1 << 18;
/// Places of a file that its checksum looks at, and ids at each.
const PROBES: usize = 64;
const PROBE: usize = 1 << 14;
/// Documents of which the last id is looked at.
const CHECKED_ENDS: usize = 1000;

/// A file of ids.
#[derive(Debug)]
pub(crate) struct TokenFile {
    path: PathBuf,
    file: Mutex<File>,
    layout: Layout,
    vocab_size: usize,
    special: SpecialIds,
}

impl TokenFile {
    /// # Errors
    /// [`Error::Io`]; as [`Layout::of`]; [`Error::NoEos`] if documents have no EOS.
    pub(crate) fn open(
        path: &Path,
        dtype: TokenDType,
        vocab_size: usize,
        special: SpecialIds,
    ) -> Result<Self> {
        let mut file = File::open(path).map_err(io("opening", path))?;
        let mut layout = Layout::of(path, &mut file, dtype, vocab_size)?;
        let ends = layout.ends.take();
        let begins_with_eos = layout.begins_with_eos;
        let mut opened = Self {
            path: path.to_owned(),
            file: Mutex::new(file),
            layout,
            vocab_size,
            special,
        };
        for end in ends.into_iter().flatten().take(CHECKED_ENDS) {
            if opened.read(end - 1..end)? != [special.eos_token_id] {
                let path = path.to_owned();
                return Err(Error::NoEos { path });
            }
        }
        if begins_with_eos && opened.read(0..1)? == [special.eos_token_id] {
            // From there on an EOS is between documents, as everywhere.
            opened.layout.offset += opened.layout.width as u64;
            opened.layout.len -= 1;
        }
        Ok(opened)
    }

    pub(crate) fn len(&self) -> usize {
        self.layout.len
    }

    /// Some of the ids.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::BadToken`] for an id that is none of the vocabulary, or the mask.
    pub(crate) fn read(&self, range: Range<usize>) -> Result<Vec<u32>> {
        let width = self.layout.width;
        let mut bytes = vec![0; range.len() * width];
        {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            let start = SeekFrom::Start(self.layout.offset + (range.start * width) as u64);
            file.seek(start)
                .and_then(|_| file.read_exact(&mut bytes))
                .map_err(io("reading", &self.path))?;
        }
        let ids: Vec<u32> = match width {
            2 => (bytes.as_chunks::<2>().0.iter())
                .map(|id| u32::from(u16::from_le_bytes(*id)))
                .collect(),
            4 => (bytes.as_chunks::<4>().0.iter())
                .map(|id| u32::from_le_bytes(*id))
                .collect(),
            // Negative or huge ones are no ids either.
            _ => (bytes.as_chunks::<8>().0.iter())
                .map(|id| u32::try_from(u64::from_le_bytes(*id)).unwrap_or(u32::MAX))
                .collect(),
        };
        let is_bad =
            |id: &u32| *id as usize >= self.vocab_size || *id == self.special.mask_token_id;
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
        for start in (0..self.layout.len).step_by(CHUNK) {
            let ids = self.read(start..self.layout.len.min(start + CHUNK))?;
            let is_end = |&(_, &id): &(usize, &u32)| id == eos_token_id;
            ends.extend(
                ids.iter()
                    .enumerate()
                    .filter(is_end)
                    .map(|(at, _)| start + at + 1),
            );
        }
        if ends.last() != Some(&self.layout.len) {
            ends.push(self.layout.len);
        }
        Ok(ends)
    }

    /// Checksum of the length and of what stands at some places.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn fingerprint(&self) -> Result<u32> {
        let mut crc = Crc32::new();
        crc.update(&(self.layout.len as u64).to_le_bytes());
        for probe in 0..PROBES {
            let start = self.layout.len.saturating_sub(PROBE) / (PROBES - 1) * probe;
            let ids = self.read(start..self.layout.len.min(start + PROBE))?;
            crc.update(bytemuck::cast_slice(&ids));
        }
        Ok(crc.value())
    }
}
