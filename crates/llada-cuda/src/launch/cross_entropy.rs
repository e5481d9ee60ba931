//! Grids of `/kernels/cross_entropy.cu`; its tiles are those of [`super::candidates`].

use std::ops::Range;

use llada_kernels::args::LladaCrossEntropyPartial;

use crate::launch::candidates::{HeadTile, Operands, passes};

/// Bytes of a part's gradient of the logits, `[N, len]`.
const SLOPE_BYTES: usize = 256 << 20;
/// Most entries of such a part, and a multiple of all its sizes.
const MOST_ENTRIES: usize = 8192;
const FEWEST_ENTRIES: usize = 1024;

/// The tile of so many rows, of those that have a kernel.
pub(crate) fn head_tile(operands: Operands, rows: usize) -> HeadTile {
    match HeadTile::of(operands, rows) {
        HeadTile::Bf16R32 => HeadTile::Bf16R64,
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

#[cfg(test)]
mod tests;
