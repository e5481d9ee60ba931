//! Launch plans of `/kernels/quantized.cu`.

use llada_kernels::args;
use llada_tensor::Result;

use crate::launch::LaunchPlan;

const OP: &str = "quantized";
const THREADS: u32 = args::LLADA_QUANTIZED_THREADS;
/// Codes of a step, to a multiple of which rows are filled up.
pub(crate) const STEP: usize = args::LLADA_QUANTIZED_STEP as usize;
/// Most rows of the left operand of [`matmul`].
pub(crate) const MAX_M: usize = args::LLADA_QUANTIZED_MAX_M as usize;
/// Rows of the weight that a block of [`matmul`] takes.
pub(crate) const TILE_N: usize = args::LLADA_QUANTIZED_TILE_N as usize;
/// Multipliers of a step of 4-bit codes.
pub(crate) const STEP_GROUPS: usize = STEP / args::LLADA_QUANTIZED_GROUP as usize;
/// Blocks of the kernels that loop over elements: enough for any GPU.
const MAX_BLOCKS: usize = 8192;
/// Scratch for rows of a weight as bf16.
const DEQUANTIZED_BYTES: usize = 32 << 20;

/// Bits of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bits {
    /// 8-bit codes.
    Eight,
    /// 4-bit codes with multipliers.
    Four,
}

impl Bits {
    /// Bytes of a step of one row.
    pub(crate) fn step_bytes(self) -> usize {
        match self {
            Self::Eight => STEP,
            Self::Four => STEP / 2,
        }
    }

    /// Bytes that the multipliers of `rows` rows of a step take.
    pub(crate) fn multiplier_bytes(self, rows: usize) -> usize {
        match self {
            Self::Eight => 0,
            Self::Four => rows * STEP_GROUPS,
        }
    }
}

/// Entry and plan of a product of up to [`MAX_M`] rows with `n` rows of a weight.
///
/// # Errors
/// If `n` is too large for one launch.
pub(crate) fn matmul(bits: Bits, n: usize) -> Result<(&'static str, LaunchPlan)> {
    let (entry, shared_bytes) = match bits {
        Bits::Eight => (
            "llada_quantized_matmul_fwd_int8",
            args::LLADA_QUANTIZED_INT8_SHARED,
        ),
        Bits::Four => (
            "llada_quantized_matmul_fwd_int4",
            args::LLADA_QUANTIZED_INT4_SHARED,
        ),
    };
    let grid = [n.div_ceil(TILE_N), 1, 1];
    Ok((entry, LaunchPlan::new(OP, grid, THREADS, shared_bytes)?))
}

/// Entry and plan of packing `rows` rows of `steps` steps: a thread per word of four bytes.
///
/// # Errors
/// None for the sizes that it limits itself to.
pub(crate) fn pack_codes(
    bits: Bits,
    rows: usize,
    steps: usize,
) -> Result<(&'static str, LaunchPlan)> {
    let entry = match bits {
        Bits::Eight => "llada_pack_codes_fwd_int8",
        Bits::Four => "llada_pack_codes_fwd_int4",
    };
    Ok((entry, looped(rows * steps * bits.step_bytes() / 4)?))
}

/// Entry and plan of writing `rows` rows of `steps` steps as bf16: a thread per word of codes.
///
/// # Errors
/// None for the sizes that it limits itself to.
pub(crate) fn dequantize(
    bits: Bits,
    rows: usize,
    steps: usize,
) -> Result<(&'static str, LaunchPlan)> {
    let entry = match bits {
        Bits::Eight => "llada_dequantize_fwd_int8",
        Bits::Four => "llada_dequantize_fwd_int4",
    };
    Ok((entry, looped(rows * steps * bits.step_bytes() / 4)?))
}

/// Rows of a weight of `steps` steps that are written as bf16 at a time: whole tiles of a product,
/// in 32 MiB if a tile fits.
pub(crate) fn dequantized_rows(steps: usize) -> usize {
    let tile = args::LLADA_GEMM_BF16_TILE as usize;
    let row_bytes = (steps * STEP * 2).max(1);
    (DEQUANTIZED_BYTES / row_bytes / tile * tile).max(tile)
}

/// `llada_rotate_fwd_bf16`: a warp per 64 values of the output.
///
/// # Errors
/// None for the sizes that it limits itself to.
pub(crate) fn rotate(rows: usize, y_columns: usize) -> Result<LaunchPlan> {
    looped(rows * y_columns / 2)
}

fn looped(threads: usize) -> Result<LaunchPlan> {
    let blocks = threads.div_ceil(THREADS as usize).min(MAX_BLOCKS);
    LaunchPlan::linear(OP, blocks, THREADS)
}

#[cfg(test)]
mod tests;
