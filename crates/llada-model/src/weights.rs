//! Checkpoints in the HF layout: `model.safetensors`, or shards with an index. A GGUF file is
//! accepted in the place of a folder.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use llada_diffusion::{Parameter, Trainable as _};
use llada_tensor::{DType, Device, Precision, Tensor};
use memmap2::Mmap;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::gguf::{Gguf, is_gguf};
use crate::{Error, LladaModel, ModelConfig, Result};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Loads `config.json` and the weights of a folder, or a GGUF file.
///
/// # Errors
/// One that names the file and the tensor.
pub fn load(dir: &Path, device: &Device, precision: Precision) -> Result<LladaModel> {
    if is_gguf(dir) {
        return Gguf::open(dir)?.load(device, precision);
    }
    let config = read_config(dir)?;
    let maps = map_files(dir)?;
    from_sources(config, &sources(&maps), device, precision)
}

fn read_config(dir: &Path) -> Result<ModelConfig> {
    let path = dir.join("config.json");
    if !path.is_file() {
        let (path, missing) = (dir.to_owned(), "config.json");
        return Err(Error::NotACheckpoint { path, missing });
    }
    ModelConfig::from_file(&path)
}

fn map_files(dir: &Path) -> Result<Vec<(Mmap, PathBuf)>> {
    let files = weight_files(dir)?.into_iter();
    files.map(|path| Ok((map_file(&path)?, path))).collect()
}

/// The bytes of safetensors files, with the files' names for messages.
type Sources<'a> = Vec<(&'a [u8], &'a Path)>;

fn sources(maps: &[(Mmap, PathBuf)]) -> Sources<'_> {
    maps.iter().map(|(map, path)| (&map[..], &**path)).collect()
}

/// The configuration of a folder or a GGUF file, after a check that its weights fit; no value is
/// read.
///
/// # Errors
/// As [`load`], but for values that are not finite.
pub fn check(dir: &Path) -> Result<ModelConfig> {
    if is_gguf(dir) {
        return Ok(Gguf::open(dir)?.config().clone());
    }
    let config = read_config(dir)?;
    let maps = map_files(dir)?;
    let sources = sources(&maps);
    find_tensors(&config, &sources)?;
    Ok(config)
}

/// A model from the bytes of `config.json` and of one safetensors file.
///
/// # Errors
/// As [`load`]; messages name the files `config.json` and `model.safetensors`.
pub fn from_bytes(
    config: &[u8],
    weights: &[u8],
    device: &Device,
    precision: Precision,
) -> Result<LladaModel> {
    let config = ModelConfig::from_json(config, Path::new("config.json"))?;
    from_sources(
        config,
        &vec![(weights, Path::new(SINGLE))],
        device,
        precision,
    )
}

/// The safetensors files of a folder.
fn weight_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let index = dir.join(INDEX);
    if !index.is_file() {
        let single = dir.join(SINGLE);
        return if single.is_file() {
            Ok(vec![single])
        } else {
            Err(Error::NotACheckpoint {
                path: dir.to_owned(),
                missing: SINGLE,
            })
        };
    }
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let io = |source| Error::Io {
        action: "reading",
        path: index.clone(),
        source,
    };
    let json = std::fs::read(&index).map_err(io)?;
    let parsed: Index = serde_json::from_slice(&json).map_err(|source| Error::Json {
        path: index.clone(),
        source,
    })?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

pub(crate) fn map_file(path: &Path) -> Result<Mmap> {
    let io = |source| Error::Io {
        action: "opening",
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(io)?;
    // SAFETY: the map is read-only and lives while the weights are copied; a file that another
    // process shortens meanwhile ends this one with a bus error, as with every mapped reader.
    #[expect(unsafe_code, reason = "memory-mapped checkpoints")]
    unsafe {
        Mmap::map(&file).map_err(io)
    }
}

fn from_sources(
    config: ModelConfig,
    sources: &Sources<'_>,
    device: &Device,
    precision: Precision,
) -> Result<LladaModel> {
    let values = find_tensors(&config, sources)?
        .iter()
        .map(|(name, view, path)| read_tensor(name, view, path, device))
        .collect::<Result<_>>()?;
    LladaModel::new(config, device, precision, values)
}

/// The tensors of a configuration, in its order: all there, of the right shapes, and no others.
fn find_tensors<'a>(
    config: &ModelConfig,
    sources: &Sources<'a>,
) -> Result<Vec<(String, TensorView<'a>, &'a Path)>> {
    let mut found: BTreeMap<String, (TensorView<'a>, &'a Path)> = BTreeMap::new();
    for &(bytes, path) in sources {
        let file = SafeTensors::deserialize(bytes).map_err(|source| Error::SafeTensors {
            path: path.to_owned(),
            source,
        })?;
        for (name, view) in file.tensors() {
            found.insert(name, (view, path));
        }
    }
    let folder = sources.first().map_or(Path::new(""), |(_, path)| path);
    let mut tensors = Vec::new();
    for (name, expected) in config.parameter_shapes() {
        let Some((view, path)) = found.remove(&name) else {
            return Err(Error::MissingTensor {
                name,
                path: folder.to_owned(),
            });
        };
        if view.shape() != expected {
            let (path, got) = (path.to_owned(), view.shape().to_vec());
            return Err(Error::WrongShape {
                name,
                path,
                expected,
                got,
            });
        }
        tensors.push((name, view, path));
    }
    match found.into_iter().next() {
        Some((name, (_, path))) => Err(Error::UnexpectedTensor {
            name,
            path: path.to_owned(),
        }),
        None => Ok(tensors),
    }
}

fn read_tensor(name: &str, view: &TensorView<'_>, path: &Path, device: &Device) -> Result<Tensor> {
    let bytes = view.data();
    let values: Vec<f32> = match view.dtype() {
        Dtype::F32 => words(bytes).map(f32::from_le_bytes).collect(),
        Dtype::F16 => words(bytes)
            .map(|b| f16::from_le_bytes(b).to_f32())
            .collect(),
        Dtype::BF16 => words(bytes)
            .map(|b| bf16::from_le_bytes(b).to_f32())
            .collect(),
        other => {
            let (name, path, dtype) = (name.to_owned(), path.to_owned(), format!("{other:?}"));
            return Err(Error::WrongDtype { name, path, dtype });
        }
    };
    if !values.iter().all(|x| x.is_finite()) {
        return Err(Error::NotFinite {
            name: name.to_owned(),
            path: path.to_owned(),
        });
    }
    Ok(Tensor::from_f32(device, view.shape(), &values)?)
}

pub(crate) fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    bytes
        .chunks_exact(N)
        .map(|word| word.try_into().expect("chunks of N bytes"))
}

/// One tensor to be written.
struct Entry<'a> {
    parameter: &'a Parameter,
    dtype: DType,
}

impl safetensors::View for Entry<'_> {
    fn dtype(&self) -> Dtype {
        match self.dtype {
            DType::F32 => Dtype::F32,
            DType::Bf16 => Dtype::BF16,
        }
    }
    fn shape(&self) -> &[usize] {
        self.parameter.value.shape()
    }
    fn data(&self) -> Cow<'_, [u8]> {
        let values = self.parameter.value.to_vec_f32();
        let bytes = match self.dtype {
            DType::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            DType::Bf16 => values
                .iter()
                .flat_map(|&x| bf16::from_f32(x).to_le_bytes())
                .collect::<Vec<u8>>(),
        };
        Cow::Owned(bytes)
    }
    fn data_len(&self) -> usize {
        self.parameter.value.numel() * self.dtype.size_bytes()
    }
}

/// Writes `config.json` and `model.safetensors`, each through a synced temporary file.
///
/// # Errors
/// [`Error::Io`] or [`Error::SafeTensors`]; files that were there before are kept on failure.
pub fn save(model: &LladaModel, dir: &Path, dtype: DType) -> Result<()> {
    let io = |source| Error::Io {
        action: "creating",
        path: dir.to_owned(),
        source,
    };
    std::fs::create_dir_all(dir).map_err(io)?;
    let path = dir.join(SINGLE);
    let entries = model.parameters().iter().map(|p| {
        (
            &*p.name,
            Entry {
                parameter: p,
                dtype,
            },
        )
    });
    let metadata = [("format".to_owned(), "pt".to_owned())]
        .into_iter()
        .collect();
    let bytes =
        safetensors::serialize(entries, Some(metadata)).map_err(|source| Error::SafeTensors {
            path: path.clone(),
            source,
        })?;
    write_file(&path, &bytes)?;
    write_file(
        &dir.join("config.json"),
        model.config().to_json().as_bytes(),
    )
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let io = |source| Error::Io {
        action: "writing",
        path: path.to_owned(),
        source,
    };
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(io)?;
    file.write_all(bytes)
        .and_then(|()| file.as_file().sync_all())
        .map_err(io)?;
    file.persist(path).map_err(|error| io(error.error))?;
    Ok(())
}
