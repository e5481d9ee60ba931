//! The CUDA backend against the CPU's scalar code, on the software device of `ptxsim` or, built
//! with `--cfg real_gpu`, on a GPU.

mod support;
