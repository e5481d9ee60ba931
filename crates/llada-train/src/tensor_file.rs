//! Safetensors files: written in one pass with a checksum, read whole.

use std::fs;
use std::path::Path;

use llada_tensor::{Device, Tensor, bf16};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use crate::durable::{SyncedFile, io};
use crate::{Error, ExportDType, Result};

/// Writes named `f32` tensors, rounded to `dtype`.
pub(crate) fn write_tensors<'a>(
    file: &mut SyncedFile,
    tensors: impl Iterator<Item = (String, &'a Tensor)> + Clone,
    dtype: ExportDType,
) -> Result<()> {
    file.write(&header(tensors.clone(), dtype))?;
    for (_, tensor) in tensors {
        let values = &tensor.to_vec_f32()?;
        match dtype {
            ExportDType::F32 => file.write(bytemuck::cast_slice(values))?,
            ExportDType::Bf16 => {
                for values in values.chunks(1 << 16) {
                    let rounded: Vec<bf16> = values.iter().map(|&x| bf16::from_f32(x)).collect();
                    file.write(bytemuck::cast_slice(&rounded))?;
                }
            }
        }
    }
    Ok(())
}

/// Length of the JSON as 8 bytes, then the JSON, padded with spaces so that the data are aligned.
fn header<'a>(tensors: impl Iterator<Item = (String, &'a Tensor)>, dtype: ExportDType) -> Vec<u8> {
    let (name_of_dtype, size) = match dtype {
        ExportDType::F32 => ("F32", 4),
        ExportDType::Bf16 => ("BF16", 2),
    };
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut begin = 0;
    for (name, tensor) in tensors {
        let end = begin + tensor.numel() * size;
        let shape = tensor.shape();
        let entry = json!({"dtype": name_of_dtype, "shape": shape, "data_offsets": [begin, end]});
        entries.insert(name, entry);
        begin = end;
    }
    let mut json = Value::Object(entries).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend(json);
    header
}

/// Reads `f32` tensors by name, in the given order and shapes; the file must hold no others.
pub(crate) fn read_tensors(
    path: &Path,
    device: &Device,
    expected: &[(String, Vec<usize>)],
) -> Result<Vec<Tensor>> {
    let bytes = fs::read(path).map_err(io("reading", path))?;
    let foreign = |parameter: &str| Error::ForeignCheckpoint {
        path: path.to_owned(),
        parameter: parameter.to_owned(),
    };
    let file = SafeTensors::deserialize(&bytes).map_err(|_| foreign("(unreadable header)"))?;
    if let Some(extra) = file
        .names()
        .iter()
        .find(|name| !expected.iter().any(|(n, _)| n == *name))
    {
        return Err(foreign(extra));
    }
    let mut tensors = Vec::with_capacity(expected.len());
    for (name, shape) in expected {
        let view = file.tensor(name).map_err(|_| foreign(name))?;
        if view.dtype() != Dtype::F32 || view.shape() != shape {
            return Err(foreign(name));
        }
        let (words, _) = view.data().as_chunks::<4>();
        let values: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        tensors.push(Tensor::from_f32(device, shape, &values)?);
    }
    Ok(tensors)
}
