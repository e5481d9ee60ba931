//! Low-rank adapters as PEFT saves them, laid on the weights of a model while these are read.
//!
//! A weight becomes `W + scale * alpha / r * B A`, in `f32`, a row at a time. An adapter may hold
//! whole tensors as well, in place of the model's own (biases, `modules_to_save`), and rows of an
//! embedding (`trainable_token_indices`).
//!
//! Source: `LoraLayer`, `Embedding` and `TokenAdapter` of peft 0.21.2.

mod config;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use llada_files::looks_like;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use crate::family::Family;
use crate::family::places::{self, Names, Place};
use crate::stored::Stored;
use crate::weights::{File, names, stored};
use crate::{Error, ModelConfig, Result};
pub(crate) use config::{AdapterConfig, CONFIG};

const WEIGHTS: &str = "adapter_model.safetensors";
const PICKLE: &str = "adapter_model.bin";
/// How PEFT's names begin; the name of the base model's module follows.
const PREFIX: &str = "base_model.model.";
/// Parts of names between a module and its tensor: of PEFT's modules, and of its usual adapter.
const INNER: [&str; 3] = ["base_layer", "modules_to_save", "default"];

/// Ends of names behind a module.
const LORA_A: &str = "lora_A.weight";
const LORA_B: &str = "lora_B.weight";
const EMBEDDING_A: &str = "lora_embedding_A";
const EMBEDDING_B: &str = "lora_embedding_B";
const ROWS: &str = "token_adapter.trainable_tokens_delta";

/// An adapter that was opened: its configuration is one that can be merged.
#[derive(Debug)]
pub(crate) struct Adapter {
    file: File,
    config: AdapterConfig,
    /// Of the file of the configuration, for messages.
    config_path: PathBuf,
    /// Factor on what it adds.
    scale: f64,
}

/// What an adapter says of one parameter of the model.
#[derive(Default)]
struct Change<'a> {
    /// The module's name, as PEFT matches its patterns.
    module: String,
    /// In place of the parameter.
    whole: Option<Part<'a>>,
    /// `A` and `B`, or those of an embedding, which are transposed.
    a: Option<Part<'a>>,
    b: Option<Part<'a>>,
    is_embedding: bool,
    /// Added to a bias.
    bias: Option<Part<'a>>,
    /// In place of rows.
    rows: Option<Part<'a>>,
}

struct Part<'a> {
    name: String,
    view: TensorView<'a>,
}

/// `factor * B A` of a matrix `[N, K]`.
struct Delta {
    /// `[rank, K]`.
    a: Vec<f32>,
    /// `[N, rank]`.
    b: Vec<f32>,
    rank: usize,
    factor: f32,
}

/// Rows by their numbers.
type Rows = BTreeMap<usize, Vec<f32>>;

impl Adapter {
    /// Opens the folder of an adapter; what it adds counts `scale` times.
    ///
    /// # Errors
    /// [`Error::Adapter`] for what can't be merged, and others that name the file.
    pub(crate) fn open(dir: &Path, scale: f64) -> Result<Self> {
        let config_path = dir.join(CONFIG);
        if !config_path.is_file() {
            let path = dir.to_owned();
            return Err(Error::NotAnAdapter { path });
        }
        let config = AdapterConfig::read(&config_path)?;
        config.check(&config_path)?;
        let (path, pickle) = (dir.join(WEIGHTS), dir.join(PICKLE));
        if !path.is_file() && pickle.is_file() {
            return Err(Error::OtherFile {
                path: pickle,
                what: "a Python pickle, as PyTorch saves them",
                expected: looks_like::SAFETENSORS,
                advice: "load the adapter in PEFT and save it again (save_pretrained), which \
                         writes adapter_model.safetensors",
            });
        }
        Ok(Self {
            file: File::map(path)?,
            config,
            config_path,
            scale,
        })
    }

    /// Takes the bytes of the two files; messages name them as in a folder.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn from_bytes(
        config: &[u8],
        weights: Cow<'static, [u8]>,
        scale: f64,
    ) -> Result<Self> {
        let config_path = PathBuf::from(CONFIG);
        let config = AdapterConfig::parse(config, &config_path)?;
        config.check(&config_path)?;
        Ok(Self {
            file: File::in_memory(weights, WEIGHTS.into()),
            config,
            config_path,
            scale,
        })
    }

    /// The tensors of a model with the adapter on them.
    ///
    /// # Errors
    /// [`Error::Adapter`], [`Error::WrongShape`] and others that name the tensor of the adapter.
    pub(crate) fn apply<'a>(
        &'a self,
        model: &ModelConfig,
        tensors: Vec<Stored<'a>>,
    ) -> Result<Vec<Stored<'a>>> {
        let mut changes = self.changes(model.family)?;
        let mut changed = Vec::with_capacity(tensors.len());
        for ((name, shape), tensor) in model.parameter_shapes().iter().zip(tensors) {
            let change = match places::place(model, name, shape) {
                Place::Whole(name) => changes.remove(&name),
                // Of a tensor that lies here in parts: it is named as one that is not changed.
                Place::Rows { .. } | Place::Stack(_) => None,
            };
            changed.push(match change {
                Some(change) => self.change(tensor, change)?,
                None => tensor,
            });
        }
        let unused = changes.into_values().find_map(|change| {
            let parts = [change.whole, change.a, change.b, change.bias, change.rows];
            parts.into_iter().flatten().next()
        });
        match unused {
            None => Ok(changed),
            Some(part) => Err(self.fault(
                format!("tensor {}", part.name),
                "it belongs to no tensor of the model that adapters can change",
                "an adapter of this model, of other layers than experts and fused ones",
            )),
        }
    }

    /// What the file says of each parameter, by its name.
    fn changes(&self, family: Family) -> Result<BTreeMap<String, Change<'_>>> {
        let (path, bytes) = (self.file.path(), self.file.bytes());
        let read = SafeTensors::deserialize(bytes).map_err(|source| {
            let error = Error::safetensors(path)(source);
            error.or_other(looks_like::SAFETENSORS, path, bytes)
        })?;
        let mut changes: BTreeMap<String, Change<'_>> = BTreeMap::new();
        for (name, view) in read.tensors() {
            let (module, place, end) = place(family.names(), &name);
            let is_embedding = end.starts_with("lora_embedding");
            let parameter = match &*end {
                "lora_B.bias" => "bias",
                LORA_A | LORA_B | EMBEDDING_A | EMBEDDING_B | ROWS => "weight",
                whole => whole,
            };
            let change = changes.entry(format!("{place}.{parameter}")).or_default();
            change.module = module;
            change.is_embedding |= is_embedding;
            let slot = match &*end {
                LORA_A | EMBEDDING_A => &mut change.a,
                LORA_B | EMBEDDING_B => &mut change.b,
                "lora_B.bias" => &mut change.bias,
                ROWS => &mut change.rows,
                _ => &mut change.whole,
            };
            let part = Part {
                name: name.clone(),
                view,
            };
            if let Some(other) = slot.replace(part) {
                let got = format!("it means the same as {}", other.name);
                return Err(self.fault(format!("tensor {name}"), got, "one of them"));
            }
        }
        Ok(changes)
    }

    /// A tensor with a change.
    fn change<'a>(&'a self, tensor: Stored<'a>, change: Change<'a>) -> Result<Stored<'a>> {
        let shape = tensor.shape.clone();
        if let Some(part) = change.whole.as_ref().or(change.rows.as_ref())
            && self.scale.to_bits() != 1.0_f64.to_bits()
        {
            return Err(self.fault(
                format!("tensor {}", part.name),
                format!(
                    "values in place of the model's own, and a scale of {}",
                    self.scale
                ),
                "a scale of 1: only what is added to a weight can be scaled",
            ));
        }
        let delta = match (&change.a, &change.b, &change.bias) {
            (None, None, None) => None,
            (None, None, Some(bias)) => {
                let b = self.values(bias, &shape)?;
                let factor = self.factor(&change.module, None, bias)?;
                let (a, rank) = (vec![1.0], 1);
                Some(Delta { a, b, rank, factor })
            }
            (Some(a), Some(b), None) => Some(self.delta(&change, a, b, &shape)?),
            (Some(one), _, _) | (_, Some(one), _) => {
                let got = "its other half is missing";
                return Err(self.fault(format!("tensor {}", one.name), got, "lora_A and lora_B"));
            }
        };
        let rows = match &change.rows {
            Some(part) => self.rows(&change.module, part, &shape)?,
            None => Rows::new(),
        };
        let tensor = match change.whole {
            Some(part) => stored(part.name, &part.view, &self.file, shape.clone())?,
            None => tensor,
        };
        if delta.is_none() && rows.is_empty() {
            return Ok(tensor);
        }
        let Stored { fill, .. } = tensor;
        let width = shape[1.min(shape.len())..].iter().product();
        Ok(Stored {
            fill: Box::new(move |range, out| {
                fill(range.clone(), out);
                if let Some(delta) = &delta {
                    delta.add(range.clone(), out, width);
                }
                for (at, row) in rows.range(range.clone()) {
                    out[(at - range.start) * width..][..width].copy_from_slice(row);
                }
            }),
            name: tensor.name,
            path: tensor.path,
            range: tensor.range,
            shape,
            is_bf16: false,
            codes: None,
            blocks: None,
        })
    }

    /// `B A` of a matrix of a shape, or `(B A)^T` of an embedding's.
    fn delta(
        &self,
        change: &Change<'_>,
        a: &Part<'_>,
        b: &Part<'_>,
        shape: &[usize],
    ) -> Result<Delta> {
        let &[n, k] = shape else {
            let place = format!("tensor {}", a.name);
            return Err(self.fault(place, "it belongs to a vector", "a matrix"));
        };
        let rank = a.view.shape().first().copied().unwrap_or(0);
        let factor = self.factor(&change.module, Some(rank), a)?;
        let (a, b) = match change.is_embedding {
            false => (self.values(a, &[rank, k])?, self.values(b, &[n, rank])?),
            true => {
                let (a, b) = (self.values(a, &[rank, n])?, self.values(b, &[k, rank])?);
                (transposed(&b, rank), transposed(&a, n))
            }
        };
        Ok(Delta { a, b, rank, factor })
    }

    /// Factor on `B A` of a module; `rank`, where it is known, is that of its `A`.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a rank is small and values are f32"
    )]
    fn factor(&self, module: &str, rank: Option<usize>, part: &Part<'_>) -> Result<f32> {
        let (expected, alpha) = self.config.rank_and_alpha(module);
        if let Some(rank) = rank.filter(|&rank| rank != expected || rank == 0) {
            return Err(self.fault(
                format!("tensor {}", part.name),
                format!("rank {rank}"),
                format!("{expected}, as {CONFIG} says"),
            ));
        }
        let rank = match self.config.use_rslora {
            true => (expected as f64).sqrt(),
            false => expected as f64,
        };
        Ok((self.scale * alpha / rank) as f32)
    }

    /// Trained rows of an embedding.
    fn rows(&self, module: &str, part: &Part<'_>, shape: &[usize]) -> Result<Rows> {
        let Some(ids) = self.config.token_indices(module) else {
            return Err(self.fault(
                format!("tensor {}", part.name),
                format!("{CONFIG} does not say which tokens its rows are of"),
                "trainable_token_indices",
            ));
        };
        let (n, width) = (shape[0], shape[1.min(shape.len())..].iter().product());
        if let Some(id) = ids.iter().find(|&&id| id >= n) {
            let got = format!("trainable_token_indices has the token {id}");
            let expected = format!("ids below {n}");
            return Err(self.fault(format!("tensor {}", part.name), got, expected));
        }
        let values = self.values(part, &[ids.len(), width])?;
        let rows = values.chunks_exact(width.max(1)).map(<[f32]>::to_vec);
        Ok(ids.into_iter().zip(rows).collect())
    }

    /// The values of a small tensor, which has a shape.
    fn values(&self, part: &Part<'_>, shape: &[usize]) -> Result<Vec<f32>> {
        let tensor = stored(part.name.clone(), &part.view, &self.file, shape.to_vec())?;
        let mut values = vec![0.0; shape.iter().product()];
        tensor.expect_finite(tensor.fill_once(0..tensor.rows(), &mut values))?;
        Ok(values)
    }

    fn fault(&self, place: String, got: impl Into<String>, expected: impl Into<String>) -> Error {
        Error::Adapter {
            path: match place.starts_with("tensor") {
                true => self.file.path().to_owned(),
                false => self.config_path.clone(),
            },
            place,
            got: got.into(),
            expected: expected.into(),
        }
    }
}

impl Delta {
    /// Adds to some rows; each is summed in the same order, whoever computes it.
    fn add(&self, range: Range<usize>, out: &mut [f32], width: usize) {
        let mut sum = vec![0.0; width];
        for (row, out) in range.zip(out.chunks_exact_mut(width.max(1))) {
            sum.fill(0.0);
            let weights = &self.b[row * self.rank..][..self.rank];
            for (weight, a) in weights.iter().zip(self.a.chunks_exact(width.max(1))) {
                for (sum, a) in sum.iter_mut().zip(a) {
                    *sum += weight * a;
                }
            }
            for (out, sum) in out.iter_mut().zip(&sum) {
                *out += self.factor * sum;
            }
        }
    }
}

/// A matrix with `columns` columns, transposed.
fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    let rows = values.len() / columns.max(1);
    let at = |column: usize| (0..rows).map(move |row| values[row * columns + column]);
    (0..columns).flat_map(at).collect()
}

/// A name of PEFT's: the module as its patterns see it, the module with its published name, and the
/// rest, from PEFT's own parts on.
fn place(family: Names, name: &str) -> (String, String, String) {
    /// How the names of PEFT's own parts begin.
    const PARTS: [&str; 2] = ["lora_", "token_adapter"];
    let rest = name.strip_prefix(PREFIX).unwrap_or(name);
    let parts: Vec<&str> = rest
        .split('.')
        .filter(|part| !INNER.contains(part))
        .collect();
    let is_part = |part: &&str| PARTS.iter().any(|start| part.starts_with(start));
    let end = parts
        .iter()
        .position(is_part)
        .unwrap_or(parts.len().saturating_sub(1));
    let (module, end) = parts.split_at(end);
    let plain: Vec<&str> = module
        .iter()
        .copied()
        .filter(|part| !names::WRAPPERS.contains(part))
        .collect();
    let place = match family.parts {
        [] => {
            let inner = plain.iter().position(|part| *part == "transformer");
            let inner = &plain[inner.map_or(0, |at| at + 1)..];
            format!("{}{}", family.root, inner.join("."))
        }
        _ => {
            let start = plain.iter().position(|part| *part == "model");
            plain[start.unwrap_or(0)..].join(".")
        }
    };
    (module.join("."), place, end.join("."))
}

#[cfg(test)]
mod tests;
