//! Tests of the sampler: against recordings of the reference, known distributions, and for what
//! must hold of every canvas.
#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

mod ahead;
mod allowed;
mod autoregressive;
mod canvas;
mod commit;
mod distribution;
mod errors;
mod goldens;
mod guidance;
mod nucleus;
mod observer;
mod policy;
mod protocols;
mod published;
mod session;
mod speculate;
