//! Files with checksums.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use llada_files::NewFile;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Length and checksum of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileSum {
    /// Length in bytes.
    pub(crate) bytes: u64,
    /// CRC-32 of the content.
    pub(crate) crc32: u32,
}

/// Turns an error of the system into one that names the action and the path.
pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io {
        action,
        path,
        source,
    }
}

/// A file being written, with its checksum; it takes its place when it is finished.
pub(crate) struct SummedFile {
    file: NewFile,
    path: PathBuf,
    crc: Crc32,
    bytes: u64,
}

impl SummedFile {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        Ok(Self {
            file: NewFile::create(path).map_err(io("creating", path))?,
            path: path.to_owned(),
            crc: Crc32::new(),
            bytes: 0,
        })
    }

    pub(crate) fn write(&mut self, data: &[u8]) -> Result<()> {
        self.crc.update(data);
        self.bytes += data.len() as u64;
        self.file.write_all(data).map_err(io("writing", &self.path))
    }

    pub(crate) fn finish(self) -> Result<FileSum> {
        self.file.commit().map_err(io("writing", &self.path))?;
        Ok(FileSum {
            bytes: self.bytes,
            crc32: self.crc.value(),
        })
    }
}

/// Writes a whole file or nothing.
pub(crate) fn replace(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    llada_files::write(path, content).map_err(io("writing", path))
}

/// Length and checksum of a file on the disk.
pub(crate) fn checksum(path: &Path) -> Result<FileSum> {
    let mut file = File::open(path).map_err(io("opening", path))?;
    let mut buffer = vec![0; 1 << 20];
    let (mut crc, mut bytes) = (Crc32::new(), 0);
    loop {
        match file.read(&mut buffer).map_err(io("reading", path))? {
            0 => {
                return Ok(FileSum {
                    bytes,
                    crc32: crc.value(),
                });
            }
            n => {
                crc.update(&buffer[..n]);
                bytes += n as u64;
            }
        }
    }
}

/// CRC-32 as in zlib and PNG, eight bytes at a time.
///
/// Source: Kounavis and Berry 2005, "A systematic approach to building high performance,
/// software-based, CRC generators" (slicing-by-8).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crc32(u32);

impl Crc32 {
    pub(crate) fn new() -> Self {
        Self(!0)
    }

    pub(crate) fn value(self) -> u32 {
        !self.0
    }

    pub(crate) fn update(&mut self, data: &[u8]) {
        let (blocks, rest) = data.as_chunks::<8>();
        let mut crc = self.0;
        for block in blocks {
            let word = u64::from_le_bytes(*block) ^ u64::from(crc);
            crc = 0;
            for (byte, table) in word.to_le_bytes().iter().zip(CRC_TABLES.iter().rev()) {
                crc ^= table[usize::from(*byte)];
            }
        }
        for &byte in rest {
            let [low, ..] = crc.to_le_bytes();
            crc = (crc >> 8) ^ CRC_TABLES[0][usize::from(low ^ byte)];
        }
        self.0 = crc;
    }
}

/// `CRC_TABLES[k][b]`: the checksum of byte `b` followed by `k` zero bytes.
static CRC_TABLES: [[u32; 256]; 8] = crc_tables();

const fn crc_tables() -> [[u32; 256]; 8] {
    let mut tables = [[0_u32; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0xEDB8_8320
            } else {
                crc >> 1
            };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut k = 1;
    while k < 8 {
        let mut byte = 0;
        while byte < 256 {
            let crc = tables[k - 1][byte];
            tables[k][byte] = (crc >> 8) ^ tables[0][(crc & 0xFF) as usize];
            byte += 1;
        }
        k += 1;
    }
    tables
}

#[cfg(test)]
mod tests;
