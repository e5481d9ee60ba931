//! Plan of `kernels/forward_process.cu`.

use llada_tensor::Result;

use crate::launch::LaunchPlan;
use crate::launch::elementwise::flat;

/// A thread per token.
pub(crate) fn forward_process(tokens: usize) -> Result<LaunchPlan> {
    flat("forward_process", tokens, 1)
}

#[cfg(test)]
mod tests;
