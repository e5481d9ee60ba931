//! A CUDA device in software.
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
mod stats;
