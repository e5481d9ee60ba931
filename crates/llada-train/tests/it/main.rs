//! The trainer with a toy model: resuming, crashes, bad input.

#![expect(clippy::unwrap_used, reason = "a failed call is a failed test")]

mod crash;
mod guard;
mod kill;
mod objective;
mod ranks;
mod resume;
mod threads;
mod toy;
