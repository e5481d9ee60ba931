//! Where a model comes from: a folder in the HF layout, a GGUF file, or bytes in memory.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use llada_tensor::{Device, Precision};

use crate::stored::Stored;
use crate::weights::Safetensors;
use crate::{FrozenModel, Gguf, LladaModel, ModelConfig, Result, quantized};

/// The configuration and the weights of a model: opened, and checked to fit together. Values are
/// read when a model is made of them.
#[derive(Debug)]
pub enum ModelSource {
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
    /// Opens a folder in the HF layout or a GGUF file.
    ///
    /// # Errors
    /// One that names the file and the field or the tensor; no value of a tensor was looked at.
    pub fn open(path: &Path) -> Result<Self> {
        let is_named = path.extension().is_some_and(|end| end == "gguf");
        if path.is_file() || (is_named && !path.is_dir()) {
            return Ok(Self::Gguf(Gguf::open(path)?));
        }
        let weights = Safetensors::open(path)?;
        let path = path.to_owned();
        Ok(Self::Folder { path, weights })
    }

    /// Takes the bytes of `config.json` and of one safetensors file.
    ///
    /// # Errors
    /// As [`Self::open`]; messages name the files `config.json` and `model.safetensors`.
    pub fn from_bytes(config: &[u8], weights: impl Into<Cow<'static, [u8]>>) -> Result<Self> {
        let weights = Safetensors::from_bytes(config, weights.into())?;
        Ok(Self::Memory(weights))
    }

    /// The configuration, with the fields of `config.json`.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        match self {
            Self::Folder { weights, .. } | Self::Memory(weights) => &weights.config,
            Self::Gguf(file) => file.config(),
        }
    }

    /// The model for inference, one tensor after another: each is converted and packed straight
    /// from the mapped file, so that memory holds little more than the packed weights at any time.
    ///
    /// # Errors
    /// [`crate::Error::NotFinite`] and others that name the file and the tensor.
    pub fn frozen(&self, device: &Device, precision: Precision) -> Result<FrozenModel> {
        FrozenModel::read(self.config().clone(), &self.tensors()?, device, precision)
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
        match self {
            Self::Folder { weights, .. } | Self::Memory(weights) => weights.tensors(),
            Self::Gguf(file) => file.tensors(),
        }
    }
}

#[cfg(test)]
mod tests;
