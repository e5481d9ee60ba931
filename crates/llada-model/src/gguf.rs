//! GGUF files of the architectures `llada`, `llada-moe` and `dream`, as llama.cpp's converter writes
//! them.
//!
//! A file holds the configuration, the vocabulary and the weights. Names differ from the HF layout,
//! the experts of a layer are one tensor, and of `llada` the rows of `attn_q` and `attn_k` are in the
//! order of llama.cpp's interleaved rotary embedding. All of it is undone here, so the model is the
//! one that was converted, up to the rounding of its quantised weights.
//!
//! Source: `conversion/llada.py` and `src/llama-model.cpp` of llama.cpp.

mod architecture;
mod blocks;
mod encode;
mod header;
mod keys;
mod shards;
mod table;
mod write;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use llada_tensor::{Device, Precision};
use memmap2::Mmap;

use architecture::Architecture;
pub use encode::GgufType;
use header::Entry;
use keys::Keys;
pub(crate) use table::MappedTable;
pub use write::{GgufValue, convert_to_gguf};

use crate::family::places::n_rows;
use crate::stored::{Fill, ReadBlocks, Stored};
use crate::{Error, ModelConfig, OpenOptions, Result};

/// A GGUF file, or the files that one was split into, mapped: the headers are checked, the weights
/// are read when they are asked for.
#[derive(Debug)]
pub struct Gguf {
    keys: Keys,
    /// The files behind the first, of a model that was split.
    others: Vec<shards::File>,
    config: ModelConfig,
}

impl Gguf {
    /// Opens a file and checks its header: it describes a model that is supported, and holds the
    /// tensors of that model and no others. Any of the files of a model that was split
    /// (`NAME-00001-of-00003.gguf`) stands for all of them.
    ///
    /// # Errors
    /// One that names the file and the key or tensor.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, OpenOptions::default())
    }

    /// As [`Self::open`], with what the file does not say.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(path: &Path, options: OpenOptions) -> Result<Self> {
        let (keys, others) = shards::open(path)?;
        let config = keys.config(options)?;
        keys.check_tensors(&config)?;
        Ok(Self {
            keys,
            others,
            config,
        })
    }

    /// The configuration, with the fields of `config.json`.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The file; of several, the first.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.keys.path
    }

    /// How many tensors there are of each type, by its name.
    #[must_use]
    pub fn tensor_types(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for entry in self.keys.header.tensors.values() {
            *counts.entry(entry.kind.name).or_default() += 1;
        }
        counts
    }

    /// The tensors of the model, in the order of [`ModelConfig::parameter_shapes`] and with the
    /// rows in the order of the HF layout.
    pub(crate) fn tensors(&self) -> Result<Vec<Stored<'_>>> {
        let shapes = self.config.parameter_shapes().into_iter();
        shapes.map(|(name, _)| self.tensor(&name)).collect()
    }

    /// The embedding, if it is quantised: to be read row by row, for products of a precision.
    pub(crate) fn embedding(&self, precision: Precision) -> Option<MappedTable> {
        let entry = self.keys.header.tensors.get("token_embd.weight")?;
        entry.kind.is_quantized().then(|| MappedTable {
            map: Arc::clone(self.file(entry).1),
            bytes: entry.bytes.clone(),
            kind: entry.kind,
            width: self.config.d_model,
            is_rounded: !matches!(precision, Precision::F32 | Precision::Blocks),
        })
    }

    /// Whether matrices lie in blocks.
    pub(crate) fn has_blocks(&self) -> bool {
        self.matrices_in_blocks().next().is_some()
    }

    fn matrices_in_blocks(&self) -> impl Iterator<Item = &Entry> {
        let entries = self.keys.header.tensors.values();
        entries.filter(|entry| entry.kind.is_quantized() && entry.shape.len() > 1)
    }

    /// The precision for who has no wish. A model that is computed in f32 by its size is. A larger one
    /// is multiplied by the integers of its blocks, if all have some and the device keeps them; else in
    /// the most exact precision whose weights take little more room than the file.
    pub(crate) fn default_precision(&self, device: &Device) -> Precision {
        let usual = self.config.default_precision();
        if usual == Precision::F32 {
            return usual;
        }
        let has_integers = |entry: &Entry| entry.kind.format.integers.is_some();
        let keeps_blocks = self.has_blocks() && device.backend().keeps_blocks();
        if keeps_blocks && self.matrices_in_blocks().all(has_integers) {
            return Precision::Blocks;
        }
        let entries = self.keys.header.tensors.values();
        let in_file: usize = entries.map(|entry| entry.bytes.len()).sum();
        let has_table = self.embedding(usual).is_none();
        precision_for(&self.config, usual, in_file, has_table)
    }

    /// About how many bytes the weights take in memory: blocks no more than in the file.
    pub(crate) fn frozen_bytes(&self, precision: Precision) -> usize {
        if precision.is_integer() {
            let has_table = self.embedding(precision).is_none();
            return self.config.frozen_bytes(precision, has_table);
        }
        let each = if precision == Precision::F32 { 4 } else { 2 };
        let bytes = |entry: &Entry| match entry.kind.is_quantized() {
            true => entry.bytes.len(),
            false => each * entry.shape.iter().product::<usize>(),
        };
        self.keys.header.tensors.values().map(bytes).sum()
    }

    /// Path and bytes of the file that holds a tensor.
    fn file(&self, entry: &Entry) -> (&Path, &Arc<Mmap>) {
        match entry.file.checked_sub(1) {
            None => (&self.keys.path, &self.keys.map),
            Some(at) => (&self.others[at].path, &self.others[at].map),
        }
    }

    fn tensor(&self, parameter: &str) -> Result<Stored<'_>> {
        let name = tensor_name(parameter);
        let keys = &self.keys;
        let Some(entry) = keys.header.tensors.get(&name) else {
            let path = keys.path.clone();
            return Err(Error::MissingTensor {
                name,
                path,
                hint: String::new(),
            });
        };
        let Entry {
            shape, kind, bytes, ..
        } = entry;
        let (path, map) = self.file(entry);
        let (kind, is_vector) = (*kind, shape.len() < 2);
        let row = shape.last().copied().filter(|_| !is_vector).unwrap_or(1);
        let data = &map[bytes.clone()];
        let rotated = is_rotated(&self.config, parameter);
        let head_dim = self.config.head_dim();
        let n_rows = n_rows(shape);
        let read_blocks: ReadBlocks<'_> = Box::new(move |rows, out| {
            let (all, n) = (
                kind.bytes_of(rows.start * row, rows.len() * row),
                rows.len(),
            );
            if !rotated {
                return out.copy_from_slice(&data[all]);
            }
            for (at, out) in rows.zip(out.chunks_exact_mut(all.len() / n.max(1))) {
                let from = interleaved_row(at, head_dim) * row;
                out.copy_from_slice(&data[kind.bytes_of(from, row)]);
            }
        });
        let fill: Fill<'_> = Box::new(move |rows, out| {
            let read = |start: usize, n: usize, out: &mut [f32]| {
                kind.values(&data[kind.bytes_of(start * row, n * row)], out);
            };
            if !rotated {
                return read(rows.start, rows.len(), out);
            }
            if is_vector {
                // A block may hold the values of several rows.
                let mut all = vec![0.0; n_rows];
                kind.values(data, &mut all);
                for (at, out) in rows.zip(out) {
                    *out = all[interleaved_row(at, head_dim)];
                }
                return;
            }
            for (at, out) in rows.zip(out.chunks_exact_mut(row)) {
                read(interleaved_row(at, head_dim), 1, out);
            }
        });
        Ok(Stored {
            name,
            path,
            shape: shape.clone(),
            is_bf16: kind.is_bf16(),
            fill,
            codes: None,
            blocks: (kind.is_quantized() && !is_vector).then_some((kind.format, read_blocks)),
            range: Some((map, bytes.clone())),
        })
    }

    /// The values of one parameter, by its name in [`ModelConfig::parameter_shapes`], in the order
    /// of the HF layout.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], with the name in the file.
    pub fn values(&self, parameter: &str) -> Result<Vec<f32>> {
        let tensor = self.tensor(parameter)?;
        let mut values = vec![0.0; tensor.shape.iter().product()];
        (tensor.fill)(0..tensor.rows(), &mut values);
        Ok(values)
    }

    /// The text of a key, if the file has the key.
    ///
    /// # Errors
    /// [`Error::Gguf`] if its value is no text.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.keys.text(key)
    }

    /// The number of a key, if the file has the key.
    ///
    /// # Errors
    /// [`Error::Gguf`] if its value is no number from 0 to 2^28.
    pub fn number(&self, key: &str) -> Result<Option<u32>> {
        self.keys.number(key)
    }

    /// The texts of a key's array.
    ///
    /// # Errors
    /// [`Error::Gguf`] if the key is missing or its value is no array of texts.
    pub fn texts(&self, key: &str) -> Result<Vec<&str>> {
        self.keys.texts(key)
    }

    /// The numbers of a key's array.
    ///
    /// # Errors
    /// [`Error::Gguf`] if the key is missing or its value is no array of numbers from 0 to 2^28.
    pub fn numbers(&self, key: &str) -> Result<Vec<u32>> {
        self.keys.numbers(key)
    }

    /// The error about a key that the file lacks.
    #[must_use]
    pub fn missing(&self, key: &str) -> Error {
        self.keys.missing(key)
    }
}

/// The most exact of `usual`, int8 and int4 whose weights take little more room than `in_file` bytes,
/// with an embedding in memory or without; int4 if none does.
fn precision_for(
    config: &ModelConfig,
    usual: Precision,
    in_file: usize,
    has_table: bool,
) -> Precision {
    // A seventh, since what a process needs beside the weights shall fit into a quarter.
    let fits =
        |&precision: &Precision| config.frozen_bytes(precision, has_table) <= in_file + in_file / 7;
    let exact = [usual, Precision::Int8].into_iter().find(fits);
    exact.unwrap_or(Precision::Int4)
}

/// An error about a part of a file.
fn fault(
    path: &Path,
    place: impl Into<String>,
    got: impl Into<String>,
    expected: impl Into<String>,
) -> Error {
    Error::Gguf {
        path: path.to_owned(),
        place: place.into(),
        got: got.into(),
        expected: expected.into(),
    }
}

/// Whether the rows of a parameter are in llama.cpp's order of an interleaved rotary embedding.
fn is_rotated(config: &ModelConfig, parameter: &str) -> bool {
    let is_turned = parameter.contains(".q_proj.") || parameter.contains(".k_proj.");
    is_turned && Architecture::of(config.family).is_some_and(|of| of.is_interleaved)
}

/// The name in a GGUF file of a parameter of [`ModelConfig::parameter_shapes`].
fn tensor_name(parameter: &str) -> String {
    let name = parameter.strip_prefix("model.transformer.");
    let name = name.unwrap_or(parameter);
    let (layer, part) = match name.strip_prefix("blocks.").and_then(|n| n.split_once('.')) {
        Some((layer, part)) => (Some(layer), part),
        None => (None, name),
    };
    let (part, end) = part.rsplit_once('.').unwrap_or((part, ""));
    let part = match (layer, part) {
        (None, "wte") => "token_embd",
        (None, "ln_f") => "output_norm",
        (None, "ff_out") => "output",
        (_, "q_proj") => "attn_q",
        (_, "k_proj") => "attn_k",
        (_, "v_proj") => "attn_v",
        (_, "q_norm") => "attn_q_norm",
        (_, "k_norm") => "attn_k_norm",
        (_, "attn_out") => "attn_output",
        (_, "ff_norm") => "ffn_norm",
        (_, "ff_proj") => "ffn_gate",
        (_, "up_proj") => "ffn_up",
        (_, "ff_out") => "ffn_down",
        (_, "experts.ff_proj") => "ffn_gate_exps",
        (_, "experts.up_proj") => "ffn_up_exps",
        (_, "experts.ff_out") => "ffn_down_exps",
        (_, "shared_expert.ff_proj") => "ffn_gate_shexp",
        (_, "shared_expert.up_proj") => "ffn_up_shexp",
        (_, "shared_expert.ff_out") => "ffn_down_shexp",
        (_, "router") if end == "bias" => "exp_probs_b",
        (_, "router") => "ffn_gate_inp",
        (_, other) => other,
    };
    match layer {
        Some(layer) => format!("blk.{layer}.{part}.{end}"),
        None => format!("{part}.{end}"),
    }
}

/// The row in llama.cpp's order of a row in the reference's: the rotary embedding turns the rows
/// `(i, i + E/2)` of a head together there, and `(2i, 2i + 1)` here.
fn interleaved_row(row: usize, head_dim: usize) -> usize {
    let (head, at) = (row / head_dim, row % head_dim);
    let (half, i) = (at / (head_dim / 2), at % (head_dim / 2));
    head * head_dim + 2 * i + half
}

#[cfg(test)]
mod tests;
