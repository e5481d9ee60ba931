//! See `/kernels/swiglu.cu`.

use llada_kernels::args::{LladaSwigluArgs, LladaSwigluBackwardArgs};
use llada_tensor::backend::{SwigluArgs, SwigluBackwardArgs};
use llada_tensor::{DType, Result};

use crate::context::Context;
use crate::launch::elementwise::count;
use crate::launch::swiglu as plan;

const IMAGE: &str = "swiglu";

/// See [`llada_tensor::backend::Backend::swiglu`]. The output may also be `bf16`.
pub(crate) fn swiglu(cx: &Context, args: SwigluArgs<'_>) -> Result<()> {
    let SwigluArgs { gate, up, y } = args;
    let (op, n, dtype) = ("swiglu", gate.numel(), y.dtype());
    let entry = match dtype {
        DType::F32 => "llada_swiglu_fwd_f32",
        DType::Bf16 => "llada_swiglu_fwd_bf16",
    };
    let kernel_args = LladaSwigluArgs {
        gate: cx.f32s(op, gate)?,
        up: cx.f32s(op, up)?,
        y: cx.pointer_mut(y)?,
        n: count(op, n)?,
    };
    cx.launch(IMAGE, entry, plan::swiglu(n, dtype)?, &kernel_args)
}

/// See [`llada_tensor::backend::Backend::swiglu_backward`].
pub(crate) fn swiglu_backward(cx: &Context, args: SwigluBackwardArgs<'_>) -> Result<()> {
    let SwigluBackwardArgs {
        gate,
        up,
        dy,
        dgate,
        dup,
    } = args;
    let (op, n) = ("swiglu_backward", gate.numel());
    let kernel_args = LladaSwigluBackwardArgs {
        gate: cx.f32s(op, gate)?,
        up: cx.f32s(op, up)?,
        dy: cx.f32s(op, dy)?,
        dgate: cx.f32s_mut(op, dgate)?,
        dup: cx.f32s_mut(op, dup)?,
        n: count(op, n)?,
    };
    let plan = plan::swiglu(n, DType::F32)?;
    cx.launch(IMAGE, "llada_swiglu_bwd_f32", plan, &kernel_args)
}
