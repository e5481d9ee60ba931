//! Grids of `/kernels/candidates.cu`, and of the tiles of an LM head, which are also those of
//! `/kernels/cross_entropy.cu`.

use std::ops::Range;

use llada_kernels::args::{
    LLADA_HEAD_LOGIT_STRIDE, LLADA_HEAD_SLAB_BYTES, LLADA_HEAD_TILE, LladaCandidatePartial,
};
use llada_tensor::{DType, Result};

use crate::launch::LaunchPlan;

/// Vocabulary entries of a tile.
pub(crate) const TILE: usize = LLADA_HEAD_TILE as usize;
/// Vocabulary entries of a launch where its operands are made for it: whole tiles, 64 MiB of bf16
/// weights at `D = 4096`.
pub(crate) const PART: usize = 8192;
/// Bytes of the partials that are in memory at a time.
const PARTIAL_BYTES: usize = 256 << 20;
/// Threads of a merge, a warp per row.
const MERGE_THREADS: u32 = 128;

/// What the logits of a head are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operands {
    /// Hidden states and weights of this type.
    Values(DType),
    /// They are in memory.
    Logits,
}

/// How a tile of logits is computed, and how many rows it has. Results are the same for all
/// numbers: fewer rows leave more blocks to a multiprocessor, more rows read the head less often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadTile {
    /// bf16, 16 rows.
    Bf16R16,
    /// bf16, 32 rows.
    Bf16R32,
    /// bf16, 64 rows.
    Bf16R64,
    /// bf16, 128 rows.
    Bf16R128,
    /// `f32`, 16 rows.
    F32R16,
    /// `f32`, 64 rows.
    F32R64,
    /// Logits in memory, 16 rows.
    Logits,
}

impl HeadTile {
    /// The smallest tile that holds all rows, or else the largest.
    pub(crate) fn of(operands: Operands, rows: usize) -> Self {
        match (operands, rows) {
            (Operands::Logits, _) => Self::Logits,
            (Operands::Values(DType::F32), ..=16) => Self::F32R16,
            (Operands::Values(DType::F32), _) => Self::F32R64,
            (Operands::Values(DType::Bf16), ..=16) => Self::Bf16R16,
            (Operands::Values(DType::Bf16), ..=32) => Self::Bf16R32,
            (Operands::Values(DType::Bf16), ..=64) => Self::Bf16R64,
            (Operands::Values(DType::Bf16), _) => Self::Bf16R128,
        }
    }

    /// Rows, threads of a block and slabs in its shared memory, as `HeadShape` in `head.cuh` has
    /// them.
    fn shape(self) -> [u32; 3] {
        match self {
            Self::Bf16R16 | Self::F32R16 => [16, 128, 4],
            Self::Bf16R32 => [32, 128, 4],
            Self::Bf16R64 | Self::F32R64 => [64, 128, 3],
            Self::Bf16R128 => [128, 256, 3],
            Self::Logits => [16, 128, 0],
        }
    }

    /// A block per tile of `entries` vocabulary entries and `rows` rows, each of which takes
    /// `logits` rows of a tile: two with guidance.
    pub(crate) fn plan(
        self,
        op: &'static str,
        [rows, logits]: [usize; 2],
        entries: usize,
    ) -> Result<LaunchPlan> {
        let [tile_rows, threads, stages] = self.shape();
        let slabs = stages * (LLADA_HEAD_TILE + tile_rows) * LLADA_HEAD_SLAB_BYTES;
        let tile = tile_rows * LLADA_HEAD_LOGIT_STRIDE * 4;
        let rows_of_block = tile_rows as usize / logits;
        let grid = [rows.div_ceil(rows_of_block), entries.div_ceil(TILE), 1];
        LaunchPlan::new(op, grid, threads, slabs.max(tile))
    }
}

/// Tiles of a vocabulary.
pub(crate) fn tiles(vocab_size: usize) -> usize {
    vocab_size.div_ceil(TILE)
}

/// Rows that are reduced together: as many as their partials, of `bytes` each, leave room for.
pub(crate) fn passes(
    rows: usize,
    vocab_size: usize,
    bytes: usize,
) -> impl Iterator<Item = Range<usize>> {
    let fitting = PARTIAL_BYTES / (tiles(vocab_size).max(1) * bytes);
    let step = (fitting / 128 * 128).max(128);
    (0..rows)
        .step_by(step)
        .map(move |start| start..rows.min(start + step))
}

/// [`passes`] of candidates.
pub(crate) fn candidate_passes(
    rows: usize,
    vocab_size: usize,
) -> impl Iterator<Item = Range<usize>> {
    passes(rows, vocab_size, size_of::<LladaCandidatePartial>())
}

/// A warp per row.
pub(crate) fn merge(op: &'static str, rows: usize) -> Result<LaunchPlan> {
    LaunchPlan::linear(
        op,
        rows.div_ceil(MERGE_THREADS as usize / 32),
        MERGE_THREADS,
    )
}

#[cfg(test)]
mod tests;
