//! The trainer with a toy model: resuming, crashes, bad input.

mod crash;
mod kill;
mod objective;
mod resume;
mod toy;
