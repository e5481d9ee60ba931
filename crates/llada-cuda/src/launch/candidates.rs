//! Grids of `/kernels/candidates.cu`, and of the tiles of an LM head, which are also those of
//! `/kernels/cross_entropy.cu`.

use std::ops::Range;

use llada_kernels::args::{
    LLADA_HEAD_SLAB_BYTES, LLADA_HEAD_TILE, LladaCandidatePartial, LladaRoundArgs,
};
use llada_tensor::{DType, Result};

use crate::launch::LaunchPlan;

/// Vocabulary entries of a tile.
pub(crate) const TILE: usize = LLADA_HEAD_TILE as usize;
/// Rows of the head whose values are made for a launch, where they are not in memory as they are
/// multiplied: whole tiles, 64 MiB of bf16 at `D = 4096`.
pub(crate) const PART: usize = 8192;
/// Bytes of the partials that are in memory at a time.
const PARTIAL_BYTES: usize = 256 << 20;
/// Threads of the launches that have no tiles.
const ROUND_THREADS: u32 = 256;
/// Threads of a merge, a warp per row.
const MERGE_THREADS: u32 = 128;

/// How many rows a tile of logits has. Results are the same for all: fewer rows leave more blocks
/// to a multiprocessor, more rows read the head less often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TileRows {
    /// 16 rows.
    R16,
    /// 32 rows.
    R32,
    /// 64 rows.
    R64,
    /// 128 rows, with bf16.
    R128,
}

impl TileRows {
    /// The smallest tile that holds all rows, or else the largest.
    pub(crate) fn of(dtype: DType, rows: usize) -> Self {
        match (dtype, rows) {
            (_, ..=16) => Self::R16,
            (DType::Bf16, ..=32) => Self::R32,
            (DType::F32, _) | (DType::Bf16, ..=64) => Self::R64,
            (DType::Bf16, _) => Self::R128,
        }
    }

    /// The number.
    pub(crate) fn rows(self) -> usize {
        self.shape()[0] as usize
    }

    /// Rows, threads of a block and slabs in its shared memory, as `HeadShape` in `head.cuh` has
    /// them.
    fn shape(self) -> [u32; 3] {
        match self {
            Self::R16 => [16, 128, 4],
            Self::R32 => [32, 128, 4],
            Self::R64 => [64, 128, 3],
            Self::R128 => [128, 256, 3],
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
        let shared_bytes = stages * (LLADA_HEAD_TILE + tile_rows) * LLADA_HEAD_SLAB_BYTES;
        let rows_of_block = self.rows() / logits;
        let grid = [rows.div_ceil(rows_of_block), entries.div_ceil(TILE), 1];
        LaunchPlan::new(op, grid, threads, shared_bytes)
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

/// A thread per four elements of a row.
pub(crate) fn round(op: &'static str, args: &LladaRoundArgs) -> Result<LaunchPlan> {
    let threads = usize::try_from(args.rows * ((args.d + 3) / 4)).unwrap_or(usize::MAX);
    LaunchPlan::linear(op, threads.div_ceil(ROUND_THREADS as usize), ROUND_THREADS)
}

#[cfg(test)]
mod tests;
