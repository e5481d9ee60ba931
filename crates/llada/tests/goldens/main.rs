//! Recorded results of the reference implementation, replayed.
//!
//! The cases are those of the folder named by `LLADA_GOLDENS`, or this folder's own copy. They are
//! found by listing it: nothing about a case is known here, and a kind without a case fails.
#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

mod demo;
mod families;
mod families_forward;
mod families_generate;
mod families_score;
mod families_text;
mod fastdllm;
mod files;
mod forward;
mod generate;
mod likelihood;
mod schedule;
mod speculate;
mod text;
mod train;
