//! Every instruction against plain Rust: on the emulator, or on a processor that has AMX, where
//! the same tests show that the plain Rust is right.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![expect(unsafe_code, reason = "AMX instructions have no safe form")]

mod asm;
mod configuration;
mod deaths;
mod memory;
mod products;
mod threads;
