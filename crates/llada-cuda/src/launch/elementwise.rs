//! Plans of the memory-bound kernels, which walk over flat runs or over tiles of rows
//! (`kernels/include/load128.cuh`).

use llada_kernels::args::LLADA_ELEMENTWISE_THREADS;
use llada_tensor::{Error, Result};

use crate::launch::LaunchPlan;

/// Threads of a block; the header says what limits them.
pub(crate) const THREADS: u32 = LLADA_ELEMENTWISE_THREADS;
/// Elements of 128 bits of `f32`.
pub(crate) const VECTOR: usize = 4;
/// More blocks than any device runs at once (170 multiprocessors of 8 such blocks, six times
/// over): threads take more than one run each instead, which costs no start of a block.
const MAX_BLOCKS: usize = 8192;
/// Most blocks along y.
const MAX_BLOCKS_Y: usize = 65_535;

/// A grid of threads that take `per_thread` elements of `n` at a time.
///
/// # Errors
/// None at present: larger operands make threads loop.
pub(crate) fn flat(op: &'static str, n: usize, per_thread: usize) -> Result<LaunchPlan> {
    let blocks = n.div_ceil(THREADS as usize * per_thread);
    LaunchPlan::linear(op, blocks.min(MAX_BLOCKS), THREADS)
}

/// A grid over a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowTiles {
    pub(crate) plan: LaunchPlan,
    /// Logarithm of the threads side by side in a row.
    pub(crate) lanes_log2: i32,
}

/// Blocks that cover `rows` rows of `d` elements, `per_thread` of a row at a time: as many threads
/// side by side as a row has runs, so that blocks of short rows take several of them.
///
/// # Errors
/// None at present, as above.
pub(crate) fn row_tiles(
    op: &'static str,
    rows: usize,
    d: usize,
    per_thread: usize,
) -> Result<RowTiles> {
    let runs = d.div_ceil(per_thread);
    let lanes_log2 = lanes_log2(runs, THREADS);
    let rows_per_block = (THREADS >> lanes_log2) as usize;
    let blocks = rows.div_ceil(rows_per_block).min(MAX_BLOCKS);
    let columns = runs.div_ceil(1 << lanes_log2).min(MAX_BLOCKS_Y);
    Ok(RowTiles {
        plan: LaunchPlan::new(op, [blocks, columns, 1], THREADS, 0)?,
        lanes_log2: lanes_log2.cast_signed(),
    })
}

/// Logarithm of the least power of two that is not below `runs`, or of `limit`, itself one.
pub(crate) fn lanes_log2(runs: usize, limit: u32) -> u32 {
    let runs = u32::try_from(runs).map_or(limit, |runs| runs.clamp(1, limit));
    runs.next_power_of_two().ilog2()
}

/// A count as the kernels' 64-bit arguments have it.
///
/// # Errors
/// [`Error::InvalidArgument`] from 2^63 on.
pub(crate) fn count(op: &'static str, n: usize) -> Result<i64> {
    let what = "a dimension is 2^63 or more";
    i64::try_from(n).map_err(|_| Error::InvalidArgument { op, what })
}

#[cfg(test)]
mod tests;
