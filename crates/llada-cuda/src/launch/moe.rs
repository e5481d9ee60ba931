//! Launch plans of `/kernels/moe.cu`.

use llada_kernels::args;
use llada_tensor::{DType, Error, Precision, Result};

use crate::launch::LaunchPlan;
use crate::launch::quantized::{Bits, MAX_M, TILE_N};

const OP: &str = "moe";
const THREADS: u32 = args::LLADA_MOE_THREADS;
/// Blocks of the kernels that loop over elements: enough for any GPU.
const MAX_BLOCKS: usize = 8192;
/// Shared memory that a block can have on every GPU that the kernels are for.
const SHARED_BYTES: usize = 99 << 10;

/// A block for each token, or for each run of tokens.
///
/// # Errors
/// [`Error::InvalidArgument`] if there are more experts than fit shared memory.
pub(crate) fn route(blocks: usize, n_experts: usize) -> Result<LaunchPlan> {
    let bytes = n_experts.saturating_mul(args::LLADA_ROUTE_EXPERT_BYTES as usize);
    match u32::try_from(bytes).ok().filter(|_| bytes <= SHARED_BYTES) {
        Some(bytes) => LaunchPlan::new(OP, [blocks, 1, 1], THREADS, bytes),
        None => {
            let (op, what) = ("route", "expected at most 6336 experts on a GPU, got more");
            Err(Error::InvalidArgument { op, what })
        }
    }
}

/// A block for each expert, or for each pair of a token and one of its experts.
///
/// # Errors
/// If there are too many for one launch.
pub(crate) fn each(blocks: usize) -> Result<LaunchPlan> {
    LaunchPlan::linear(OP, blocks, THREADS)
}

/// A thread per element, or several.
///
/// # Errors
/// None for the sizes that it limits itself to.
pub(crate) fn looped(elements: usize) -> Result<LaunchPlan> {
    let blocks = elements.div_ceil(THREADS as usize).min(MAX_BLOCKS);
    LaunchPlan::linear(OP, blocks, THREADS)
}

/// Rows of a tile of the products in a precision.
pub(crate) fn tile_rows(precision: Precision) -> usize {
    match precision {
        Precision::F32 => args::LLADA_GEMM_F32_TILE_M as usize,
        Precision::Bf16 | Precision::Blocks => args::LLADA_GEMM_BF16_SMALL_TILE as usize,
        Precision::Int8 | Precision::Int4 => MAX_M,
    }
}

/// The most tiles of rows that `pairs` rows can need: every expert that has some begins one.
pub(crate) fn most_tiles(pairs: usize, n_experts: usize, tile_rows: usize) -> usize {
    pairs / tile_rows + pairs.min(n_experts)
}

/// Entry and plan of a product with `n` columns for each expert.
///
/// # Errors
/// If there are too many tiles for one launch.
pub(crate) fn gemm(dtype: DType, n: usize, row_tiles: usize) -> Result<(&'static str, LaunchPlan)> {
    let (entry, tile_n, threads) = match dtype {
        DType::F32 => (
            "llada_moe_gemm_fwd_f32",
            args::LLADA_GEMM_F32_TILE_N,
            args::LLADA_GEMM_F32_THREADS,
        ),
        DType::Bf16 => (
            "llada_moe_gemm_fwd_bf16",
            args::LLADA_GEMM_BF16_SMALL_TILE,
            args::LLADA_GEMM_BF16_SMALL_THREADS,
        ),
    };
    let grid = [n.div_ceil(tile_n as usize), row_tiles, 1];
    Ok((entry, LaunchPlan::new(OP, grid, threads, 0)?))
}

/// The same with codes.
///
/// # Errors
/// As [`gemm`].
pub(crate) fn quantized(
    bits: Bits,
    n: usize,
    row_tiles: usize,
) -> Result<(&'static str, LaunchPlan)> {
    let (entry, shared_bytes) = match bits {
        Bits::Eight => (
            "llada_moe_quantized_fwd_int8",
            args::LLADA_QUANTIZED_INT8_SHARED,
        ),
        Bits::Four => (
            "llada_moe_quantized_fwd_int4",
            args::LLADA_QUANTIZED_INT4_SHARED,
        ),
    };
    let (grid, threads) = (
        [n.div_ceil(TILE_N), row_tiles, 1],
        args::LLADA_QUANTIZED_THREADS,
    );
    Ok((entry, LaunchPlan::new(OP, grid, threads, shared_bytes)?))
}

/// Entry and plan of the gradients `[m, n]` of each expert.
///
/// # Errors
/// As [`gemm`].
pub(crate) fn gradient(
    dtype: DType,
    [experts, m, n]: [usize; 3],
) -> Result<(&'static str, LaunchPlan)> {
    let entry = match dtype {
        DType::F32 => "llada_moe_gradient_fwd_f32",
        DType::Bf16 => "llada_moe_gradient_fwd_bf16",
    };
    let rows = m.div_ceil(args::LLADA_GEMM_F32_TILE_M as usize);
    let columns = n.div_ceil(args::LLADA_GEMM_F32_TILE_N as usize);
    let grid = [rows.saturating_mul(columns), 1, experts];
    let plan = LaunchPlan::new(OP, grid, args::LLADA_GEMM_F32_THREADS, 0)?;
    Ok((entry, plan))
}

#[cfg(test)]
mod tests;
