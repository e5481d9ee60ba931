//! Safetensors files: written in one pass with a checksum, read tensor by tensor.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use llada_diffusion::Parameter;
use llada_tensor::bf16;
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde_json::{Map, Value, json};

use crate::durable::{FileSum, SummedFile, io};
use crate::{Error, ExportDType, Result};

/// Name and shape of a tensor.
pub(crate) type Entry = (String, Vec<usize>);

/// Names and shapes of the parameters.
pub(crate) fn entries(parameters: &[Parameter]) -> Vec<Entry> {
    let entry = |p: &Parameter| (p.name.clone(), p.value.shape().to_vec());
    parameters.iter().map(entry).collect()
}

/// Writes a file of named tensors, rounded to `dtype`; `values` gives the elements of each in turn.
pub(crate) fn write_tensors(
    path: &Path,
    entries: &[Entry],
    dtype: ExportDType,
    mut values: impl FnMut(usize) -> Result<Vec<f32>>,
) -> Result<FileSum> {
    let mut file = SummedFile::create(path)?;
    file.write(&header(entries, dtype))?;
    for index in 0..entries.len() {
        let values = &values(index)?;
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
    file.finish()
}

/// Length of the JSON as 8 bytes, then the JSON, padded with spaces so that the data are aligned.
fn header(tensors: &[Entry], dtype: ExportDType) -> Vec<u8> {
    let (name_of_dtype, size) = match dtype {
        ExportDType::F32 => ("F32", 4),
        ExportDType::Bf16 => ("BF16", 2),
    };
    let mut fields = Map::new();
    fields.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut begin = 0;
    for (name, shape) in tensors {
        let end = begin + shape.iter().product::<usize>() * size;
        let field = json!({"dtype": name_of_dtype, "shape": shape, "data_offsets": [begin, end]});
        fields.insert(name.clone(), field);
        begin = end;
    }
    let mut json = Value::Object(fields).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend(json);
    header
}

/// A file of `f32` tensors that is open to be read.
pub(crate) struct TensorFile {
    file: File,
    path: PathBuf,
    /// First byte and number of elements of each tensor, in the order that was asked for.
    places: Vec<(u64, usize)>,
}

impl TensorFile {
    /// Opens a file; it must hold tensors of these names and shapes, and no others.
    pub(crate) fn open(path: &Path, expected: &[Entry]) -> Result<Self> {
        let foreign = |parameter: &str| Error::ForeignCheckpoint {
            path: path.to_owned(),
            parameter: parameter.to_owned(),
        };
        let unreadable = || foreign("(unreadable header)");
        let mut file = File::open(path).map_err(io("opening", path))?;
        let bytes = file.metadata().map_err(io("reading", path))?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|_| unreadable())?;
        let length = u64::from_le_bytes(length);
        if length > bytes {
            return Err(unreadable());
        }
        let mut header = vec![0; usize::try_from(length).map_err(|_| unreadable())?];
        file.read_exact(&mut header).map_err(|_| unreadable())?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|_| unreadable())?;

        let known = |name: &String| expected.iter().any(|(n, _)| n == name);
        if let Some(extra) = metadata.offset_keys().iter().find(|name| !known(name)) {
            return Err(foreign(extra));
        }
        let mut places = Vec::with_capacity(expected.len());
        for (name, shape) in expected {
            let info = metadata.info(name).ok_or_else(|| foreign(name))?;
            if info.dtype != Dtype::F32 || info.shape != *shape {
                return Err(foreign(name));
            }
            let place = 8 + length + info.data_offsets.0 as u64;
            places.push((place, shape.iter().product()));
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            places,
        })
    }

    /// The elements of a tensor.
    pub(crate) fn read(&mut self, index: usize) -> Result<Vec<f32>> {
        let (place, n) = self.places[index];
        let mut values = vec![0.0_f32; n];
        let bytes = bytemuck::cast_slice_mut(&mut values);
        let found = self.file.seek(SeekFrom::Start(place));
        found
            .and_then(|_| self.file.read_exact(bytes))
            .map_err(io("reading", &self.path))?;
        Ok(values)
    }
}
