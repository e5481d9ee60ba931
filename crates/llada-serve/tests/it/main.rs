//! The server over real connections, with the embedded poem model.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

mod answers;
mod families;
mod faults;
mod scheduling;
mod server;
mod structured;
