//! Plans of `kernels/add.cu`.

use llada_tensor::Result;

use crate::launch::LaunchPlan;
use crate::launch::elementwise::{RowTiles, THREADS, VECTOR, flat, lanes_log2, row_tiles};

/// Threads side by side in a column sum: 8 of 16 bytes read whole memory sectors, and more would
/// leave too few blocks for the second stage of a model's width.
const COLUMN_LANES: u32 = 8;
/// Fewest rows of a chunk: its sums cost as much as two rows.
const MIN_CHUNK_ROWS: usize = 128;
/// Most chunks, whose sums the blocks of one row of the grid add up.
const MAX_CHUNKS: usize = 256;

/// An addition, or axpby, of `n` elements.
pub(crate) fn add(op: &'static str, n: usize) -> Result<LaunchPlan> {
    flat(op, n, VECTOR)
}

/// The addition of a row to all rows.
pub(crate) fn add_row(rows: usize, d: usize) -> Result<RowTiles> {
    row_tiles("add", rows, d, VECTOR)
}

/// One stage of a column sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ColumnSum {
    pub(crate) plan: LaunchPlan,
    pub(crate) lanes_log2: i32,
    /// Rows of a chunk; the last one may have fewer.
    pub(crate) chunk_rows: usize,
    pub(crate) chunks: usize,
}

/// The first stage of a column sum, to a row per chunk. It has one chunk if the second stage
/// alone will do.
pub(crate) fn column_sum_chunks(rows: usize, d: usize) -> Result<ColumnSum> {
    let chunk_rows = rows.div_ceil(MAX_CHUNKS).max(MIN_CHUNK_ROWS);
    column_sum(rows, d, chunk_rows)
}

/// The stage of a column sum that adds up all rows.
pub(crate) fn column_sum_total(rows: usize, d: usize) -> Result<ColumnSum> {
    column_sum(rows, d, rows.max(1))
}

fn column_sum(rows: usize, d: usize, chunk_rows: usize) -> Result<ColumnSum> {
    let runs = d.div_ceil(VECTOR);
    let lanes_log2 = lanes_log2(runs, COLUMN_LANES);
    let chunks = rows.div_ceil(chunk_rows);
    let grid = [runs.div_ceil(1 << lanes_log2), chunks, 1];
    Ok(ColumnSum {
        plan: LaunchPlan::new("column_sum", grid, THREADS, 0)?,
        lanes_log2: lanes_log2.cast_signed(),
        chunk_rows,
        chunks,
    })
}

#[cfg(test)]
mod tests;
