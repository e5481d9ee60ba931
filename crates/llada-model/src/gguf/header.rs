//! The header of a GGUF file: keys with their values, and the table of tensors.
//!
//! Every count and length is checked against the bytes that are left, and texts and arrays stay in
//! the file as ranges: what is kept is in proportion to the header's bytes, whatever its counts
//! say. Tensors must lie one after another, each aligned, as ggml's own reader requires.
//!
//! Source: `docs/gguf.md` of ggml, `gguf.cpp` of llama.cpp.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::blocks::Kind;
use super::fault;
use crate::Result;

pub(super) const MAGIC: [u8; 4] = *b"GGUF";
/// Version 3 differs from 2 only in that it may be big-endian.
const VERSIONS: [u32; 2] = [2, 3];
const DEFAULT_ALIGNMENT: usize = 32;
const MAX_DIMENSIONS: u32 = 4;
// Types of values.
pub(super) const U32: u32 = 4;
pub(super) const I32: u32 = 5;
pub(super) const F32: u32 = 6;
pub(super) const FLAG: u32 = 7;
pub(super) const TEXT: u32 = 8;
pub(super) const ARRAY: u32 = 9;

/// The value of a key.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Integer(i128),
    Real(f64),
    Flag(bool),
    /// UTF-8 bytes of the file.
    Text(Range<usize>),
    /// Bytes of the file that hold `length` values of a type.
    Array {
        kind: u32,
        length: u64,
        bytes: Range<usize>,
    },
}

/// A tensor in the file.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Rows first: the reverse of the file's order.
    pub(super) shape: Vec<usize>,
    pub(super) kind: &'static Kind,
    pub(super) bytes: Range<usize>,
    /// In which of the files of a model it is; a header knows one.
    pub(super) file: usize,
}

#[derive(Debug)]
pub(super) struct Header {
    pub(super) values: BTreeMap<String, Value>,
    pub(super) tensors: BTreeMap<String, Entry>,
}

/// Reads little-endian values one after another.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    path: &'a Path,
    /// What is being read, for messages.
    place: String,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize, path: &'a Path, place: String) -> Self {
        Self {
            bytes,
            at,
            path,
            place,
        }
    }

    fn fault(&self, got: impl Into<String>, expected: impl Into<String>) -> crate::Error {
        fault(self.path, &*self.place, got, expected)
    }

    /// The next `length` bytes.
    fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let fits = usize::try_from(length).ok().and_then(|n| rest.get(..n));
        let taken = fits.ok_or_else(|| {
            let got = format!("{length} bytes at byte {}", self.at);
            let expected = format!("at most the {} that are left (truncated?)", rest.len());
            self.fault(got, expected)
        })?;
        self.at += taken.len();
        Ok(taken)
    }

    fn word<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.take(N as u64)?;
        Ok(bytes.try_into().expect("N bytes were taken"))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.word()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.word()?))
    }

    pub(super) fn text(&mut self) -> Result<&'a str> {
        let length = self.u64()?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|_| self.fault("a text that is not UTF-8", "UTF-8"))
    }

    /// A value that is neither text nor array.
    pub(super) fn scalar(&mut self, kind: u32) -> Result<Value> {
        Ok(match kind {
            0 => Value::Integer(u8::from_le_bytes(self.word()?).into()),
            1 => Value::Integer(i8::from_le_bytes(self.word()?).into()),
            2 => Value::Integer(u16::from_le_bytes(self.word()?).into()),
            3 => Value::Integer(i16::from_le_bytes(self.word()?).into()),
            U32 => Value::Integer(self.u32()?.into()),
            I32 => Value::Integer(i32::from_le_bytes(self.word()?).into()),
            F32 => Value::Real(f32::from_le_bytes(self.word()?).into()),
            FLAG => Value::Flag(self.word::<1>()? != [0]),
            10 => Value::Integer(self.u64()?.into()),
            11 => Value::Integer(i64::from_le_bytes(self.word()?).into()),
            12 => Value::Real(f64::from_le_bytes(self.word()?)),
            _ => {
                let got = format!("a value of type {kind}");
                return Err(self.fault(got, "a type of GGUF (no arrays of arrays)"));
            }
        })
    }

    fn value(&mut self, kind: u32) -> Result<Value> {
        match kind {
            TEXT => {
                let length = self.text()?.len();
                Ok(Value::Text(self.at - length..self.at))
            }
            ARRAY => {
                let (kind, length) = (self.u32()?, self.u64()?);
                let start = self.at;
                for _ in 0..length {
                    if kind == TEXT {
                        self.text()?;
                    } else {
                        self.scalar(kind)?;
                    }
                }
                let bytes = start..self.at;
                Ok(Value::Array {
                    kind,
                    length,
                    bytes,
                })
            }
            _ => self.scalar(kind),
        }
    }
}

impl Header {
    /// Reads the header of a file; `path` is for messages.
    pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        let mut reader = Reader::new(bytes, 0, path, "header".to_owned());
        let magic: [u8; 4] = reader.word()?;
        if magic != MAGIC {
            return Err(reader.fault(format!("begins with {magic:?}"), "the letters GGUF"));
        }
        let version = reader.u32()?;
        if VERSIONS.contains(&version.swap_bytes()) {
            return Err(reader.fault("big-endian", "a little-endian file; convert it again"));
        }
        if !VERSIONS.contains(&version) {
            return Err(reader.fault(format!("version {version}"), "version 2 or 3"));
        }
        let (n_tensors, n_values) = (reader.u64()?, reader.u64()?);
        let mut values = BTreeMap::new();
        for index in 0..n_values {
            reader.place = format!("key {index} of {n_values}");
            let key = reader.text()?;
            reader.place = format!("key {key}");
            let kind = reader.u32()?;
            let value = reader.value(kind)?;
            if values.insert(key.to_owned(), value).is_some() {
                return Err(reader.fault("there twice", "each key once"));
            }
        }
        let alignment = alignment(&values, path)?;
        let tensors = read_tensors(&mut reader, n_tensors, alignment)?;
        Ok(Self { values, tensors })
    }
}

fn alignment(values: &BTreeMap<String, Value>, path: &Path) -> Result<usize> {
    match values.get("general.alignment") {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(&Value::Integer(alignment @ 1..=0x1_0000)) if alignment.count_ones() == 1 => {
            Ok(usize::try_from(alignment).expect("at most 2^16"))
        }
        Some(value) => Err(fault(
            path,
            "key general.alignment",
            value.describe(),
            "a power of two up to 65536",
        )),
    }
}

fn read_tensors(
    reader: &mut Reader<'_>,
    n_tensors: u64,
    alignment: usize,
) -> Result<BTreeMap<String, Entry>> {
    // Ranges are relative to the data until it is known where that begins.
    let mut tensors = BTreeMap::new();
    let (mut end, mut previous) = (0_usize, "the header".to_owned());
    for index in 0..n_tensors {
        reader.place = format!("tensor {index} of {n_tensors}");
        let name = reader.text()?.to_owned();
        reader.place = format!("tensor {name}");
        let n_dimensions = reader.u32()?;
        if n_dimensions > MAX_DIMENSIONS {
            return Err(reader.fault(format!("{n_dimensions} dimensions"), "at most 4"));
        }
        let mut shape = Vec::new();
        for _ in 0..n_dimensions {
            let length = reader.u64()?;
            let length = usize::try_from(length)
                .map_err(|_| reader.fault(format!("a dimension of {length}"), "a smaller one"))?;
            shape.insert(0, length);
        }
        let (kind, offset) = (reader.u32()?, reader.u64()?);
        let kind = Kind::of(kind).ok_or_else(|| {
            let (got, expected) = Kind::unknown(kind);
            reader.fault(got, expected)
        })?;
        let size = kind.size_bytes(&shape).ok_or_else(|| {
            let expected = format!("rows of whole blocks of {}", kind.format.length);
            reader.fault(format!("shape {shape:?} of {}", kind.name), expected)
        })?;
        if offset != end as u64 {
            let expected = format!("{end}, where {previous} ends");
            return Err(reader.fault(format!("offset {offset}"), expected));
        }
        let bytes = end..end.saturating_add(size);
        end = bytes.end.saturating_add(alignment - 1) & !(alignment - 1);
        let entry = Entry {
            shape,
            kind,
            bytes,
            file: 0,
        };
        previous.clone_from(&name);
        if tensors.insert(name, entry).is_some() {
            return Err(reader.fault("there twice", "each tensor once"));
        }
    }
    let start = reader.at.next_multiple_of(alignment);
    for (name, entry) in &mut tensors {
        let Range { start: from, end } = entry.bytes;
        entry.bytes = start.saturating_add(from)..start.saturating_add(end);
        if entry.bytes.end > reader.bytes.len() {
            reader.place = format!("tensor {name}");
            let got = format!("data up to byte {}", entry.bytes.end);
            let expected = format!("at most the file's {} (truncated?)", reader.bytes.len());
            return Err(reader.fault(got, expected));
        }
    }
    Ok(tensors)
}

impl Value {
    /// For messages; texts by their length, since they may be long.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Integer(value) => value.to_string(),
            Self::Real(value) => value.to_string(),
            Self::Flag(value) => value.to_string(),
            Self::Text(bytes) => format!("a text of {} bytes", bytes.len()),
            Self::Array { length, .. } => format!("an array of {length}"),
        }
    }
}
