//! The CUDA backend against the CPU's scalar code, on the software device of `ptxsim` or, built
//! with `--cfg real_gpu`, on a GPU.

mod adamw;
mod add;
mod bounds;
mod embedding;
mod forward_process;
mod rms_norm;
mod rope;
mod support;
mod swiglu;
