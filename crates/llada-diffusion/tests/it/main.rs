//! Tests of the diffusion mathematics against recordings and known distributions.
#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

mod autoregressive;
mod goldens;
mod likelihood;
mod scoring;
