//! Tensor runtime of llada: storage, views, an object-safe [`Backend`](backend::Backend) with one method per op,
//! the fused ops of a masked diffusion Transformer with their gradients, a reverse-mode [`Tape`],
//! and counter-based random numbers ([`Philox`]).
//!
//! It knows no tokens, no Transformer and no files.

pub mod backend;
mod cpu;
mod device;
mod dtype;
mod error;
pub mod layers;
pub mod ops;
pub mod quantize;
mod rng;
mod storage;
mod tape;
mod tensor;

pub use cpu::level::CpuLevel;
pub use device::{CpuConfig, Device};
pub use dtype::{DType, Precision};
pub use error::{Error, Result};
pub use rng::{Philox, Stream};
pub use storage::Pool;
pub use tape::{Gradients, Tape, Var};
pub use tensor::Tensor;

pub use half::bf16;
