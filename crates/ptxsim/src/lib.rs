//! A software CUDA device: a `libcuda` that interprets the PTX of the kernels it is given.
//!
//! The crate builds a shared library of the name `libcuda.so` with the part of the driver API that
//! `cudarc` calls. A program that loads the driver at run time finds it where it looks for the real
//! one (`cargo test` puts the folder of a dev-dependency's libraries on the library path), and runs
//! unchanged: allocations, copies, streams, events, graphs, launches.
//!
//! What it is for, and what not:
//!
//! - Kernels are tested on any machine, as nvcc compiled them, inline PTX included: `mma.sync`,
//!   `ldmatrix`, `cp.async`, shuffles, votes, atomics. An instruction that it does not know is an
//!   error when the module is loaded, with its line.
//! - With `PTXSIM_CHECK=1` it looks for what hardware lets pass: races in shared memory between
//!   barriers, accesses outside of allocations or to freed memory, reads of memory that was never
//!   written, missing waits for asynchronous copies, barriers that not all threads reach, and lanes
//!   that wait for each other. Misaligned accesses and deadlocks are errors in any case. An error
//!   names kernel, source line, block and thread, fails the launch as on hardware, and stays.
//! - Work is queued and done when something waits for it, and asynchronous copies land as late as
//!   they may, so that a missing synchronization shows; warps take turns in an order that
//!   `PTXSIM_SEED` shuffles.
//! - `PTXSIM_STATS=FILE` appends a line of JSON for every launch: instructions, tensor-core products,
//!   bank conflicts of shared memory, sectors of global memory.
//! - It says nothing about speed, about the code that ptxas makes of the PTX, or about races between
//!   blocks, and the last bits of approximate functions are its own.
//!
//! `PTXSIM_MEMORY` is the size of the device's memory in bytes (4 GiB).
//! Calls of device functions that are not inlined, textures, and the instructions of Hopper
//! (`wgmma`, TMA, clusters) are not there.

#![expect(
    unsafe_code,
    reason = "the driver's C interface, and memory that kernels share"
)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "PTX reinterprets and truncates bits"
)]

mod alu;
mod block;
mod convert;
mod device;
pub mod driver;
mod exec;
mod fatbin;
mod inst;
mod launch;
mod memory;
mod ptx;
mod shared;
mod stats;
mod tensor;
mod warp;
