//! Plans of `kernels/rms_norm.cu`.

use llada_kernels::args::{LLADA_RMS_NORM_ELEMENTS, LLADA_RMS_NORM_THREADS};
use llada_tensor::Result;

use crate::launch::LaunchPlan;

/// Fewest rows of a chunk: the partial sum of a chunk costs as much as half a row.
const MIN_CHUNK_ROWS: usize = 8;
/// Warps of all chunks together, if there are rows for them: half of what the largest devices run
/// at once, so that loads are on their way while others wait. Narrow rows have few warps each.
const WARPS: usize = 4096;

/// A block per row, forward.
pub(crate) fn rms_norm(rows: usize, d: usize) -> Result<LaunchPlan> {
    let threads = threads(d);
    LaunchPlan::linear("rms_norm", if d == 0 { 0 } else { rows }, threads)
}

/// The backward launch, a block per chunk of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backward {
    pub(crate) plan: LaunchPlan,
    /// Rows of a chunk; the last one may have fewer.
    pub(crate) chunk_rows: usize,
    pub(crate) chunks: usize,
}

/// A block per chunk of rows. How many rows that is depends on their number and width alone, and so
/// does the gradient of the weight.
pub(crate) fn rms_norm_backward(rows: usize, d: usize) -> Result<Backward> {
    let threads = threads(d);
    let most_chunks = WARPS / (threads / 32) as usize;
    let chunk_rows = rows.div_ceil(most_chunks).max(MIN_CHUNK_ROWS);
    let chunks = if d == 0 { 0 } else { rows.div_ceil(chunk_rows) };
    Ok(Backward {
        plan: LaunchPlan::linear("rms_norm_backward", chunks, threads)?,
        chunk_rows,
        chunks,
    })
}

/// Whole warps that keep a row in registers; the header says what limits them.
fn threads(d: usize) -> u32 {
    let limit = LLADA_RMS_NORM_THREADS;
    let needed = d.div_ceil(LLADA_RMS_NORM_ELEMENTS as usize);
    let needed = u32::try_from(needed).unwrap_or(limit).min(limit);
    needed.next_multiple_of(32).max(32)
}

#[cfg(test)]
mod tests;
