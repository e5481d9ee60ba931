//! The crates together, on small models.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

mod autoregressive;
mod batches;
mod convert;
mod families;
mod instruct;
mod plans;
mod prefixes;
mod speculate;
mod structured;
mod traditional;
