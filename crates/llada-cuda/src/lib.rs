//! The CUDA backend of llada: the [`Backend`](llada_tensor::backend::Backend) of an NVIDIA GPU.
//!
//! The driver is loaded at run time, so that one binary runs with and without a GPU; the kernels
//! are those of `llada-kernels`, which are there with the feature `nvcc`. Device code is in
//! `/kernels`; here a kernel is three things of one name: `launch/<op>.rs` says with which grid it
//! runs, as a pure function of shapes, `ops/<op>.rs` fills its arguments and launches it, and
//! `backend.rs` is the list of all ops.
//!
//! Imports go one way, from `driver.rs` down: `backend`, `graphs`, `ops`, `gemm`, `operands`,
//! `context`, and on the ground `memory`, `launch`, `product` and `error`.
//!
//! Everything runs in order on one stream. Memory comes from a caching allocator and goes back to
//! it at once: what is launched later runs later.
//!
//! The tests run on the software device of the crate `ptxsim`; `cargo xtask gpu` packs them for a
//! GPU.

#![expect(
    unsafe_code,
    reason = "calls of the CUDA driver and launches of kernels"
)]

mod backend;
mod context;
mod driver;
mod error;
mod gemm;
mod graphs;
mod launch;
mod memory;
mod operands;
mod ops;
mod product;

pub use driver::{CudaConfig, device, device_count};
