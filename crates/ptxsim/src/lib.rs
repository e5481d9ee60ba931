//! A CUDA device in software: a `libcuda.so` that interprets PTX. A dev-dependency only.
//!
//! The crate's library is named `cuda`, so that its shared object is `libcuda.so` and lands where
//! `cargo test` looks for libraries. A program that loads the CUDA driver at run time gets this device
//! instead, without a change; `README.md` says how to wire it up, what it finds and what it can't show.
//!
//! From the driver's interface down:
//!
//! - `ffi` exports the C functions, `device` keeps what is behind their handles. Streams are queues that
//!   run when somebody waits, in the order that streams and events ask for.
//! - `ptx` parses the text of a module, `decode` turns it into the instructions of `isa`, in which
//!   registers are numbers, symbols are addresses, and calls have been expanded.
//!   `registers` lets values that are never needed at once share a register.
//! - `exec` runs them. A register is an array of 32 lanes, and an instruction runs for all lanes of a
//!   group at once. Where lanes part, the group with the lowest place goes first, and groups that meet
//!   become one. Blocks run in parallel, unless their order shows.
//! - `memory` knows the bounds of allocations, `exec::shadow` who touched which byte of shared memory.
//!
//! There is no Rust interface: settings are environment variables and the `ptxsim_*` functions, because
//! a test that links this crate and loads the shared object has two copies of every static.
#![expect(
    unsafe_code,
    reason = "it exports a C interface, and gives out addresses as a device does"
)]

mod decode;
mod device;
mod exec;
mod ffi;
mod isa;
mod memory;
mod ptx;
mod registers;
mod stats;
