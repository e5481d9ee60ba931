//! See `/kernels/rms_norm.cu`.

use llada_kernels::args::{LladaRmsNormArgs, LladaRmsNormBackwardArgs};
use llada_tensor::backend::{RmsNormArgs, RmsNormBackwardArgs};
use llada_tensor::{DType, Result};

use crate::context::Context;
use crate::launch::elementwise::count;
use crate::launch::{narrow, rms_norm as plan};
use crate::ops::add::add_column_sums;

const IMAGE: &str = "rms_norm";

/// See [`llada_tensor::backend::Backend::rms_norm`]. The output may also be `bf16`.
pub(crate) fn rms_norm(cx: &Context, args: RmsNormArgs<'_>) -> Result<()> {
    let (op, rows, d) = ("rms_norm", args.rstd.numel(), args.weight.numel());
    let entry = match args.y.dtype() {
        DType::F32 => "llada_rms_norm_fwd_f32",
        DType::Bf16 => "llada_rms_norm_fwd_bf16",
    };
    let kernel_args = LladaRmsNormArgs {
        x: cx.f32s(op, args.x)?,
        weight: cx.f32s(op, args.weight)?,
        y: cx.pointer_mut(args.y)?,
        rstd: cx.f32s_mut(op, args.rstd)?,
        rows: count(op, rows)?,
        d: narrow(op, d)?,
        eps: args.eps,
    };
    cx.launch(IMAGE, entry, plan::rms_norm(rows, d)?, &kernel_args)
}

/// See [`llada_tensor::backend::Backend::rms_norm_backward`].
pub(crate) fn rms_norm_backward(cx: &Context, args: RmsNormBackwardArgs<'_>) -> Result<()> {
    let op = "rms_norm_backward";
    let (rows, d) = (args.rstd.numel(), args.weight.numel());
    let backward = plan::rms_norm_backward(rows, d)?;
    let partials = cx.scratch(backward.chunks * d * size_of::<f32>())?;
    let kernel_args = LladaRmsNormBackwardArgs {
        x: cx.f32s(op, args.x)?,
        weight: cx.f32s(op, args.weight)?,
        rstd: cx.f32s(op, args.rstd)?,
        dy: cx.f32s(op, args.dy)?,
        dx: cx.f32s_mut(op, args.dx)?,
        partials: partials.pointer(),
        rows: count(op, rows)?,
        chunk_rows: count(op, backward.chunk_rows)?,
        d: narrow(op, d)?,
        padding: 0,
    };
    let dweight = cx.f32s_mut(op, args.dweight)?;
    cx.launch(IMAGE, "llada_rms_norm_bwd_f32", backward.plan, &kernel_args)?;
    add_column_sums(cx, partials.pointer(), [backward.chunks, d], dweight)
}
