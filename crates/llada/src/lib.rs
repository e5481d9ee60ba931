//! LLaDA (arXiv 2502.09992) in Rust: the crates of the workspace under one name.
#![forbid(unsafe_code)]

mod convert;
mod embedded;
mod generate;
mod gguf;

use std::path::Path;

pub use convert::convert;
pub use embedded::{EMBEDDED_CONFIG, embedded, embedded_trainable};
#[cfg(feature = "cuda")]
pub use llada_cuda::{CudaConfig, device as cuda_device, device_count as cuda_device_count};
pub use llada_diffusion as diffusion;
pub use llada_eval as eval;
pub use llada_model as model;
pub use llada_sample as sample;
pub use llada_tensor as tensor;
pub use llada_text as text;
pub use llada_train as train;

pub use generate::{Answer, GenerateError, Prompt, Score, Step, Stream, Task};
use llada_model::gguf::is_gguf;
pub use llada_model::{FrozenModel, Gguf, LladaModel, ModelConfig};
use llada_sample::AnswerLength;
pub use llada_sample::Overrides;
pub use llada_tensor::{CpuConfig, CpuLevel, Device, Precision};
use llada_text::ChatTemplate;
pub use llada_text::Tokenizer;

/// A mask predictor with its tokenizer: for inference, or a [`LladaModel`] to be trained.
#[derive(Debug)]
pub struct Llada<M = FrozenModel> {
    /// The mask predictor.
    pub model: M,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Length of an answer if none is asked for.
    pub answer_length: AnswerLength,
}

impl<M> Llada<M> {
    fn new(model: M, tokenizer: Tokenizer) -> Self {
        Self {
            model,
            tokenizer,
            answer_length: AnswerLength::default(),
        }
    }
}

/// Errors of loading.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The configuration or the weights.
    #[error(transparent)]
    Model(#[from] llada_model::Error),
    /// The tokenizer.
    #[error(transparent)]
    Text(#[from] llada_text::Error),
}

/// Loads a folder in the HF layout (`config.json`, safetensors and `tokenizer.json`) or a GGUF file.
///
/// # Errors
/// One that names the file and what is wrong with it.
pub fn load(path: &Path, device: &Device, precision: Precision) -> Result<Llada, LoadError> {
    if is_gguf(path) {
        return gguf::load(&Gguf::open(path)?, device, precision);
    }
    let model = llada_model::weights::load_frozen(path, device, precision)?;
    let tokenizer = Tokenizer::from_dir(path)?;
    Ok(Llada::new(model, tokenizer))
}

/// As [`load`], to be trained.
///
/// # Errors
/// As [`load`].
pub fn load_trainable(
    path: &Path,
    device: &Device,
    precision: Precision,
) -> Result<Llada<LladaModel>, LoadError> {
    // The vocabulary first: it is quick to fail.
    let tokenizer = match is_gguf(path) {
        true => gguf::tokenizer(&Gguf::open(path)?)?,
        false => Tokenizer::from_dir(path)?,
    };
    let model = llada_model::weights::load(path, device, precision)?;
    Ok(Llada::new(model, tokenizer))
}

/// The chat template of a folder or a GGUF file.
///
/// # Errors
/// [`llada_text::Error::NoChatTemplate`] if there is none, others that name the file.
pub fn chat_template(path: &Path) -> Result<ChatTemplate, LoadError> {
    if is_gguf(path) {
        return gguf::chat_template(&Gguf::open(path)?);
    }
    Ok(ChatTemplate::from_dir(path)?)
}
