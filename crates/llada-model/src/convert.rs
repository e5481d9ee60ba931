//! Writes a checkpoint in another type: f32, bf16, or integers with scales.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use llada_files::remove_leftovers;
use llada_tensor::quantize::{RowCodes, dequantize_row, groups, padded, quantize_rows};
use llada_tensor::{DType, Device, Precision};
use safetensors::tensor::Dtype;
use serde_json::json;

use crate::files::{INDEX, Part, SINGLE, encode, stored_dtype, write_file, write_safetensors};
use crate::quantized::{MULTIPLIER, SCALE, pack_nibbles, set_config};
use crate::stored::Stored;
use crate::{Error, ModelSource, Result};

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
/// that a conversion that was interrupted leaves nothing that looks like a model. Other small files
/// of a folder, such as the tokenizer, are copied; those of a GGUF file are up to the caller.
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
    if let ModelSource::Folder { path, .. } = source {
        copy_others(path, target)?;
    }
    let shards = plan(&tensors, precision);
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
        for tensor in &tensors[shard.clone()] {
            report.source_bytes += tensor.bytes();
            parts.extend(converted(tensor, precision, device, &mut squares)?);
            done += 1;
            progress(done, tensors.len());
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

/// Whether a tensor becomes integers: the matrices but for the embedding, of which rows are taken.
fn becomes_integers(tensor: &Stored<'_>, precision: Precision) -> bool {
    let is_embedding = tensor.name == "model.transformer.wte.weight";
    precision.is_integer() && tensor.shape.len() == 2 && !is_embedding
}

/// Consecutive tensors for each file.
fn plan(tensors: &[Stored<'_>], precision: Precision) -> Vec<Range<usize>> {
    let (mut shards, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (at, tensor) in tensors.iter().enumerate() {
        let numel: usize = tensor.shape.iter().product();
        let of_tensor = match precision {
            Precision::F32 => 4 * numel,
            _ if !becomes_integers(tensor, precision) => 2 * numel,
            Precision::Int4 => numel * 9 / 16,
            _ => numel,
        };
        if bytes > 0 && bytes + of_tensor > SHARD_BYTES {
            shards.push(start..at);
            (start, bytes) = (at, 0);
        }
        bytes += of_tensor;
    }
    shards.push(start..tensors.len());
    shards
}

/// The tensors that one tensor becomes; adds the squared errors and the squares of the rows that
/// are compared.
fn converted(
    tensor: &Stored<'_>,
    precision: Precision,
    device: &Device,
    squares: &mut [f64; 2],
) -> Result<Vec<Part>> {
    let (n, numel) = (tensor.rows(), tensor.shape.iter().product::<usize>());
    let k = numel / n.max(1);
    let chunk = (CHUNK / k.max(1)).clamp(1, n.max(1));
    let mut values = vec![0.0; chunk * k];
    let mut parts = Parts::default();
    let is_f32 = precision == Precision::F32
        || (precision.is_integer() && !tensor.is_bf16 && tensor.shape.len() < 2);
    let dtype = if is_f32 { DType::F32 } else { DType::Bf16 };
    for start in (0..n).step_by(chunk) {
        let rows = start..(start + chunk).min(n);
        let values = &mut values[..rows.len() * k];
        tensor.expect_finite(tensor.fill_once(rows.clone(), values))?;
        if becomes_integers(tensor, precision) {
            parts.quantize(values, [rows.len(), k], precision, device, squares)?;
        } else {
            parts.data.extend(encode(values, dtype));
        }
    }
    let part = |end: &str, dtype, shape: &[usize], data| Part {
        name: format!("{}{end}", tensor.name),
        dtype,
        shape: shape.to_vec(),
        data,
    };
    let (width, groups) = (padded(k), groups(precision, k));
    let data = parts.data;
    if !becomes_integers(tensor, precision) {
        return Ok(vec![part("", stored_dtype(dtype), &tensor.shape, data)]);
    }
    let scales = part(SCALE, Dtype::F32, &[n], parts.scales);
    if precision == Precision::Int8 {
        return Ok(vec![part("", Dtype::I8, &[n, width], data), scales]);
    }
    let codes = part("", Dtype::U8, &[n, width / 2], data);
    let multipliers = part(MULTIPLIER, Dtype::I8, &[n, groups], parts.multipliers);
    Ok(vec![codes, multipliers, scales])
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

/// Copies the files that are neither weights nor the configuration.
fn copy_others(source: &Path, target: &Path) -> Result<()> {
    for entry in fs::read_dir(source).map_err(Error::io("reading", source))? {
        let path = entry.map_err(Error::io("reading", source))?.path();
        let name = path.file_name().unwrap_or_default();
        let end = path.extension().unwrap_or_default();
        let mut texts = ["json", "jinja", "txt", "model", "md"].iter();
        let is_text = texts.any(|x| end == *x);
        let is_ours = name == "config.json" || name == INDEX;
        if path.is_file() && is_text && !is_ours {
            let to = target.join(name);
            fs::copy(&path, &to).map_err(Error::io("writing", &to))?;
        }
    }
    Ok(())
}
