//! `events.out.tfevents.llada`: the metrics as `TensorBoard` reads them.
//!
//! A file is a list of records: the length of the data in 8 bytes, a checksum of these, the data,
//! and a checksum of the data, all little-endian. The data are a protocol buffer, `Event`: a time, a
//! step, and a `Summary` of named numbers. It is written here by hand, since these few fields have
//! not changed since `TensorFlow` 1.
//!
//! Source: `tensorflow/core/lib/io/record_writer.h`, `event.proto` and `summary.proto`.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::durable::io;
use crate::{MetricsLine, Result};

/// Name of the file; `TensorBoard` looks for `tfevents` in it.
pub(crate) const FILE: &str = "events.out.tfevents.llada";
const VERSION: &str = "brain.Event:2";

/// The file of a run, open to go on.
#[derive(Debug)]
pub(crate) struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// Opens the file of a run folder after `step`: events of later steps, and one that a crash cut,
    /// are taken off. A new file begins with `lines`; `now` is the time of the last of them, in
    /// seconds since 1970.
    pub(crate) fn open(folder: &Path, step: u64, lines: &[MetricsLine], now: f64) -> Result<Self> {
        let path = folder.join(FILE);
        let content = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            other => other.map_err(io("reading", &path))?,
        };
        let kept = kept(&content, step);
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(io("opening", &path))?;
        file.set_len(kept as u64).map_err(io("writing", &path))?;
        let mut events = Self { path, file };
        if kept == 0 {
            let seconds = |line: &MetricsLine| line.seconds;
            let last = lines.last().map_or(0.0, seconds);
            let began = lines.first().map_or(now, |line| now - last + line.seconds);
            events.write(&event(began, None, &text_field(3, VERSION.as_bytes())))?;
            for line in lines {
                events.push(line, now - last + line.seconds)?;
            }
        }
        Ok(events)
    }

    /// Adds a line of the metrics, written at `time`, in seconds since 1970.
    pub(crate) fn push(&mut self, line: &MetricsLine, time: f64) -> Result<()> {
        let values = [
            ("train/loss", Some(line.loss)),
            ("train/learning_rate", Some(line.lr)),
            ("train/grad_norm", Some(line.grad_norm)),
            ("train/tokens_per_second", Some(line.tokens_per_second)),
            ("validation/bound", line.validation_bound),
        ];
        let mut summary = Vec::new();
        for (tag, value) in values {
            let Some(value) = value else { continue };
            let mut scalar = text_field(1, tag.as_bytes());
            scalar.push(2 << 3 | 5);
            scalar.extend((value as f32).to_le_bytes());
            summary.extend(text_field(1, &scalar));
        }
        self.write(&event(time, Some(line.step), &text_field(5, &summary)))
    }

    fn write(&mut self, event: &[u8]) -> Result<()> {
        let written = self.file.write_all(&record(event));
        written.map_err(io("writing", &self.path))
    }
}

/// Bytes of the whole records up to `step`.
fn kept(content: &[u8], step: u64) -> usize {
    let mut end = 0;
    while let Some((event, next)) = next_record(content, end) {
        if step_of(event).is_some_and(|at| at > step) {
            break;
        }
        end = next;
    }
    end
}

/// The data of the record at `begin`, and where it ends; none if it is not whole.
fn next_record(content: &[u8], begin: usize) -> Option<(&[u8], usize)> {
    let rest = content.get(begin..)?;
    let (length, rest) = rest.split_first_chunk::<8>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    if masked_crc(length) != u32::from_le_bytes(*sum) {
        return None;
    }
    let n = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (event, rest) = rest.split_at_checked(n)?;
    let (sum, _) = rest.split_first_chunk::<4>()?;
    (masked_crc(event) == u32::from_le_bytes(*sum)).then_some((event, begin + 16 + n))
}

/// The step of an event of ours, which stands after its time.
fn step_of(event: &[u8]) -> Option<u64> {
    let rest = event.get(9..)?.strip_prefix(&[2 << 3])?;
    let mut step = 0;
    for (at, byte) in rest.iter().enumerate().take(10) {
        step |= u64::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Some(step);
        }
    }
    None
}

/// An `Event` with one more field.
fn event(time: f64, step: Option<u64>, field: &[u8]) -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend(time.to_le_bytes());
    if let Some(step) = step {
        event.push(2 << 3);
        event.extend(varint(step));
    }
    event.extend(field);
    event
}

/// A field of a protocol buffer that has a text or a message.
fn text_field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    field.extend(varint(content.len() as u64));
    field.extend(content);
    field
}

fn varint(mut n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (n & 0x7F) as u8;
        n >>= 7;
        if n == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

fn record(event: &[u8]) -> Vec<u8> {
    let length = (event.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(event);
    record.extend(masked_crc(event).to_le_bytes());
    record
}

/// CRC-32C, turned so that a checksum of checksums is no trap.
fn masked_crc(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in data {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82F6_3B78 * (crc & 1));
        }
    }
    (!crc).rotate_right(15).wrapping_add(0xA282_EAD8)
}

#[cfg(test)]
mod tests;
