//! Checkpoints in the HF layout: `model.safetensors`, or shards with an index.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::{bf16, f16};
use llada_tensor::{DType, Device, Precision, Tensor};
use memmap2::Mmap;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::network::{FrozenWeight, Network, kind};
use crate::quantized::{self, StoredCodes};
use crate::stored::Stored;
use crate::{Error, FrozenModel, LladaModel, ModelConfig, Result};

pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// The configuration of a model and the safetensors files that hold its weights, mapped or in
/// memory; they fit together.
#[derive(Debug)]
pub struct Safetensors {
    config: ModelConfig,
    files: Vec<File>,
}

impl Safetensors {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let config = read_config(dir)?;
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

    pub(crate) fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(crate) fn tensors(&self) -> Result<Vec<Stored<'_>>> {
        find_tensors(&self.config, &self.files)
    }
}

/// The model of tensors in the order of the configuration.
pub(crate) fn freeze(
    config: ModelConfig,
    tensors: &[Stored<'_>],
    device: &Device,
    precision: Precision,
) -> Result<FrozenModel> {
    let shapes = config.parameter_shapes();
    let network = Arc::new(Network::new(config, device, precision)?);
    let mut weights = Vec::with_capacity(tensors.len());
    for (index, (tensor, (name, shape))) in tensors.iter().zip(&shapes).enumerate() {
        let forms = network.forms(index, kind(name, shape));
        let read = || tensor.read_as_stored(device);
        let pack = || tensor.pack(device, precision);
        weights.push(FrozenWeight {
            tensor: forms.tensor.then(read).transpose()?,
            packed: forms.packed.then(pack).transpose()?,
        });
    }
    Ok(FrozenModel::new(network, weights))
}

fn read_config(dir: &Path) -> Result<ModelConfig> {
    let path = dir.join("config.json");
    if !path.is_file() {
        let (path, missing) = (dir.to_owned(), "config.json");
        return Err(Error::NotACheckpoint { path, missing });
    }
    ModelConfig::from_file(&path)
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

pub(crate) fn map_file(path: &Path) -> Result<Mmap> {
    let io = |source| Error::Io {
        action: "opening",
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(io)?;
    // SAFETY: the map is read-only and lives while the weights are copied; a file that another
    // process shortens meanwhile ends this one with a bus error, as with every mapped reader.
    #[expect(unsafe_code, reason = "memory-mapped checkpoints")]
    unsafe {
        Mmap::map(&file).map_err(io)
    }
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
    let precision = quantized::of_config(config)?;
    let mut found: BTreeMap<String, (TensorView<'a>, &'a File)> = BTreeMap::new();
    for file in files {
        let read = |source| Error::SafeTensors {
            path: file.path.clone(),
            source,
        };
        let tensors = SafeTensors::deserialize(file.bytes())
            .map_err(read)?
            .tensors();
        for (name, view) in tensors {
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
        let source = Error::UnsupportedField {
            field: "n_layers",
            value: config.n_layers.to_string(),
            expected: format!("the blocks of {} tensors", found.len()),
        };
        return Err(Error::Config {
            path: folder.with_file_name("config.json"),
            source: Box::new(source),
        });
    }
    let mut tensors = Vec::new();
    for (name, expected) in config.parameter_shapes() {
        let Some((view, file)) = found.remove(&name) else {
            return Err(Error::MissingTensor {
                name,
                path: folder.to_owned(),
            });
        };
        let tensor = match (precision, view.dtype(), &expected[..]) {
            (Some(precision), Dtype::I8 | Dtype::U8, &[n, k]) => {
                let mut parts = BTreeMap::from([(name.clone(), view)]);
                for end in [quantized::SCALE, quantized::MULTIPLIER] {
                    let part = format!("{name}{end}");
                    if let Some((view, _)) = found.remove(&part) {
                        parts.insert(part, view);
                    }
                }
                let at = (&*name, &*file.path);
                let part = |name: &str| parts.get(name).cloned();
                let codes = StoredCodes::new(precision, at, [n, k], part)?;
                Stored {
                    fill: codes.fill(),
                    codes: Some(codes),
                    is_bf16: false,
                    range: file.range(&parts[&name]),
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
        Some((name, (_, file))) => Err(Error::UnexpectedTensor {
            name,
            path: file.path.clone(),
        }),
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

pub(crate) fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    bytes
        .chunks_exact(N)
        .map(|word| word.try_into().expect("chunks of N bytes"))
}

/// One tensor to be written.
struct Entry {
    shape: Vec<usize>,
    values: Vec<f32>,
    dtype: DType,
}

impl safetensors::View for Entry {
    fn dtype(&self) -> Dtype {
        match self.dtype {
            DType::F32 => Dtype::F32,
            DType::Bf16 => Dtype::BF16,
        }
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        let values = self.values.iter();
        Cow::Owned(match self.dtype {
            DType::F32 => values.flat_map(|x| x.to_le_bytes()).collect(),
            DType::Bf16 => values
                .flat_map(|&x| bf16::from_f32(x).to_le_bytes())
                .collect(),
        })
    }
    fn data_len(&self) -> usize {
        self.values.len() * self.dtype.size_bytes()
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
    let entry = |(name, value): (String, Tensor)| -> Result<_> {
        let (shape, values) = (value.shape().to_vec(), value.to_vec_f32()?);
        let entry = Entry {
            shape,
            values,
            dtype,
        };
        Ok((name, entry))
    };
    let entries: Vec<_> = model
        .tensors()?
        .into_iter()
        .map(entry)
        .collect::<Result<_>>()?;
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

pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    llada_files::write(path, bytes).map_err(|source| Error::Io {
        action: "writing",
        path: path.to_owned(),
        source,
    })
}
