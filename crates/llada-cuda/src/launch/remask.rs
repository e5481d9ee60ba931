//! Grids of `/kernels/remask.cu`.

use llada_tensor::Result;

use crate::launch::LaunchPlan;

/// Threads of a block, as the kernel has them.
const THREADS: u32 = 256;

/// A block per sequence.
pub(crate) fn remask(sequences: usize) -> Result<LaunchPlan> {
    LaunchPlan::linear("remask", sequences, THREADS)
}

#[cfg(test)]
mod tests;
