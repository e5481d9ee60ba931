//! The CUDA backend against the CPU's scalar code, on the software device of `ptxsim` or, built
//! with `--cfg real_gpu`, on a GPU.

#![expect(clippy::unwrap_used, reason = "a test that fails panics")]
#![expect(unsafe_code, reason = "calls of the driver")]
mod adamw;
mod add;
mod attention;
mod bf16;
mod bounds;
mod candidates;
mod cross_entropy;
mod embedding;
mod graphs;
mod images;
mod matmul;
mod moe;
mod quantized;
mod rms_norm;
mod rope;
mod support;
mod swiglu;
