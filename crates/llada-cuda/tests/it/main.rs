//! The CUDA backend against the CPU's scalar code, on the software device of `ptxsim` or, built
//! with `--cfg real_gpu`, on a GPU.

#![expect(unsafe_code, reason = "calls of the driver")]
#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

mod candidates;
mod cross_entropy;
mod images;
mod remask;
mod support;
