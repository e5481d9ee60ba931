//! See `/kernels/rope.cu`.

use llada_kernels::args::{LladaRopeArgs, LladaRopeQkvArgs};
use llada_tensor::backend::RopeArgs;
use llada_tensor::ops::rope::RopeTable;
use llada_tensor::{DType, Error, Result, Tensor};

use crate::backend::context_of;
use crate::context::Context;
use crate::launch::elementwise::count;
use crate::launch::{narrow, rope as plan};

const IMAGE: &str = "rope";

/// See [`llada_tensor::backend::Backend::rope`]. The output may also be `bf16`.
pub(crate) fn rope(cx: &Context, args: RopeArgs<'_>) -> Result<()> {
    let op = "rope";
    let RopeArgs {
        x,
        table,
        positions,
        inverse,
        y,
    } = args;
    let ([rows, width], [_, half]) = (x.shape(), table.cos.shape()) else {
        return Err(mismatch(op, x, &table.cos));
    };
    let (rows, half) = (*rows, *half);
    let heads = width.checked_div(2 * half).unwrap_or(0);
    let entry = match y.dtype() {
        DType::F32 => "llada_rope_fwd_f32",
        DType::Bf16 => "llada_rope_fwd_bf16",
    };
    let tiles = plan::rope(rows, heads, half, y.dtype())?;
    let positions = cx.upload(positions)?;
    let kernel_args = LladaRopeArgs {
        x: cx.f32s(op, x)?,
        cos: cx.f32s(op, &table.cos)?,
        sin: cx.f32s(op, &table.sin)?,
        positions: positions.pointer(),
        y: cx.pointer_mut(y)?,
        rows: count(op, rows)?,
        heads: narrow(op, heads)?,
        half: narrow(op, half)?,
        sign: if inverse { -1.0 } else { 1.0 },
        lanes_log2: tiles.lanes_log2,
    };
    cx.launch(IMAGE, entry, tiles.plan, &kernel_args)
}

/// Arguments of [`rope_qkv`].
#[derive(Debug)]
pub struct RopeQkvArgs<'a> {
    /// Product of the stacked projections `[T, (H + 2 K) E]`, `f32`: queries, keys, values.
    pub qkv: &'a Tensor,
    /// Cosines and sines.
    pub table: &'a RopeTable,
    /// `[T]`, the position of each row.
    pub positions: &'a [u32],
    /// Rotated queries `[T, H E]`, `bf16`.
    pub q: &'a mut Tensor,
    /// Rotated keys `[T, K E]`, `bf16`.
    pub k: &'a mut Tensor,
    /// Values `[T, K E]`, `bf16`.
    pub v: &'a mut Tensor,
}

/// What lies between the fused projection and attention in one pass: splits rows of queries, keys
/// and values, rotates the first two as [`llada_tensor::backend::Backend::rope`] does, and rounds
/// all to the nearest `bf16`, ties to even.
///
/// # Errors
/// [`Error::ShapeMismatch`]; [`Error::IndexOutOfRange`] for a position past the table;
/// [`Error::InvalidArgument`] if a tensor is not on a CUDA device; [`Error::DTypeMismatch`],
/// [`Error::NotContiguous`], [`Error::SharedOutput`].
pub fn rope_qkv(args: RopeQkvArgs<'_>) -> Result<()> {
    let op = "rope_qkv";
    let RopeQkvArgs {
        qkv,
        table,
        positions,
        q,
        k,
        v,
    } = args;
    let shapes = (qkv.shape(), table.cos.shape(), q.shape(), k.shape());
    let (&[rows, width], &[n_positions, half], &[q_rows, q_width], &[k_rows, k_width]) = shapes
    else {
        return Err(mismatch(op, qkv, q));
    };
    let head = 2 * half;
    let fits = [q_rows, k_rows, positions.len()] == [rows; 3]
        && v.shape() == k.shape()
        && width == q_width + 2 * k_width
        && half > 0
        && q_width.is_multiple_of(head)
        && k_width.is_multiple_of(head);
    if !fits {
        return Err(mismatch(op, qkv, q));
    }
    if let Some(&at) = args
        .positions
        .iter()
        .find(|&&at| at as usize >= n_positions)
    {
        let (index, limit) = (at as usize, n_positions);
        return Err(Error::IndexOutOfRange { op, index, limit });
    }
    let device = qkv.device().clone();
    let cx = context_of(op, &device)?;
    let (heads, kv_heads) = (q_width / head, k_width / head);
    let tiles = plan::rope(rows, heads + 2 * kv_heads, half, DType::Bf16)?;
    let positions = cx.upload(positions)?;
    let kernel_args = LladaRopeQkvArgs {
        qkv: cx.f32s(op, qkv)?,
        cos: cx.f32s(op, &table.cos)?,
        sin: cx.f32s(op, &table.sin)?,
        positions: positions.pointer(),
        q: bf16s_mut(cx, op, q)?,
        k: bf16s_mut(cx, op, k)?,
        v: bf16s_mut(cx, op, v)?,
        rows: count(op, rows)?,
        heads: narrow(op, heads)?,
        kv_heads: narrow(op, kv_heads)?,
        half: narrow(op, half)?,
        lanes_log2: tiles.lanes_log2,
    };
    cx.launch(IMAGE, "llada_rope_qkv_fwd_bf16", tiles.plan, &kernel_args)
}

fn bf16s_mut(cx: &Context, op: &'static str, tensor: &mut Tensor) -> Result<u64> {
    let (expected, got) = (DType::Bf16, tensor.dtype());
    if got != expected {
        return Err(Error::DTypeMismatch { op, expected, got });
    }
    cx.pointer_mut(tensor)
}

fn mismatch(op: &'static str, lhs: &Tensor, rhs: &Tensor) -> Error {
    let (lhs, rhs) = (lhs.shape().to_vec(), rhs.shape().to_vec());
    Error::ShapeMismatch { op, lhs, rhs }
}
