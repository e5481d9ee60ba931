//! LLaDA (arXiv 2502.09992) in Rust: the crates of the workspace under one name.
#![forbid(unsafe_code)]

mod checkpoint;
mod generate;
mod gguf;

use std::path::Path;

pub use checkpoint::Checkpoint;
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
pub use llada_model::{FrozenModel, Gguf, LladaModel, ModelConfig, ModelSource};
use llada_sample::AnswerLength;
pub use llada_sample::Overrides;
pub use llada_tensor::{CpuConfig, CpuLevel, Device, Precision};
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

/// Loads the model for inference of a folder or a GGUF file.
///
/// # Errors
/// As [`Checkpoint::open`] and [`Checkpoint::frozen`].
pub fn load(path: &Path, device: &Device, precision: Precision) -> Result<Llada, LoadError> {
    Checkpoint::open(path)?.frozen(device, precision)
}
