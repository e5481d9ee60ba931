//! Writes a checkpoint in another type: f32, bf16, or integers with scales; or as a GGUF file.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use llada_files::remove_leftovers;
use llada_tensor::quantize::{RowCodes, dequantize_row, groups, padded, quantize_rows};
use llada_tensor::{DType, Device, Precision};
use safetensors::tensor::Dtype;
use serde_json::json;

use crate::companions::carry_along;
use crate::config::is_of_router;
use crate::family::places::{FileTensor, file_tensors, n_rows};
use crate::files::{INDEX, Part, SINGLE, encode, stored_dtype, write_file, write_safetensors};
use crate::quantized::{MULTIPLIER, SCALE, pack_nibbles, set_config};
use crate::stored::Stored;
use crate::{Error, Family, ModelConfig, ModelSource, Origin, Result};

pub use crate::gguf::convert_to_gguf;

/// Bytes of a shard, if it has more than one tensor; twice as many are in memory while it is written.
const SHARD_BYTES: usize = 1 << 30;
/// Values that are wide at once.
const CHUNK: usize = 1 << 22;
/// Of so many rows one is compared with its source.
const COMPARED: usize = 16;

/// What a conversion did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// Bytes of the weights that were read.
    pub source_bytes: u64,
    /// Bytes of the weights that were written.
    pub bytes: u64,
    /// Files of weights.
    pub files: usize,
    /// Root of the mean squared error of the matrices, relative to that of their values: over
    /// every 16th row; 0 unless they became integers.
    pub relative_error: f64,
}

/// Converts a model into the folder `target` in the HF layout: weights, and `config.json` last, so
/// that a conversion that was interrupted leaves nothing that looks like a model. What else a reader
/// of a folder needs, such as the tokenizer, is copied (see [`carry_along`]); of a GGUF file that is
/// up to the caller.
///
/// To integers, the matrices are quantised as [`ModelSource::frozen`] does it, so that loading the
/// result gives the same model, and sooner. The embedding stays in bf16, and biases and norms as
/// they are.
///
/// `progress` is told the tensors that are done, and of how many.
///
/// # Errors
/// As [`ModelSource::frozen`]; [`Error::Exists`] if the folder holds a model.
pub fn convert(
    source: &ModelSource,
    target: &Path,
    precision: Precision,
    device: &Device,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Report> {
    if target.join("config.json").exists() {
        let path = target.to_owned();
        return Err(Error::Exists { path });
    }
    let (mut config, tensors) = (source.config().clone(), source.tensors()?);
    config.check()?;
    fs::create_dir_all(target).map_err(Error::io("creating", target))?;
    // Of an interrupted conversion.
    remove_leftovers(target).map_err(Error::io("cleaning", target))?;
    match source.origin() {
        Origin::Folder { path, .. } => {
            carry_along(Some(path), target, &mut config)?;
        }
        Origin::Gguf(_) | Origin::Memory(_) if config.family == Family::Llada => {
            say_architecture(&mut config);
        }
        Origin::Gguf(_) | Origin::Memory(_) => {}
    }
    // A GGUF file has names of its own.
    let (names, files) = (config.parameter_shapes(), file_tensors(&config));
    let shards = plan(&names, &files, precision);
    let mut report = Report {
        source_bytes: 0,
        bytes: 0,
        files: shards.len(),
        relative_error: 0.0,
    };
    let (mut index, mut squares, mut done) = (BTreeMap::new(), [0.0; 2], 0);
    for (at, shard) in shards.iter().enumerate() {
        let file = match shards.len() {
            1 => SINGLE.to_owned(),
            n => format!("model-{:05}-of-{n:05}.safetensors", at + 1),
        };
        let mut parts = Vec::new();
        for at in shard.clone() {
            let file = &files[at];
            let of = Converted {
                file,
                parameter: &names[file.parts[0].0].0,
                tensors: &tensors,
            };
            report.source_bytes += of.source_bytes();
            parts.extend(of.convert(precision, device, &mut squares)?);
            done += 1;
            progress(done, files.len());
        }
        for part in &parts {
            report.bytes += part.data.len() as u64;
            index.insert(part.name.clone(), file.clone());
        }
        write_safetensors(&target.join(file), &parts)?;
    }
    if shards.len() > 1 {
        let fields = json!({
            "metadata": { "total_size": report.bytes },
            "weight_map": index,
        });
        write_file(&target.join(INDEX), fields.to_string().as_bytes())?;
    }
    if squares[1] > 0.0 {
        report.relative_error = (squares[0] / squares[1]).sqrt();
    }
    set_config(&mut config.other, precision);
    write_file(&target.join("config.json"), config.to_json().as_bytes())?;
    Ok(report)
}

/// Whether a tensor becomes integers: the matrices but for the embedding, of which rows are taken,
/// and for routers.
fn becomes_integers(parameter: &str, shape: &[usize], precision: Precision) -> bool {
    let is_kept = parameter == "model.transformer.wte.weight" || is_of_router(parameter);
    precision.is_integer() && shape.len() == 2 && !is_kept
}

/// Consecutive tensors for each file.
fn plan(
    names: &[(String, Vec<usize>)],
    files: &[FileTensor],
    precision: Precision,
) -> Vec<Range<usize>> {
    let (mut shards, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (at, file) in files.iter().enumerate() {
        let numel: usize = file.shape.iter().product();
        let of_tensor = match precision {
            Precision::F32 => 4 * numel,
            _ if !becomes_integers(&names[file.parts[0].0].0, &file.shape, precision) => 2 * numel,
            Precision::Int4 => numel * 9 / 16,
            _ => numel,
        };
        if bytes > 0 && bytes + of_tensor > SHARD_BYTES {
            shards.push(start..at);
            (start, bytes) = (at, 0);
        }
        bytes += of_tensor;
    }
    shards.push(start..files.len());
    shards
}

/// A tensor of the files and where its values come from.
struct Converted<'a> {
    file: &'a FileTensor,
    /// The first of the parameters that it holds; all are alike.
    parameter: &'a str,
    tensors: &'a [Stored<'a>],
}

impl Converted<'_> {
    fn source_bytes(&self) -> u64 {
        let bytes = |(at, rows): &(usize, Range<usize>)| {
            let tensor = &self.tensors[*at];
            tensor.bytes() * rows.len() as u64 / tensor.rows().max(1) as u64
        };
        self.file.parts.iter().map(bytes).sum()
    }

    /// The values of some rows.
    fn fill(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let width = out.len() / rows.len().max(1);
        let mut first = 0;
        for (at, of_part) in &self.file.parts {
            let (start, end) = (rows.start.max(first), rows.end.min(first + of_part.len()));
            if start < end {
                let tensor = &self.tensors[*at];
                let of = of_part.start + start - first..of_part.start + end - first;
                let out = &mut out[(start - rows.start) * width..(end - rows.start) * width];
                tensor.expect_finite(tensor.fill_once(of, out))?;
            }
            first += of_part.len();
        }
        Ok(())
    }

    /// The tensors that it becomes; adds the squared errors and the squares of the rows that are
    /// compared.
    fn convert(
        &self,
        precision: Precision,
        device: &Device,
        squares: &mut [f64; 2],
    ) -> Result<Vec<Part>> {
        let (name, shape) = (&self.file.name, &self.file.shape);
        let (n, numel) = (n_rows(shape), shape.iter().product::<usize>());
        let k = numel / n.max(1);
        let chunk = (CHUNK / k.max(1)).clamp(1, n.max(1));
        let mut values = vec![0.0; chunk * k];
        let mut parts = Parts::default();
        let becomes_integers = becomes_integers(self.parameter, shape, precision);
        let is_bf16 = self
            .file
            .parts
            .iter()
            .all(|(at, _)| self.tensors[*at].is_bf16);
        let is_kept = is_of_router(self.parameter) || (precision.is_integer() && shape.len() < 2);
        let is_f32 = precision == Precision::F32 || (is_kept && !is_bf16);
        let dtype = if is_f32 { DType::F32 } else { DType::Bf16 };
        for start in (0..n).step_by(chunk) {
            let rows = start..(start + chunk).min(n);
            let values = &mut values[..rows.len() * k];
            self.fill(rows.clone(), values)?;
            if becomes_integers {
                parts.quantize(values, [rows.len(), k], precision, device, squares)?;
            } else {
                parts.data.extend(encode(values, dtype));
            }
        }
        let part = |end: &str, dtype, shape: &[usize], data| Part {
            name: format!("{name}{end}"),
            dtype,
            shape: shape.to_vec(),
            data,
        };
        let (width, groups) = (padded(k), groups(precision, k));
        let data = parts.data;
        if !becomes_integers {
            return Ok(vec![part("", stored_dtype(dtype), shape, data)]);
        }
        let scales = part(SCALE, Dtype::F32, &[n], parts.scales);
        if precision == Precision::Int8 {
            return Ok(vec![part("", Dtype::I8, &[n, width], data), scales]);
        }
        let codes = part("", Dtype::U8, &[n, width / 2], data);
        let multipliers = part(MULTIPLIER, Dtype::I8, &[n, groups], parts.multipliers);
        Ok(vec![codes, multipliers, scales])
    }
}

/// The bytes of what a tensor becomes.
#[derive(Default)]
struct Parts {
    data: Vec<u8>,
    multipliers: Vec<u8>,
    scales: Vec<u8>,
}

impl Parts {
    /// Adds the codes of some rows.
    fn quantize(
        &mut self,
        values: &[f32],
        [rows, k]: [usize; 2],
        precision: Precision,
        device: &Device,
        squares: &mut [f64; 2],
    ) -> Result<()> {
        let (width, groups) = (padded(k), groups(precision, k));
        let mut codes = vec![0; rows * width];
        let mut multipliers = vec![0; rows * groups];
        let mut scales = vec![0.0; rows];
        let out = RowCodes {
            codes: &mut codes,
            multipliers: &mut multipliers,
            scales: &mut scales,
        };
        quantize_rows(device, precision, values, k, out)?;
        let mut row = vec![0.0; k];
        for at in (0..rows).step_by(COMPARED) {
            let (codes, multipliers) = (&codes[at * width..], &multipliers[at * groups..]);
            let multipliers = &multipliers[..groups];
            dequantize_row(codes, multipliers, scales[at], &mut row);
            for (x, w) in row.iter().zip(&values[at * k..]) {
                squares[0] += f64::from(x - w).powi(2);
                squares[1] += f64::from(*w).powi(2);
            }
        }
        match precision {
            Precision::Int4 => self.data.extend(pack_nibbles(&codes)),
            _ => self.data.extend(bytemuck::cast_slice::<i8, u8>(&codes)),
        }
        let multipliers = bytemuck::cast_slice::<i8, u8>(&multipliers);
        self.multipliers.extend(multipliers);
        self.scales.extend(encode(&scales, DType::F32));
        Ok(())
    }
}

/// Adds the fields that say what this implementation computes: the reference's own defaults are
/// those of another architecture.
fn say_architecture(config: &mut ModelConfig) {
    let fields = json!({
        "activation_type": "silu",
        "alibi": false,
        "attention_dropout": 0.0,
        "attention_layer_norm": false,
        "block_group_size": 1,
        "block_type": "llama",
        "embedding_dropout": 0.0,
        "flash_attention": false,
        "input_emb_norm": false,
        "layer_norm_type": "rms",
        "layer_norm_with_affine": true,
        "residual_dropout": 0.0,
        "rope": true,
        "rope_full_precision": true,
        "scale_logits": false,
    });
    for (field, value) in fields.as_object().into_iter().flatten() {
        config.other.entry(field).or_insert_with(|| value.clone());
    }
}
