//! How ids lie in a pre-tokenized file: nanoGPT's files have nothing but ids, others a header or a
//! file beside them that says what they are.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::config::TokenDType;
use crate::durable::io;
use crate::{Error, Result};

/// Where the ids of a file are, and how wide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// Bytes of an id, which is little-endian.
    pub(super) width: usize,
    /// Bytes before the first id.
    pub(super) offset: u64,
    /// Ids.
    pub(super) len: usize,
    /// Ends of documents, if the file says so by something else than an EOS after each.
    pub(super) ends: Option<Vec<usize>>,
    /// An EOS may come before each document in place of after it.
    pub(super) begins_with_eos: bool,
}

/// First four bytes of the files of llm.c and of modded-nanogpt.
const LLM_C: [u8; 4] = 20_240_520_i32.to_le_bytes();
const LLM_C_HEADER: u64 = 1024;
/// First bytes of Megatron's `.idx`.
const MEGATRON: &[u8] = b"MMIDIDX\x00\x00";
const NUMPY: &[u8] = b"\x93NUMPY";
/// Bytes of a plain file that are looked at, at each of some places.
const PROBE: usize = 4096;
const PROBES: u64 = 8;
/// So many ids or more tell a width by their zeros.
const ENOUGH: usize = 32;

impl Layout {
    /// # Errors
    /// [`Error::NoDocuments`] if the file has no ids; [`Error::BrokenTokens`] if it ends amid an id;
    /// [`Error::TokenHeader`] if a header is wrong or says what is not supported;
    /// [`Error::TokenWidth`] if ids are of another width than `dtype` and the vocabulary say.
    pub(super) fn of(
        path: &Path,
        file: &mut File,
        dtype: TokenDType,
        vocab_size: usize,
    ) -> Result<Self> {
        let bytes = file.metadata().map_err(io("reading", path))?.len();
        let mut head = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX).min(16)];
        file.read_exact(&mut head).map_err(io("reading", path))?;
        let index = path.with_extension("idx");
        let layout = if bytes == 0 {
            None
        } else if path.extension().is_some_and(|end| end == "npy") {
            Some(numpy(path, file, &head)?)
        } else if head.starts_with(&LLM_C) {
            Some(llm_c(path, &head, bytes)?)
        } else if index.is_file() {
            Some(megatron(path, &index, bytes)?)
        } else {
            Some(plain(path, file, bytes, dtype, vocab_size)?)
        };
        let path = path.to_owned();
        let layout = layout.filter(|layout| layout.len > 0);
        let layout = layout.ok_or_else(|| Error::NoDocuments { path: path.clone() })?;
        let ids = (layout.len as u64).saturating_mul(layout.width as u64);
        let expected = ids.saturating_add(layout.offset);
        match bytes.cmp(&expected) {
            std::cmp::Ordering::Less => Err(Error::TokenHeader {
                path,
                what: format!(
                    "says {} ids, which would be {expected} bytes; the file has {bytes}",
                    layout.len
                ),
            }),
            _ => Ok(layout),
        }
    }

    fn at(offset: u64, len: usize, width: usize) -> Self {
        Self {
            width,
            offset,
            len,
            ends: None,
            begins_with_eos: false,
        }
    }
}

fn bad_header(path: &Path, what: impl Into<String>) -> Error {
    Error::TokenHeader {
        path: path.to_owned(),
        what: what.into(),
    }
}

/// Ids and nothing else.
fn plain(
    path: &Path,
    file: &mut File,
    bytes: u64,
    dtype: TokenDType,
    vocab_size: usize,
) -> Result<Layout> {
    let width = match dtype {
        TokenDType::Auto if vocab_size <= 1 << 16 => 2,
        TokenDType::Auto | TokenDType::Uint32 | TokenDType::Int32 => 4,
        TokenDType::Uint16 => 2,
        TokenDType::Int64 => 8,
    };
    if !bytes.is_multiple_of(width as u64) {
        let path = path.to_owned();
        return Err(Error::BrokenTokens { path, bytes, width });
    }
    if dtype == TokenDType::Auto {
        let probes = probes(path, file, bytes)?;
        if let Some(found) = other_width(&probes, width, vocab_size) {
            let dtype = match found {
                2 => "uint16",
                4 => "uint32",
                _ => "int64",
            };
            let path = path.to_owned();
            return Err(Error::TokenWidth {
                path,
                width,
                found,
                dtype,
                vocab_size,
            });
        }
    }
    let len = usize::try_from(bytes).unwrap_or(usize::MAX) / width;
    Ok(Layout::at(0, len, width))
}

/// What stands at some places of a file, each a multiple of 8 bytes.
fn probes(path: &Path, file: &mut File, bytes: u64) -> Result<Vec<u8>> {
    let mut found = Vec::new();
    for probe in 0..PROBES {
        let start = bytes / PROBES * probe / 8 * 8;
        let mut piece = Vec::new();
        let read = file
            .seek(SeekFrom::Start(start))
            .and_then(|_| file.take(PROBE as u64).read_to_end(&mut piece));
        read.map_err(io("reading", path))?;
        piece.truncate(piece.len() / 8 * 8);
        found.extend(piece);
    }
    Ok(found)
}

/// The width of ids that were taken for ids of `width` bytes: wider ones have zeros in their high
/// halves, and narrower ones, in pairs, are far outside of the vocabulary.
fn other_width(probes: &[u8], width: usize, vocab_size: usize) -> Option<usize> {
    let (words, _) = probes.as_chunks::<8>();
    let has_high = |from: usize| {
        words
            .iter()
            .any(|word| word[from..].iter().any(|&b| b != 0))
    };
    let second_half = |word: &[u8; 8]| word[2] != 0 || word[3] != 0 || word[6] != 0 || word[7] != 0;
    let is_enough = probes.len() >= ENOUGH * width && probes.iter().any(|&b| b != 0);
    if !is_enough {
        return None;
    }
    if width < 8 && !has_high(4) {
        return Some(8);
    }
    if width == 2 && !words.iter().any(second_half) {
        return Some(4);
    }
    let ids = words.as_flattened().as_chunks::<4>().0.iter();
    let is_outside = |id: &&[u8; 4]| u32::from_le_bytes(**id) as usize >= vocab_size;
    let n_outside = ids.filter(is_outside).count();
    (width == 4 && 2 * n_outside > probes.len() / 4).then_some(2)
}

/// `numpy.save` of a list of integers.
///
/// Source: the format's description, `numpy.lib.format`.
fn numpy(path: &Path, file: &mut File, head: &[u8]) -> Result<Layout> {
    if !head.starts_with(NUMPY) || head.len() < 12 {
        return Err(bad_header(path, "does not begin as a file of numpy.save"));
    }
    let (start, n_bytes) = match head[6] {
        1 => (10, usize::from(u16::from_le_bytes([head[8], head[9]]))),
        _ => (
            12,
            u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize,
        ),
    };
    let mut header = Vec::new();
    file.seek(SeekFrom::Start(start))
        .and_then(|_| {
            file.take(n_bytes.min(1 << 16) as u64)
                .read_to_end(&mut header)
        })
        .map_err(io("reading", path))?;
    let header = String::from_utf8_lossy(&header).into_owned();
    // A Python literal: {'descr': '<u2', 'fortran_order': False, 'shape': (12,), }
    let after = |key: &str| {
        header
            .split_once(&format!("'{key}':"))
            .map(|(_, rest)| rest.trim_start())
    };
    let descr = after("descr")
        .and_then(|rest| rest.split('\'').nth(1))
        .unwrap_or("");
    let width = match descr {
        "<u2" => 2,
        "<u4" | "<i4" => 4,
        "<i8" | "<u8" => 8,
        _ => {
            let what = format!(
                "has the type {descr:?}; ids must be uint16, uint32, int32 or int64: \
                 numpy.save(PATH, ids.astype(numpy.uint32))"
            );
            return Err(bad_header(path, what));
        }
    };
    let shape = after("shape").and_then(|rest| rest.strip_prefix('(')?.split_once(')'));
    let sizes = shape
        .map_or("", |(sizes, _)| sizes)
        .trim()
        .trim_end_matches(',');
    match sizes.parse() {
        Ok(len) => Ok(Layout::at(start + n_bytes as u64, len, width)),
        Err(_) => {
            let what = format!("has the shape ({sizes}); ids must be one list: ids.reshape(-1)");
            Err(bad_header(path, what))
        }
    }
}

/// llm.c: 256 integers, of which the first three are a magic number, a version and the number of
/// ids; an EOS before each document.
///
/// Source: `write_datafile` of `dev/data/data_common.py` in karpathy/llm.c.
fn llm_c(path: &Path, head: &[u8], bytes: u64) -> Result<Layout> {
    let word = |at: usize| {
        head.get(4 * at..4 * at + 4)
            .and_then(|word| word.try_into().ok())
    };
    let word = |at: usize| word(at).map_or(0, u32::from_le_bytes);
    let width = match word(1) {
        1 => 2,
        7 => 4,
        version => {
            let what = format!(
                "has llm.c's header with version {version}; known are 1 (ids of 2 bytes) and 7 (of 4)"
            );
            return Err(bad_header(path, what));
        }
    };
    if bytes < LLM_C_HEADER {
        return Err(bad_header(path, "ends in llm.c's header"));
    }
    let mut layout = Layout::at(LLM_C_HEADER, word(2) as usize, width);
    layout.begins_with_eos = true;
    Ok(layout)
}

/// Megatron-LM's index of a `.bin`: type, lengths of the sequences, and which make a document.
///
/// Source: `_IndexReader` of `megatron/core/datasets/indexed_dataset.py`.
fn megatron(path: &Path, index: &Path, bytes: u64) -> Result<Layout> {
    let content = fs::read(index).map_err(io("reading", index))?;
    let cut = || bad_header(index, "is cut off");
    let Some(rest) = content.strip_prefix(MEGATRON) else {
        return Err(bad_header(
            index,
            "is beside the ids and no index of Megatron-LM; move it away",
        ));
    };
    let long = |at: usize| {
        let bytes = rest.get(at..at + 8).and_then(|long| long.try_into().ok());
        bytes.map(u64::from_le_bytes).ok_or_else(cut)
    };
    if long(0)? != 1 {
        return Err(bad_header(
            index,
            format!("has version {}; known is 1", long(0)?),
        ));
    }
    let width = match rest.get(8).ok_or_else(cut)? {
        4 => 4,
        5 => 8,
        8 => 2,
        code => {
            let what =
                format!("says type {code}; ids must be of type 4 (int32), 5 (int64) or 8 (uint16)");
            return Err(bad_header(index, what));
        }
    };
    let [n_sequences, n_documents] = [long(9)?, long(17)?];
    let count = |n: u64| {
        usize::try_from(n)
            .ok()
            .filter(|n| *n <= content.len())
            .ok_or_else(cut)
    };
    let (n_sequences, n_documents) = (count(n_sequences)?, count(n_documents)?);
    let lengths = rest.get(25..25 + 4 * n_sequences).ok_or_else(cut)?;
    let mut ends = vec![0];
    for length in lengths.as_chunks::<4>().0 {
        let end = *ends.last().expect("begins with 0") + u32::from_le_bytes(*length) as usize;
        ends.push(end);
    }
    let documents = 25 + 12 * n_sequences;
    let documents = rest
        .get(documents..documents + 8 * n_documents)
        .ok_or_else(cut)?;
    let of_documents = documents.as_chunks::<8>().0.iter().map(|at| {
        let at = usize::try_from(u64::from_le_bytes(*at)).unwrap_or(usize::MAX);
        ends.get(at).copied().ok_or_else(cut)
    });
    let mut of_documents = of_documents.collect::<Result<Vec<usize>>>()?;
    of_documents.retain(|&end| end > 0);
    let len = *ends.last().expect("begins with 0");
    if bytes != (len * width) as u64 {
        let what = format!(
            "says {len} ids of {width} bytes, but {} has {bytes} bytes",
            path.display()
        );
        return Err(bad_header(index, what));
    }
    let mut layout = Layout::at(0, len, width);
    layout.ends = Some(of_documents);
    Ok(layout)
}
