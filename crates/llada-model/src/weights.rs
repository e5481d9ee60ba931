//! Checkpoints in the HF layout: `model.safetensors`, or shards with an index.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use llada_tensor::{DType, Tensor};
use memmap2::Mmap;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::files::{
    INDEX, Part, SINGLE, encode, map_file, stored_dtype, write_file, write_safetensors,
};
use crate::looks_like::{self, other_than};
use crate::quantized::StoredCodes;
use crate::stored::{Stored, words};
use crate::{Error, LladaModel, ModelConfig, Result};

/// The configuration of a model and the safetensors files that hold its weights, mapped or in
/// memory; they fit together.
#[derive(Debug)]
pub struct Safetensors {
    pub(crate) config: ModelConfig,
    files: Vec<File>,
}

impl Safetensors {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let config = ModelConfig::from_file(&needed(dir, "config.json")?)?;
        let file = |path: PathBuf| {
            let bytes = Bytes::Mapped(map_file(&path)?);
            Ok(File { bytes, path })
        };
        let files = weight_files(dir)?.into_iter().map(file);
        Self::new(config, files.collect::<Result<_>>()?)
    }

    pub(crate) fn from_bytes(config: &[u8], weights: Cow<'static, [u8]>) -> Result<Self> {
        let config = ModelConfig::from_json(config, Path::new("config.json"))?;
        let (bytes, path) = (Bytes::Memory(weights), PathBuf::from(SINGLE));
        Self::new(config, vec![File { bytes, path }])
    }

    fn new(config: ModelConfig, files: Vec<File>) -> Result<Self> {
        find_tensors(&config, &files)?;
        Ok(Self { config, files })
    }

    pub(crate) fn tensors(&self) -> Result<Vec<Stored<'_>>> {
        find_tensors(&self.config, &self.files)
    }
}

/// A file that a folder with a model needs.
fn needed(dir: &Path, missing: &'static str) -> Result<PathBuf> {
    let file = dir.join(missing);
    let path = dir.to_owned();
    let error = Error::NotACheckpoint { path, missing };
    file.is_file().then_some(file).ok_or(error)
}

/// The safetensors files of a folder.
fn weight_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let index = dir.join(INDEX);
    if !index.is_file() {
        return Ok(vec![needed(dir, SINGLE)?]);
    }
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let json = std::fs::read(&index).map_err(Error::io("reading", &index))?;
    let parsed: Index = serde_json::from_slice(&json).map_err(Error::json(&index))?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    let file = |shard: String| {
        let is_plain = shard.ends_with(".safetensors") && !shard.contains(['/', '\\']);
        if is_plain {
            return Ok(dir.join(shard));
        }
        let path = index.clone();
        Err(Error::BadShard { path, shard })
    };
    names.into_iter().map(file).collect()
}

/// A safetensors file.
#[derive(Debug)]
struct File {
    bytes: Bytes,
    /// For messages.
    path: PathBuf,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Memory(Cow<'static, [u8]>),
}

impl File {
    fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Memory(bytes) => bytes,
        }
    }

    /// Where the bytes of a tensor are mapped, if they are.
    fn range(&self, view: &TensorView<'_>) -> Option<(&Mmap, Range<usize>)> {
        let Bytes::Mapped(map) = &self.bytes else {
            return None;
        };
        let data = view.data();
        let start = data.as_ptr() as usize - map.as_ptr() as usize;
        Some((map, start..start + data.len()))
    }
}

/// The tensors of a configuration, in its order: all there, of the right shapes, and no others.
fn find_tensors<'a>(config: &ModelConfig, files: &'a [File]) -> Result<Vec<Stored<'a>>> {
    let precision = config.quantized()?;
    let mut found: BTreeMap<String, (TensorView<'a>, &'a File)> = BTreeMap::new();
    for file in files {
        let read = SafeTensors::deserialize(file.bytes());
        let read = read.map_err(|source| {
            let other = other_than(looks_like::SAFETENSORS, &file.path, file.bytes());
            other.unwrap_or_else(|| Error::safetensors(&file.path)(source))
        })?;
        for (name, view) in read.tensors() {
            if let Some((_, other)) = found.insert(name.clone(), (view, file)) {
                let (first, second) = (other.path.clone(), file.path.clone());
                return Err(Error::TensorTwice {
                    name,
                    first,
                    second,
                });
            }
        }
    }
    let folder = files.first().map_or(Path::new(""), |file| &file.path);
    // No list of names that is longer than the files.
    if config.n_layers > found.len() {
        let expected = format!("the blocks of {} tensors", found.len());
        let source = Error::unsupported("n_layers", config.n_layers, expected);
        return Err(Error::Config {
            path: folder.with_file_name("config.json"),
            source: Box::new(source),
        });
    }
    let mut tensors = Vec::new();
    for (name, expected) in config.parameter_shapes() {
        let Some((view, file)) = found.remove(&name) else {
            let path = folder.to_owned();
            return Err(Error::MissingTensor { name, path });
        };
        let tensor = match (precision, view.dtype(), &expected[..]) {
            (Some(precision), Dtype::I8 | Dtype::U8, &[n, k]) => {
                let part = |end: &str| match end {
                    "" => Some(view.clone()),
                    _ => Some(found.remove(&format!("{name}{end}"))?.0),
                };
                let codes = StoredCodes::new(precision, (&name, &file.path), [n, k], part)?;
                Stored {
                    fill: Box::new(move |rows, out| codes.values(rows, out)),
                    codes: Some(codes),
                    is_bf16: false,
                    range: file.range(&view),
                    name,
                    path: &file.path,
                    shape: expected,
                }
            }
            _ => stored(name, &view, file, expected)?,
        };
        tensors.push(tensor);
    }
    match found.into_iter().next() {
        Some((name, (_, file))) => {
            let path = file.path.clone();
            Err(Error::UnexpectedTensor { name, path })
        }
        None => Ok(tensors),
    }
}

/// A tensor of values.
fn stored<'a>(
    name: String,
    view: &TensorView<'a>,
    file: &'a File,
    expected: Vec<usize>,
) -> Result<Stored<'a>> {
    type Widen = fn(&[u8], &mut [f32]);
    let (size, widen): (usize, Widen) = match view.dtype() {
        Dtype::F32 => (4, |bytes, out| widen_into(bytes, out, f32::from_le_bytes)),
        Dtype::F16 => (2, |bytes, out| {
            widen_into(bytes, out, |x| f16::from_le_bytes(x).to_f32());
        }),
        Dtype::BF16 => (2, |bytes, out| {
            widen_into(bytes, out, |x| bf16::from_le_bytes(x).to_f32());
        }),
        other => {
            let (path, dtype) = (file.path.clone(), format!("{other:?}"));
            return Err(Error::WrongDtype { name, path, dtype });
        }
    };
    let (data, shape) = (view.data(), view.shape().to_vec());
    if shape != expected {
        let (path, got) = (file.path.clone(), shape);
        return Err(Error::WrongShape {
            name,
            path,
            expected,
            got,
        });
    }
    let row = size * shape[1.min(shape.len())..].iter().product::<usize>();
    Ok(Stored {
        name,
        path: &file.path,
        shape,
        is_bf16: view.dtype() == Dtype::BF16,
        fill: Box::new(move |rows, out| widen(&data[rows.start * row..rows.end * row], out)),
        codes: None,
        range: file.range(view),
    })
}

fn widen_into<const N: usize>(bytes: &[u8], out: &mut [f32], widen: impl Fn([u8; N]) -> f32) {
    for (out, word) in out.iter_mut().zip(words(bytes)) {
        *out = widen(word);
    }
}

/// Writes `config.json` and `model.safetensors`, each through a synced temporary file.
///
/// # Errors
/// [`Error::Io`] or [`Error::SafeTensors`]; files that were there before are kept on failure.
pub fn save(model: &LladaModel, dir: &Path, dtype: DType) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io("creating", dir))?;
    let part = |(name, value): (String, Tensor)| -> Result<_> {
        let (shape, data) = (value.shape().to_vec(), encode(&value.to_vec_f32()?, dtype));
        let dtype = stored_dtype(dtype);
        Ok(Part {
            name,
            dtype,
            shape,
            data,
        })
    };
    let parts: Result<Vec<_>> = model.tensors()?.into_iter().map(part).collect();
    write_safetensors(&dir.join(SINGLE), &parts?)?;
    let config = model.config().to_json();
    write_file(&dir.join("config.json"), config.as_bytes())
}
