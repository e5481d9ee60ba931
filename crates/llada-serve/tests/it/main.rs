//! The server over real connections, with the embedded poem model.

mod answers;
mod faults;
mod scheduling;
mod server;
mod structured;
