//! Plans of `kernels/rope.cu`.

use llada_tensor::{DType, Result};

use crate::launch::LaunchPlan;
use crate::launch::elementwise::{RowTiles, THREADS, VECTOR, lanes_log2};

/// More blocks than any device runs at once: they take more than one row each.
const MAX_BLOCKS: usize = 32_768;

/// A block per row of `heads` heads whose halves are `half` wide, written as `dtype`.
pub(crate) fn rope(rows: usize, heads: usize, half: usize, dtype: DType) -> Result<RowTiles> {
    let runs = half.div_ceil(4 * VECTOR / dtype.size_bytes());
    let lanes_log2 = lanes_log2(runs, THREADS);
    // No more rows of threads than heads, but whole warps.
    let heads = u32::try_from(heads).unwrap_or(THREADS).min(THREADS);
    let threads = (heads.next_power_of_two() << lanes_log2).clamp(32, THREADS);
    let blocks = if heads == 0 { 0 } else { rows.min(MAX_BLOCKS) };
    Ok(RowTiles {
        plan: LaunchPlan::linear("rope", blocks, threads)?,
        lanes_log2: lanes_log2.cast_signed(),
    })
}

#[cfg(test)]
mod tests;
