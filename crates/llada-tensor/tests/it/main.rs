//! The ops against `f64` references, their gradients by central differences, odd shapes, at
//! every level that the machine has.
#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

mod adamw;
mod add;
mod attention;
mod blocks;
mod candidates;
mod cross_entropy;
mod embedding;
mod errors;
mod gradients;
mod matmul;
mod memory;
mod moe;
mod muon;
mod quantized;
mod reference;
mod rms_norm;
mod rope;
mod routing;
mod support;
mod swiglu;
