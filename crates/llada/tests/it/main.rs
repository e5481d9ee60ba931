//! The crates together, on small models.
#![forbid(unsafe_code)]

mod batches;
