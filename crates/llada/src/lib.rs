//! LLaDA (arXiv 2502.09992) in Rust: the crates of the workspace under one name, and the way from
//! texts to texts.
//!
//! ```
//! use llada::diffusion::LikelihoodConfig;
//! use llada::{Checkpoint, CpuConfig, Device, Overrides, Precision, Task};
//!
//! let device = Device::cpu(CpuConfig::default())?;
//! // Or `Checkpoint::open(path)`: a folder in the layout of the Hugging Face Hub, or a GGUF file.
//! let llada = Checkpoint::embedded()?.frozen(&device, Precision::F32)?;
//! let usual = Overrides::default();
//! let answer = llada.generate("床前明月光，", &usual)?;
//! assert_eq!(answer.text, "疑是地上霜。举头望明月，低头思故乡。");
//! for step in llada.stream(&Task::infill("□□□□□，低头思故乡。"), &usual)? {
//!     println!("{}", step?.text); // □ for what is still masked
//! }
//! let score = llada.score("床前明月光，", "疑是地上霜。", &LikelihoodConfig::default())?;
//! assert!(score.is_greedy);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! These give what `llada generate`, `infill` and `score` print. [`Llada::session`] takes requests
//! that join and leave while others are on their way; [`sample`] is the crate below it, which works
//! on tokens and on any [`diffusion::MaskPredictor`].
#![forbid(unsafe_code)]

mod checkpoint;
mod generate;
mod gguf;
mod structured;

use std::path::Path;

pub use checkpoint::{Checkpoint, protocol};
#[cfg(feature = "cuda")]
pub use llada_cuda::{CudaConfig, device as cuda_device, device_count as cuda_device_count};
#[doc(inline)]
pub use llada_diffusion as diffusion;
#[doc(inline)]
pub use llada_eval as eval;
#[doc(inline)]
pub use llada_model as model;
#[doc(inline)]
pub use llada_sample as sample;
#[doc(inline)]
pub use llada_tensor as tensor;
#[doc(inline)]
pub use llada_text as text;
#[doc(inline)]
pub use llada_train as train;

pub use generate::{Answer, GenerateError, Prompt, Score, Step, Stream, Task};
pub use llada_model::{
    Family, FrozenModel, Gguf, GgufType, LladaModel, ModelConfig, ModelSource, OpenOptions,
};
use llada_sample::AnswerLength;
pub use llada_sample::{Overrides, Protocol};
pub use llada_tensor::{CpuConfig, CpuLevel, Device, Precision};
pub use llada_text::Tokenizer;
pub use structured::{JsonVocabulary, Stage, StageResult, Structured, StructuredError, likeliest};

/// A mask predictor with its tokenizer: for inference, or a [`LladaModel`] to be trained.
#[derive(Debug)]
pub struct Llada<M = FrozenModel> {
    /// The mask predictor.
    pub model: M,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Tokens that end an answer beside the EOS, see [`ModelSource::further_eos_token_ids`].
    pub further_eos_token_ids: Vec<u32>,
    /// Length of an answer if none is asked for.
    pub answer_length: AnswerLength,
    /// Whether the model was trained on whole documents, so that a text is shown with its end.
    pub whole_documents: bool,
    /// The loop that the model was published with, and what requests of it are by default.
    pub protocol: Protocol,
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
