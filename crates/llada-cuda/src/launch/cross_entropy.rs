//! Grids of `/kernels/cross_entropy.cu`; its tiles are those of [`super::candidates`].

use std::ops::Range;

use llada_kernels::args::LladaCrossEntropyPartial;
use llada_tensor::{DType, Result};

use crate::launch::LaunchPlan;
use crate::launch::candidates::{TileRows, passes};

/// Bytes of a part's gradient of the logits, `[N, len]`.
const SLOPE_BYTES: usize = 256 << 20;
/// Most entries of such a part, and a multiple of all its sizes.
const MOST_ENTRIES: usize = 8192;
const FEWEST_ENTRIES: usize = 1024;
/// Columns that a block adds up.
const BIAS_COLUMNS: usize = 32;
const BIAS_THREADS: u32 = 256;

/// Rows of a tile.
pub(crate) fn tile_rows(dtype: DType, rows: usize) -> TileRows {
    match TileRows::of(dtype, rows) {
        TileRows::R32 => TileRows::R64,
        other => other,
    }
}

/// Rows that are reduced together.
pub(crate) fn row_passes(rows: usize, vocab_size: usize) -> impl Iterator<Item = Range<usize>> {
    passes(rows, vocab_size, size_of::<LladaCrossEntropyPartial>())
}

/// Vocabulary entries whose gradients are in memory at a time.
pub(crate) fn backward_entries(rows: usize) -> usize {
    let fitting = SLOPE_BYTES / (size_of::<f32>() * rows.max(1));
    let whole = fitting / FEWEST_ENTRIES * FEWEST_ENTRIES;
    whole.clamp(FEWEST_ENTRIES, MOST_ENTRIES)
}

/// A block per 32 columns.
pub(crate) fn bias(op: &'static str, columns: usize) -> Result<LaunchPlan> {
    LaunchPlan::linear(op, columns.div_ceil(BIAS_COLUMNS), BIAS_THREADS)
}

#[cfg(test)]
mod tests;
