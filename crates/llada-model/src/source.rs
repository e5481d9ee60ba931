//! Where a model comes from: a folder in the HF layout, a GGUF file, or bytes in memory.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use llada_files::{looks_like, without_bom};
use llada_tensor::{Device, Precision};

use crate::adapter::{self, Adapter, AdapterConfig};
use crate::files::{INDEX, SINGLE};
use crate::stored::Stored;
use crate::weights::Safetensors;
use crate::{EosTokenIds, Error, FrozenModel, Gguf, LladaModel, ModelConfig, Result, quantized};

/// The configuration and the weights of a model: opened, and checked to fit together. Values are
/// read when a model is made of them.
#[derive(Debug)]
pub struct ModelSource {
    origin: Origin,
    adapters: Vec<Adapter>,
    warnings: Vec<String>,
    further_eos_token_ids: Vec<u32>,
}

/// What a caller says of a model whose files do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenOptions {
    /// The mask token. `None`: the one that `config.json` or the tokenizer names.
    pub mask_token_id: Option<u32>,
}

/// Where a model comes from.
#[derive(Debug)]
pub enum Origin {
    /// A folder in the HF layout.
    Folder {
        /// The folder.
        path: PathBuf,
        /// Its `config.json` and its safetensors.
        weights: Safetensors,
    },
    /// A GGUF file.
    Gguf(Gguf),
    /// The bytes of a `config.json` and of one safetensors file.
    Memory(Safetensors),
}

impl ModelSource {
    /// Opens a folder in the HF layout or a GGUF file; or the folder of an adapter, whose base lies
    /// at its `base_model_name_or_path`: the base with the adapter on it.
    ///
    /// # Errors
    /// One that names the file and the field or the tensor; [`Error::AdapterAlone`] for an adapter
    /// whose base is not there.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, OpenOptions::default())
    }

    /// As [`Self::open`], with what its files do not say.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(path: &Path, options: OpenOptions) -> Result<Self> {
        let config = path.join(adapter::CONFIG);
        if !config.is_file() {
            return Self::open_model(path, options);
        }
        let has_weights = [SINGLE, INDEX].iter().any(|name| path.join(name).is_file());
        if has_weights {
            let mut source = Self::open_model(path, options)?;
            source.warnings.push(format!(
                "{} holds weights and, beside them, an adapter: the weights are taken as they are, \
                 without the adapter",
                path.display()
            ));
            return Ok(source);
        }
        let config = AdapterConfig::read(&config)?;
        match config.base_folder(path) {
            Some(base) => Self::open_model(&base, options)?.with_adapter(path, 1.0),
            None => Err(Error::AdapterAlone {
                path: path.to_owned(),
                base: config.base().map(str::to_owned),
                revision: config.revision().map(str::to_owned),
            }),
        }
    }

    /// Lays a `LoRA` adapter of PEFT on the weights: the folder `dir` with `adapter_config.json` and
    /// `adapter_model.safetensors`. What it adds counts `scale` times; several adapters add up.
    /// Values are merged in `f32` when they are read.
    ///
    /// # Errors
    /// [`Error::Adapter`] names the field or the tensor that can't be merged; others name the file.
    pub fn with_adapter(mut self, dir: &Path, scale: f64) -> Result<Self> {
        self.adapters.push(Adapter::open(dir, scale)?);
        self.tensors()?;
        let own = match &self.origin {
            Origin::Folder { path, .. } => Some(path),
            Origin::Gguf(_) | Origin::Memory(_) => None,
        };
        // A trainer may have added tokens, or another template.
        for name in ["tokenizer.json", "chat_template.jinja"] {
            let Ok(of_adapter) = std::fs::read(dir.join(name)) else {
                continue;
            };
            let of_model = own.and_then(|path| std::fs::read(path.join(name)).ok());
            if of_model.is_none_or(|of_model| of_model != of_adapter) {
                self.warnings.push(format!(
                    "{} is not used: the model has its own, which differs",
                    dir.join(name).display()
                ));
            }
        }
        Ok(self)
    }

    /// As [`Self::with_adapter`], of the bytes of `adapter_config.json` and of
    /// `adapter_model.safetensors`.
    ///
    /// # Errors
    /// As there; messages name these files.
    pub fn with_adapter_bytes(
        mut self,
        config: &[u8],
        weights: impl Into<Cow<'static, [u8]>>,
        scale: f64,
    ) -> Result<Self> {
        let adapter = Adapter::from_bytes(config, weights.into(), scale)?;
        self.adapters.push(adapter);
        self.tensors()?;
        Ok(self)
    }

    /// Opens what holds weights of its own.
    fn open_model(path: &Path, options: OpenOptions) -> Result<Self> {
        let is_named = path.extension().is_some_and(|end| end == "gguf");
        if path.is_file() || (is_named && !path.is_dir()) {
            return Ok(Gguf::open_with(path, options)?.into());
        }
        if !path.exists() {
            let path = path.to_owned();
            return Err(Error::NoSuchPath { path });
        }
        let mut warnings = Vec::new();
        let weights = Safetensors::open(path, options.mask_token_id, &mut warnings)?;
        let generation = generation_eos(path)?;
        let path = path.to_owned();
        let mut source = Self::new(Origin::Folder { path, weights });
        source.warnings = warnings;
        source.add_eos(generation);
        Ok(source)
    }

    fn new(origin: Origin) -> Self {
        let mut source = Self {
            origin,
            adapters: Vec::new(),
            warnings: Vec::new(),
            further_eos_token_ids: Vec::new(),
        };
        source.add_eos(source.config().eos_token_id.all().to_vec());
        source
    }

    /// Adds tokens that end an answer beside the usual one; an id without an embedding is none that
    /// a model writes.
    fn add_eos(&mut self, ids: Vec<u32>) {
        let (usual, rows) = {
            let config = self.config();
            (config.eos_token_id.usual(), config.embedding_rows())
        };
        for id in ids {
            let is_new = id != usual && !self.further_eos_token_ids.contains(&id);
            if is_new && (id as usize) < rows {
                self.further_eos_token_ids.push(id);
            }
        }
    }

    /// Takes the bytes of `config.json` and of one safetensors file.
    ///
    /// # Errors
    /// As [`Self::open`]; messages name the files `config.json` and `model.safetensors`.
    pub fn from_bytes(config: &[u8], weights: impl Into<Cow<'static, [u8]>>) -> Result<Self> {
        let weights = Safetensors::from_bytes(config, weights.into())?;
        Ok(Self::new(Origin::Memory(weights)))
    }

    /// Where it comes from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What a user should know of the files: which were taken, and which were not.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Tokens that end an answer beside the usual one, [`crate::EosTokenIds::usual`]: of a list in
    /// `config.json`, and of `generation_config.json`.
    #[must_use]
    pub fn further_eos_token_ids(&self) -> &[u32] {
        &self.further_eos_token_ids
    }

    /// The configuration, with the fields of `config.json`.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        match &self.origin {
            Origin::Folder { weights, .. } | Origin::Memory(weights) => &weights.config,
            Origin::Gguf(file) => file.config(),
        }
    }

    /// About how many bytes the weights of [`Self::frozen`] take on a processor.
    #[must_use]
    pub fn frozen_bytes(&self, precision: Precision) -> usize {
        match &self.origin {
            Origin::Gguf(file) if self.adapters.is_empty() => file.frozen_bytes(precision),
            _ => self.config().frozen_bytes(precision, true),
        }
    }

    /// The precision for who has no wish: [`ModelConfig::default_precision`]; of a large GGUF file
    /// [`Precision::Blocks`], or, where it can't be, the most exact of bf16, int8 and int4 whose weights
    /// take about as much memory as the file.
    #[must_use]
    pub fn default_precision(&self, device: &Device) -> Precision {
        match &self.origin {
            Origin::Folder { weights, .. } | Origin::Memory(weights) => {
                weights.config.default_precision()
            }
            Origin::Gguf(file) => file.default_precision(device),
        }
    }

    /// The model for inference, one tensor after another: each is converted and packed straight
    /// from the mapped file, so that memory holds little more than the packed weights at any time.
    ///
    /// # Errors
    /// [`crate::Error::NotFinite`] and others that name the file and the tensor.
    pub fn frozen(&self, device: &Device, precision: Precision) -> Result<FrozenModel> {
        if precision == Precision::Blocks {
            self.expect_blocks(device)?;
        }
        let mapped = match &self.origin {
            // An adapter may change the embedding.
            Origin::Gguf(file) if self.adapters.is_empty() => file.embedding(precision),
            _ => None,
        };
        let tensors = self.tensors()?;
        FrozenModel::read(self.config().clone(), &tensors, mapped, device, precision)
    }

    fn expect_blocks(&self, device: &Device) -> Result<()> {
        let what = match &self.origin {
            Origin::Gguf(file) if !file.has_blocks() => "the file has no quantised weights",
            Origin::Gguf(_) if device.backend().keeps_blocks() => return Ok(()),
            Origin::Gguf(_) => "this device keeps none",
            _ => "only GGUF files have some",
        };
        Err(Error::NoBlocks { what })
    }

    /// The model to be trained; of a quantised one, the values that its codes stand for.
    ///
    /// # Errors
    /// As [`Self::frozen`].
    pub fn trainable(&self, device: &Device, precision: Precision) -> Result<LladaModel> {
        let mut config = self.config().clone();
        quantized::set_config(&mut config.other, Precision::F32);
        let tensors = self.tensors()?;
        let values = tensors.iter().map(|tensor| tensor.read(device));
        LladaModel::new(config, device, precision, values.collect::<Result<_>>()?)
    }

    /// The tensors in the order of [`ModelConfig::parameter_shapes`].
    pub(crate) fn tensors(&self) -> Result<Vec<Stored<'_>>> {
        let tensors = match &self.origin {
            Origin::Folder { weights, .. } | Origin::Memory(weights) => weights.tensors(),
            Origin::Gguf(file) => file.tensors(),
        };
        self.adapters.iter().try_fold(tensors?, |tensors, adapter| {
            adapter.apply(self.config(), tensors)
        })
    }
}

impl From<Gguf> for ModelSource {
    fn from(file: Gguf) -> Self {
        Self::new(Origin::Gguf(file))
    }
}

/// `eos_token_id` of the `generation_config.json` of a folder.
fn generation_eos(dir: &Path) -> Result<Vec<u32>> {
    #[derive(serde::Deserialize)]
    struct Generation {
        eos_token_id: Option<EosTokenIds>,
    }
    let path = dir.join("generation_config.json");
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let json = std::fs::read(&path).map_err(Error::io("reading", &path))?;
    let json = without_bom(&json);
    let parsed: Generation = serde_json::from_slice(json)
        .map_err(|error| Error::json(&path)(error).or_other(looks_like::JSON, &path, json))?;
    let ids = parsed.eos_token_id.as_ref().map(EosTokenIds::all);
    Ok(ids.unwrap_or_default().to_vec())
}

#[cfg(test)]
mod tests;
