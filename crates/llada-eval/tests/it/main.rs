//! Evaluations of predictors whose results are known.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

mod poet;
mod reversal;
mod scaling;
mod tasks;
mod tune;

use std::ops::ControlFlow;

/// An observer that lets everything happen.
fn all(_: usize, _: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}
