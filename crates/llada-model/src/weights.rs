//! Checkpoints in the HF layout: `model.safetensors`, or shards with an index.

mod folder;
pub(crate) mod names;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use llada_files::looks_like;
use llada_tensor::{DType, Precision, Tensor};
use memmap2::Mmap;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::family::places::{Place, place};
use crate::family::{Family, mask};
use crate::files::{Part, SINGLE, encode, map_file, stored_dtype, write_file, write_safetensors};
use crate::quantized::StoredCodes;
use crate::stored::{Stored, words};
use crate::{Error, LladaModel, ModelConfig, Result};
use folder::{needed, weight_files};

/// The configuration of a model and the safetensors files that hold its weights, mapped or in
/// memory; they fit together.
#[derive(Debug)]
pub struct Safetensors {
    pub(crate) config: ModelConfig,
    files: Vec<File>,
}

impl Safetensors {
    /// Opens a folder; what is to be said about its files is added to `warnings`. `mask` is what the
    /// caller says of the mask token.
    pub(crate) fn open(dir: &Path, mask: Option<u32>, warnings: &mut Vec<String>) -> Result<Self> {
        let path = needed(dir, "config.json")?;
        let json = std::fs::read(&path).map_err(Error::io("reading", &path))?;
        let config = ModelConfig::parse(&json, &path, |said, published| {
            mask::find(dir, said, mask, published)
        })?;
        let (files, warning) = weight_files(dir)?;
        warnings.extend(warning);
        let files = files.into_iter().map(File::map).collect::<Result<_>>();
        Self::new(config, files?)
    }

    pub(crate) fn from_bytes(config: &[u8], weights: Cow<'static, [u8]>) -> Result<Self> {
        let config = ModelConfig::from_json(config, Path::new("config.json"))?;
        Self::new(config, vec![File::in_memory(weights, SINGLE.into())])
    }

    fn new(config: ModelConfig, files: Vec<File>) -> Result<Self> {
        let found = collect(&files, config.family)?;
        check_tied(&config, &found)?;
        find_tensors(&config, &files, found)?;
        Ok(Self { config, files })
    }

    pub(crate) fn tensors(&self) -> Result<Vec<Stored<'_>>> {
        let found = collect(&self.files, self.config.family)?;
        find_tensors(&self.config, &self.files, found)
    }
}

/// A safetensors file.
#[derive(Debug)]
pub(crate) struct File {
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
    pub(crate) fn map(path: PathBuf) -> Result<Self> {
        let bytes = Bytes::Mapped(map_file(&path)?);
        Ok(Self { bytes, path })
    }

    /// Bytes that are there; `path` names them in messages.
    pub(crate) fn in_memory(bytes: Cow<'static, [u8]>, path: PathBuf) -> Self {
        let bytes = Bytes::Memory(bytes);
        Self { bytes, path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn bytes(&self) -> &[u8] {
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

/// A tensor of a file.
#[derive(Clone)]
struct Found<'a> {
    /// Name in the file.
    name: String,
    view: TensorView<'a>,
    file: &'a File,
}

/// All tensors of the files, by their published names.
fn collect(files: &[File], family: Family) -> Result<BTreeMap<String, Found<'_>>> {
    let mut found: BTreeMap<String, Found<'_>> = BTreeMap::new();
    for file in files {
        let read = SafeTensors::deserialize(file.bytes()).map_err(|source| {
            let error = Error::safetensors(&file.path)(source);
            error.or_other(looks_like::SAFETENSORS, &file.path, file.bytes())
        })?;
        for (name, view) in read.tensors() {
            let tensor = Found {
                name: name.clone(),
                view,
                file,
            };
            if let Some(other) = found.insert(name.clone(), tensor) {
                let (first, second) = (other.file.path.clone(), file.path.clone());
                return Err(Error::TensorTwice {
                    name,
                    first,
                    second,
                });
            }
        }
    }
    let published = names::published(family.names(), found.keys().map(String::as_str));
    let published: Vec<String> = published.into_values().collect();
    Ok(published.into_iter().zip(found.into_values()).collect())
}

/// Checks that the embedding and the head are equal, if they are one tensor and both are there.
fn check_tied(config: &ModelConfig, found: &BTreeMap<String, Found<'_>>) -> Result<()> {
    let [embedding, head] = [names::EMBEDDING, names::HEAD].map(|name| tensor_name(config, name));
    let (Some(embedding), Some(head), true) =
        (found.get(&embedding), found.get(&head), config.weight_tying)
    else {
        return Ok(());
    };
    let shape = [config.embedding_rows(), config.d_model];
    let [first, second] = [embedding, head]
        .map(|found| stored(found.name.clone(), &found.view, found.file, shape.to_vec()));
    let (first, second) = (first?, second?);
    let mut values = [vec![0.0; shape[1]], vec![0.0; shape[1]]];
    for row in 0..shape[0] {
        let [x, y] = &mut values;
        first.fill_once(row..row + 1, x);
        second.fill_once(row..row + 1, y);
        let differs = |(x, y): (&f32, &f32)| x.to_bits() != y.to_bits();
        if x.iter().zip(&*y).any(differs) {
            return Err(Error::TiedTensors {
                first: embedding.name.clone(),
                second: head.name.clone(),
                path: head.file.path.clone(),
            });
        }
    }
    Ok(())
}

/// The tensors of a configuration, in its order: all there, of the right shapes, and no others.
fn find_tensors<'a>(
    config: &ModelConfig,
    files: &'a [File],
    mut found: BTreeMap<String, Found<'a>>,
) -> Result<Vec<Stored<'a>>> {
    let folder = files.first().map_or(Path::new(""), |file| &file.path);
    // No list of names that is longer than the files.
    let n_experts = (config.extras.moe.as_ref()).map_or(0, |moe| moe.router.n_experts);
    for (field, n) in [("n_layers", config.n_layers), ("num_experts", n_experts)] {
        if n > found.len() {
            let expected = format!("those of {} tensors", found.len());
            let source = Error::unsupported(field, n, expected);
            return Err(Error::Config {
                path: folder.with_file_name("config.json"),
                source: Box::new(config.family.in_its_words(source)),
            });
        }
    }
    // A tied tensor has either name.
    if config.weight_tying
        && let Some(head) = found.remove(&tensor_name(config, names::HEAD))
    {
        found
            .entry(tensor_name(config, names::EMBEDDING))
            .or_insert(head);
    }
    let shapes = config.parameter_shapes();
    let places = shapes
        .iter()
        .map(|(name, shape)| place(config, name, shape));
    let places: Vec<Place> = places.collect();
    let mut search = Search {
        precision: config.quantized()?,
        folder,
        places: &places,
        used: BTreeSet::new(),
        found,
    };
    let mut tensors = Vec::new();
    for ((_, expected), place) in shapes.iter().zip(&places) {
        tensors.push(match place {
            Place::Whole(name) => search.tensor(name, expected)?,
            Place::Rows { name, rows, of } => {
                let whole = [&[*of][..], &expected[1..]].concat();
                search.tensor(name, &whole)?.narrow(rows.clone())
            }
            Place::Stack(names) => {
                let each = names.iter().map(|name| search.tensor(name, &expected[1..]));
                Stored::stack(each.collect::<Result<_>>()?)
            }
        });
    }
    let Search {
        used, mut found, ..
    } = search;
    found.retain(|name, _| !used.contains(name));
    match found.into_values().next() {
        Some(Found { name, file, .. }) => {
            let path = file.path.clone();
            Err(Error::UnexpectedTensor { name, path })
        }
        None => Ok(tensors),
    }
}

/// The name in the files of a parameter that is a tensor of its own.
fn tensor_name(config: &ModelConfig, parameter: &str) -> String {
    place(config, parameter, &[]).names()[0].clone()
}

/// The tensors of the files, of which those that a model needs are taken.
struct Search<'a, 'p> {
    /// Of matrices that were quantised.
    precision: Option<Precision>,
    /// For messages.
    folder: &'p Path,
    /// All that the model needs.
    places: &'p [Place],
    used: BTreeSet<String>,
    found: BTreeMap<String, Found<'a>>,
}

impl<'a> Search<'a, '_> {
    /// A tensor by its published name.
    fn tensor(&mut self, published: &str, expected: &[usize]) -> Result<Stored<'a>> {
        let Some(Found { name, view, file }) = self.found.get(published).cloned() else {
            let known: BTreeSet<&String> = self.places.iter().flat_map(Place::names).collect();
            let unknown = self.found.iter().filter(|(name, _)| !known.contains(name));
            return Err(Error::MissingTensor {
                hint: names::hint(published, unknown.map(|(_, found)| &*found.name)),
                name: published.to_owned(),
                path: self.folder.to_owned(),
            });
        };
        self.used.insert(published.to_owned());
        match (self.precision, view.dtype(), expected) {
            (Some(precision), Dtype::I8 | Dtype::U8, &[n, k]) => {
                let part = |end: &str| {
                    let name = format!("{published}{end}");
                    let view = self.found.get(&name)?.view.clone();
                    self.used.insert(name);
                    Some(view)
                };
                let codes = StoredCodes::new(precision, (&name, &file.path), [n, k], part)?;
                Ok(Stored {
                    fill: Box::new(move |rows, out| codes.values(rows, out)),
                    codes: Some((precision, Box::new(move |rows, out| codes.read(rows, out)))),
                    is_bf16: false,
                    blocks: None,
                    range: file.range(&view),
                    name,
                    path: &file.path,
                    shape: expected.to_vec(),
                })
            }
            _ => stored(name, &view, file, expected.to_vec()),
        }
    }
}

/// A tensor of values.
pub(crate) fn stored<'a>(
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
        blocks: None,
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
