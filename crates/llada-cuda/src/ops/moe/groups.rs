//! Which rows each expert gets, known to the device alone, and products over them.

use llada_kernels::args::{
    LladaGemmArgs, LladaMoeCombineArgs, LladaMoeGatherArgs, LladaMoeGemmArgs, LladaMoeGroupArgs,
    LladaMoeQuantizedArgs, LladaMoeTables, LladaQuantizedMatmulArgs,
};
use llada_tensor::{DType, Precision, Result, Tensor};

use super::IMAGE;
use crate::context::Context;
use crate::launch::elementwise::count;
use crate::launch::{moe as plan, narrow};
use crate::memory::Scratch;
use crate::ops::quantized::PackedCodes;
use crate::product::{Operand, Output, Write};

const OP: &str = "experts";

/// The pairs of a token and one of its experts, as rows: by expert, then by token.
#[derive(Debug)]
pub(super) struct Groups {
    /// Row of each pair.
    pub(super) rows: Scratch,
    /// Token of each row.
    row_tokens: Scratch,
    offsets: Scratch,
    tile_starts: Scratch,
    n_experts: usize,
    pub(super) pairs: usize,
    pub(super) k: usize,
    /// The most tiles of rows that there can be.
    row_tiles: usize,
}

impl Groups {
    /// Of `ids`: `[T, k]`, for products in a precision.
    pub(super) fn new(
        cx: &Context,
        ids: &Tensor,
        n_experts: usize,
        precision: Precision,
    ) -> Result<Self> {
        let [tokens, k] = ids.matrix_shape(OP)?;
        let (pairs, tile) = (tokens * k, plan::tile_rows(precision));
        let words = |n: usize| cx.scratch(n * size_of::<i32>());
        let groups = Self {
            rows: words(pairs)?,
            row_tokens: words(pairs)?,
            offsets: words(n_experts + 1)?,
            tile_starts: words(n_experts + 1)?,
            n_experts,
            pairs,
            k,
            row_tiles: plan::most_tiles(pairs, n_experts, tile),
        };
        let counts = words(n_experts)?;
        let args = LladaMoeGroupArgs {
            ids: cx.f32s(OP, ids)?,
            counts: counts.pointer(),
            rows: groups.rows.pointer(),
            row_tokens: groups.row_tokens.pointer(),
            tables: groups.tables()?,
            pairs: narrow(OP, pairs)?,
            k: narrow(OP, k)?,
            tile: narrow(OP, tile)?,
            padding: 0,
        };
        let plan = plan::each(n_experts)?;
        cx.launch(IMAGE, "llada_moe_count_fwd_i32", plan, &args)?;
        cx.launch(IMAGE, "llada_moe_place_fwd_i32", plan, &args)?;
        Ok(groups)
    }

    fn tables(&self) -> Result<LladaMoeTables> {
        Ok(LladaMoeTables {
            offsets: self.offsets.pointer(),
            tile_starts: self.tile_starts.pointer(),
            n_experts: narrow(OP, self.n_experts)?,
            padding: 0,
        })
    }

    /// Row `r` becomes that of its token, rows of whole words: `x` is an address and the words from
    /// one row to the next.
    pub(super) fn gather(
        &self,
        cx: &Context,
        (x, x_row_words): (u64, usize),
        words: usize,
    ) -> Result<Scratch> {
        let y = cx.scratch(self.pairs * words * size_of::<u32>())?;
        let args = LladaMoeGatherArgs {
            x,
            row_tokens: self.row_tokens.pointer(),
            y: y.pointer(),
            rows: count(OP, self.pairs)?,
            words: count(OP, words)?,
            x_row_words: count(OP, x_row_words)?,
        };
        let plan = plan::looped(self.pairs * words)?;
        cx.launch(IMAGE, "llada_moe_gather_fwd_b32", plan, &args)?;
        Ok(y)
    }

    /// `c[r] (+)= a[r] b[e]` for the rows of each expert; `b` is `[E, K, N]`.
    pub(super) fn multiply(
        &self,
        cx: &Context,
        dtype: DType,
        (a, b): (Operand, Operand),
        [n, k]: [usize; 2],
        c: Output,
    ) -> Result<()> {
        let args = LladaMoeGemmArgs {
            gemm: LladaGemmArgs {
                n: narrow(OP, n)?,
                k: narrow(OP, k)?,
                ..gemm_args(a, b, c)
            },
            tables: self.tables()?,
        };
        let (entry, plan) = plan::gemm(dtype, n, self.row_tiles)?;
        cx.launch(IMAGE, entry, plan, &args)
    }

    /// `c[r] = w[e] a[r]` for the rows of each expert, `n` of a row.
    pub(super) fn multiply_codes(
        &self,
        cx: &Context,
        a: u64,
        (weight, expert_rows): (&PackedCodes, usize),
        n: usize,
        c: Output,
    ) -> Result<()> {
        let (bits, weight, scales) = weight.operand()?;
        let args = LladaMoeQuantizedArgs {
            matmul: LladaQuantizedMatmulArgs {
                x: a,
                weight,
                scales,
                y: c.pointer,
                y_row_stride: c.row_stride as i64,
                n: narrow(OP, n)?,
                ..LladaQuantizedMatmulArgs::default()
            },
            tables: self.tables()?,
            expert_rows: count(OP, expert_rows)?,
        };
        let (entry, plan) = plan::quantized(bits, n, self.row_tiles)?;
        cx.launch(IMAGE, entry, plan, &args)
    }

    /// `c[e] += sum_r a[r]ᵀ b[r]` over the rows of each expert: `a` is `[M, T * k]`, `b` is
    /// `[T * k, N]`, `c` `[E, M, N]`.
    pub(super) fn add_gradient(
        &self,
        cx: &Context,
        dtype: DType,
        (a, b): (Operand, Operand),
        [m, n]: [usize; 2],
        c: u64,
    ) -> Result<()> {
        let c = Output {
            pointer: c,
            row_stride: n,
            write: Write::Add,
        };
        let args = LladaMoeGemmArgs {
            gemm: LladaGemmArgs {
                c_batch_stride: (m * n) as i64,
                m: narrow(OP, m)?,
                n: narrow(OP, n)?,
                ..gemm_args(a, b, c)
            },
            tables: self.tables()?,
        };
        let (entry, plan) = plan::gradient(dtype, [self.n_experts, m, n])?;
        cx.launch(IMAGE, entry, plan, &args)
    }

    /// `y[t] = sum_j weights[t, j] x[row of (t, j)]`, rows of `d`; all weights are 1 if there are
    /// none.
    pub(super) fn combine(
        &self,
        cx: &Context,
        x: u64,
        weights: Option<u64>,
        y: u64,
        d: usize,
    ) -> Result<()> {
        let tokens = self.pairs / self.k;
        let args = LladaMoeCombineArgs {
            x,
            rows: self.rows.pointer(),
            weights: weights.unwrap_or(0),
            y,
            tokens: count(OP, tokens)?,
            d: count(OP, d)?,
            k: count(OP, self.k)?,
        };
        let plan = plan::looped(tokens * d)?;
        cx.launch(IMAGE, "llada_moe_combine_fwd_f32", plan, &args)
    }
}

/// What the grouped products of values have in common with all others.
fn gemm_args(a: Operand, b: Operand, c: Output) -> LladaGemmArgs {
    LladaGemmArgs {
        a: a.pointer,
        b: b.pointer,
        c: c.pointer,
        a_row_stride: a.row_stride as i64,
        a_column_stride: a.column_stride as i64,
        b_row_stride: b.row_stride as i64,
        b_column_stride: b.column_stride as i64,
        b_batch_stride: b.batch_stride as i64,
        c_row_stride: c.row_stride as i64,
        output: c.write.kernel(),
        ..LladaGemmArgs::default()
    }
}
