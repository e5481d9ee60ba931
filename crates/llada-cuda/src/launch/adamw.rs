//! Plans of `kernels/adamw.cu` and `kernels/global_norm.cu`.

use llada_kernels::args::LLADA_GLOBAL_NORM_RUNS;
use llada_tensor::Result;

use crate::launch::LaunchPlan;
use crate::launch::elementwise::{THREADS, VECTOR, flat};

/// Most partial sums: a fixed number, so that the sum is the same on all devices; the largest
/// ones run so many blocks at once.
pub(crate) const MAX_PARTIALS: usize = 1024;

/// One update of `n` elements.
pub(crate) fn adamw(n: usize) -> Result<LaunchPlan> {
    flat("adamw", n, VECTOR)
}

/// Partial sums of the squares of `n` elements, one per block.
pub(crate) fn sum_of_squares(n: usize) -> Result<LaunchPlan> {
    let tile = THREADS as usize * VECTOR * LLADA_GLOBAL_NORM_RUNS as usize;
    let blocks = n.div_ceil(tile).min(MAX_PARTIALS);
    LaunchPlan::linear("sum_of_squares", blocks, THREADS)
}

/// The sums of the partial sums, a block per tensor.
pub(crate) fn totals(tensors: usize) -> Result<LaunchPlan> {
    LaunchPlan::linear("sum_of_squares", tensors, THREADS)
}

#[cfg(test)]
mod tests;
