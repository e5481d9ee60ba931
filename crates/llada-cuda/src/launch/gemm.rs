//! Launch plans of `/kernels/gemm.cu`.

use llada_kernels::args;
use llada_tensor::{DType, Result};

use crate::launch::LaunchPlan;

const OP: &str = "gemm";
/// Products of one launch, which are the blocks along z.
pub(crate) const MAX_BATCH: usize = 65_535;
/// With fewer large tiles than this a GPU of about a hundred multiprocessors has idle ones, and
/// small tiles are better; results are the same.
const ENOUGH_TILES: usize = 128;
/// Blocks of the kernels that loop over elements: enough for any GPU.
const MAX_BLOCKS: usize = 8192;

/// Entry and plan of a product of at most [`MAX_BATCH`] matrices.
///
/// # Errors
/// If there are too many tiles for one launch.
pub(crate) fn gemm(
    dtype: DType,
    m: usize,
    n: usize,
    batch: usize,
) -> Result<(&'static str, LaunchPlan)> {
    let tiles = |tile_m: u32, tile_n: u32| {
        let rows = m.div_ceil(tile_m as usize);
        rows.saturating_mul(n.div_ceil(tile_n as usize))
    };
    let large = tiles(args::LLADA_GEMM_BF16_TILE, args::LLADA_GEMM_BF16_TILE);
    let (entry, blocks, threads) = match dtype {
        DType::F32 => (
            "llada_gemm_fwd_f32",
            tiles(args::LLADA_GEMM_F32_TILE_M, args::LLADA_GEMM_F32_TILE_N),
            args::LLADA_GEMM_F32_THREADS,
        ),
        DType::Bf16 if large.saturating_mul(batch) >= ENOUGH_TILES => {
            ("llada_gemm_fwd_bf16", large, args::LLADA_GEMM_BF16_THREADS)
        }
        DType::Bf16 => (
            "llada_gemm_small_fwd_bf16",
            tiles(
                args::LLADA_GEMM_BF16_SMALL_TILE,
                args::LLADA_GEMM_BF16_SMALL_TILE,
            ),
            args::LLADA_GEMM_BF16_SMALL_THREADS,
        ),
    };
    Ok((entry, LaunchPlan::new(OP, [blocks, 1, batch], threads, 0)?))
}

/// `llada_cast_rows_fwd_bf16`: a thread per eight elements of the output, or several.
///
/// # Errors
/// None for the sizes that it limits itself to.
pub(crate) fn cast_rows(elements: usize) -> Result<LaunchPlan> {
    looped(elements.div_ceil(8))
}

/// `llada_cast_tile_fwd_bf16` for at most [`MAX_BATCH`] matrices.
///
/// # Errors
/// If there are too many tiles for one launch.
pub(crate) fn cast_tile(rows: usize, y_columns: usize, batch: usize) -> Result<LaunchPlan> {
    let tile = args::LLADA_CAST_TILE as usize;
    let blocks = rows.div_ceil(tile).saturating_mul(y_columns.div_ceil(tile));
    LaunchPlan::new(OP, [blocks, 1, batch], args::LLADA_CAST_THREADS, 0)
}

/// `llada_scale_columns_fwd_f32`.
///
/// # Errors
/// None for the sizes that it limits itself to.
pub(crate) fn scale_columns(elements: usize) -> Result<LaunchPlan> {
    looped(elements)
}

fn looped(threads: usize) -> Result<LaunchPlan> {
    let blocks = threads.div_ceil(args::LLADA_CAST_THREADS as usize);
    LaunchPlan::linear(OP, blocks.min(MAX_BLOCKS), args::LLADA_CAST_THREADS)
}

#[cfg(test)]
mod tests;
