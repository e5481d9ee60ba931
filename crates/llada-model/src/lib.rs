//! The LLaDA mask predictor: a bidirectional Transformer in the published configuration
//! (RMSNorm, RoPE, multi-head or grouped-query attention, SwiGLU), its config.json and its
//! safetensors, or a GGUF file.

mod adapter;
pub mod companions;
pub mod config;
pub mod convert;
mod error;
mod family;
mod files;
mod frozen;
mod gguf;
mod init;
mod lora;
mod model;
mod network;
mod presets;
mod quantized;
mod source;
mod stored;
pub mod weights;
mod window;

pub use config::{EosTokenIds, ModelConfig};
pub use error::{Error, Result};
pub use family::Family;
pub use frozen::FrozenModel;
pub use gguf::{Gguf, GgufType, GgufValue};
pub use lora::{LoraConfig, TARGETS as LORA_TARGETS};
pub use model::LladaModel;
pub use presets::{PRESETS, preset};
pub use source::{ModelSource, OpenOptions, Origin};

#[cfg(test)]
mod tests;
