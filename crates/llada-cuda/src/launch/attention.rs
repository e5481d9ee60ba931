//! Plans of `kernels/attention.cu`: which kernel computes what, and with which tiles.

use llada_kernels::args::{
    LLADA_ATTENTION_BACKWARD_BYTES, LLADA_ATTENTION_BACKWARD_ROWS, LLADA_ATTENTION_F32_THREADS,
    LLADA_ATTENTION_F32_TILE, LLADA_ATTENTION_KEYS, LLADA_ATTENTION_ROUND_ELEMENTS,
    LLADA_ATTENTION_ROUND_THREADS, LLADA_ATTENTION_STAGES_D64, LLADA_ATTENTION_STAGES_D128,
    LLADA_ATTENTION_THREADS,
};
use llada_tensor::{Error, Result};

use crate::launch::LaunchPlan;

const OP: &str = "attention";
/// Largest head dimension of the `f32` kernels.
const MAX_HEAD_DIM: usize = 256;
/// Most tokens on either side: twice as many must fit into 32 bits.
const MAX_TOKENS: usize = 1 << 30;
/// Shared memory that the driver takes for itself, per block.
const RESERVED_BYTES: u32 = 1 << 10;

/// What a plan needs to know of the device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Multiprocessors {
    pub(crate) count: usize,
    /// Shared memory of each.
    pub(crate) shared_bytes: u32,
}

/// Sizes of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Queries of the longest sequence.
    pub(crate) queries: usize,
    /// Keys of the longest sequence.
    pub(crate) keys: usize,
    pub(crate) sequences: usize,
    pub(crate) n_heads: usize,
    pub(crate) n_kv_heads: usize,
    pub(crate) head_dim: usize,
}

impl Sizes {
    /// Of sequences with these boundaries, and `[n_heads, n_kv_heads, head_dim]`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are more tokens, or more columns of a head, than the
    /// kernels can take.
    pub(crate) fn new(
        offsets: &[usize],
        key_offsets: &[usize],
        [n_heads, n_kv_heads, head_dim]: [usize; 3],
    ) -> Result<Self> {
        let op = OP;
        let last = |offsets: &[usize]| offsets.last().copied().unwrap_or(0);
        if last(offsets).max(last(key_offsets)) > MAX_TOKENS {
            let what = "there are more than 2^30 tokens";
            return Err(Error::InvalidArgument { op, what });
        }
        if head_dim > MAX_HEAD_DIM {
            let what = "CUDA kernels have head dimensions up to 256";
            return Err(Error::InvalidArgument { op, what });
        }
        Ok(Self {
            queries: longest(offsets),
            keys: longest(key_offsets),
            sequences: offsets.len().saturating_sub(1),
            n_heads,
            n_kv_heads,
            head_dim,
        })
    }

    /// A block per tile of so many queries, head and sequence. Blocks side by side read the same
    /// keys and values.
    fn query_grid(&self, tile: u32) -> [usize; 3] {
        let tiles = self.queries.div_ceil(tile as usize);
        [tiles, self.n_heads, self.sequences]
    }
}

fn longest(offsets: &[usize]) -> usize {
    let lengths = offsets.windows(2).map(|bounds| bounds[1] - bounds[0]);
    lengths.max().unwrap_or(0)
}

/// An entry and how it is launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Launch {
    pub(crate) entry: &'static str,
    pub(crate) plan: LaunchPlan,
}

/// The forward pass on tensor cores; `None` if they have no kernel for the head dimension.
///
/// A block computes 64 or 128 queries, with the same bits. The larger needs half as many reads of
/// shared memory; it is taken if it leaves no multiprocessor without a block, and if two of them
/// fit on one.
pub(crate) fn forward_bf16(sizes: &Sizes, device: Multiprocessors) -> Result<Option<Launch>> {
    let (entries, stages) = match sizes.head_dim {
        64 => (
            [
                "llada_attention_fwd_bf16_d64_q64",
                "llada_attention_fwd_bf16_d64_q128",
            ],
            LLADA_ATTENTION_STAGES_D64,
        ),
        128 => (
            [
                "llada_attention_fwd_bf16_d128_q64",
                "llada_attention_fwd_bf16_d128_q128",
            ],
            LLADA_ATTENTION_STAGES_D128,
        ),
        _ => return Ok(None),
    };
    let row_bytes = if sizes.head_dim == 64 { 128 } else { 256 };
    let ring_bytes = stages * LLADA_ATTENTION_KEYS * row_bytes;
    let large = (128, ring_bytes + 128 * row_bytes);
    let fits_twice = 2 * (large.1 + RESERVED_BYTES) <= device.shared_bytes;
    let blocks: usize = sizes.query_grid(large.0).iter().product();
    let is_large = fits_twice && blocks >= device.count && sizes.queries > 64;
    // 64 queries lie in the ring until it is full.
    let (tile, shared_bytes) = if is_large { large } else { (64, ring_bytes) };
    let threads = LLADA_ATTENTION_THREADS;
    Ok(Some(Launch {
        entry: entries[usize::from(is_large)],
        plan: LaunchPlan::new(OP, sizes.query_grid(tile), threads, shared_bytes)?,
    }))
}

/// Rounds two matrices of `n` elements to bf16.
pub(crate) fn round(n: usize) -> Result<Launch> {
    let threads = LLADA_ATTENTION_ROUND_THREADS;
    let of_block = (threads * LLADA_ATTENTION_ROUND_ELEMENTS) as usize;
    Ok(Launch {
        entry: "llada_attention_fwd_bf16_round",
        plan: LaunchPlan::linear(OP, n.div_ceil(of_block), threads)?,
    })
}

/// The entry for the smallest of 64, 128 and 256 columns that a head fits into.
fn by_head_dim(head_dim: usize, entries: [&'static str; 3]) -> &'static str {
    match head_dim {
        0..=64 => entries[0],
        65..=128 => entries[1],
        _ => entries[2],
    }
}

/// The forward pass in `f32`.
pub(crate) fn forward_f32(sizes: &Sizes) -> Result<Launch> {
    let grid = sizes.query_grid(LLADA_ATTENTION_F32_TILE);
    let entries = [
        "llada_attention_fwd_f32_d64",
        "llada_attention_fwd_f32_d128",
        "llada_attention_fwd_f32_d256",
    ];
    Ok(Launch {
        entry: by_head_dim(sizes.head_dim, entries),
        plan: LaunchPlan::new(OP, grid, LLADA_ATTENTION_F32_THREADS, 0)?,
    })
}

/// `dq` and then `dk` and `dv` on tensor cores, in bf16; `None` if they have no kernel for the head
/// dimension.
pub(crate) fn backward_bf16(sizes: &Sizes) -> Result<Option<[Launch; 2]>> {
    let op = "attention_backward";
    let [dq, dkdv] = match sizes.head_dim {
        64 => [
            "llada_attention_bwd_bf16_dq_d64",
            "llada_attention_bwd_bf16_dkdv_d64",
        ],
        128 => [
            "llada_attention_bwd_bf16_dq_d128",
            "llada_attention_bwd_bf16_dkdv_d128",
        ],
        _ => return Ok(None),
    };
    let rows = LLADA_ATTENTION_BACKWARD_ROWS;
    let row_bytes: u32 = if sizes.head_dim == 64 { 128 } else { 256 };
    let own_bytes = 2 * rows * row_bytes;
    // Two stages of two tiles, with two numbers per row.
    let tile_rows = LLADA_ATTENTION_BACKWARD_BYTES / row_bytes;
    let stage_bytes = 2 * LLADA_ATTENTION_BACKWARD_BYTES + 2 * 4 * tile_rows;
    let tiles = sizes.keys.div_ceil(rows as usize);
    let key_grid = [tiles, sizes.n_kv_heads, sizes.sequences];
    let launch = |entry, grid| {
        let shared_bytes = own_bytes + 2 * stage_bytes;
        let plan = LaunchPlan::new(op, grid, LLADA_ATTENTION_THREADS, shared_bytes)?;
        Ok(Launch { entry, plan })
    };
    Ok(Some([
        launch(dq, sizes.query_grid(rows))?,
        launch(dkdv, key_grid)?,
    ]))
}

/// The gradient in `f32`: `delta` of `rows` tokens and heads, then `dq`, then `dk` and `dv`.
pub(crate) fn backward_f32(sizes: &Sizes, rows: usize) -> Result<[Launch; 3]> {
    let (op, threads) = ("attention_backward", LLADA_ATTENTION_F32_THREADS);
    let dq = [
        "llada_attention_bwd_f32_dq_d64",
        "llada_attention_bwd_f32_dq_d128",
        "llada_attention_bwd_f32_dq_d256",
    ];
    let dkdv = [
        "llada_attention_bwd_f32_dkdv_d64",
        "llada_attention_bwd_f32_dkdv_d128",
        "llada_attention_bwd_f32_dkdv_d256",
    ];
    let warps = (threads / 32) as usize;
    let tiles = sizes.keys.div_ceil(LLADA_ATTENTION_F32_TILE as usize);
    let key_grid = [tiles, sizes.n_kv_heads, sizes.sequences];
    Ok([
        Launch {
            entry: "llada_attention_bwd_f32_delta",
            plan: LaunchPlan::linear(op, rows.div_ceil(warps), threads)?,
        },
        Launch {
            entry: by_head_dim(sizes.head_dim, dq),
            plan: LaunchPlan::new(op, sizes.query_grid(LLADA_ATTENTION_F32_TILE), threads, 0)?,
        },
        Launch {
            entry: by_head_dim(sizes.head_dim, dkdv),
            plan: LaunchPlan::new(op, key_grid, threads, 0)?,
        },
    ])
}

#[cfg(test)]
mod tests;
