//! The LLaDA mask predictor: a bidirectional Transformer in the published configuration
//! (RMSNorm, RoPE, multi-head or grouped-query attention, SwiGLU), its config.json and its
//! safetensors, or a GGUF file.

pub mod config;
mod error;
pub mod gguf;
mod init;
mod model;
mod presets;
pub mod weights;
mod window;

pub use config::ModelConfig;
pub use error::{Error, Result};
pub use gguf::Gguf;
pub use model::LladaModel;
pub use presets::{PRESETS, preset};
