//! See `/kernels/swiglu.cu`.

use llada_kernels::args::{LladaSwigluArgs, LladaSwigluBackwardArgs};
use llada_tensor::backend::{SwigluArgs, SwigluBackwardArgs};
use llada_tensor::{DType, Error, Result, Tensor};

use crate::context::Context;
use crate::launch::elementwise::count;
use crate::launch::swiglu as plan;

const IMAGE: &str = "swiglu";

/// See [`llada_tensor::backend::Backend::swiglu`]. The output, or all tensors, may also be `bf16`.
pub(crate) fn swiglu(cx: &Context, args: SwigluArgs<'_>) -> Result<()> {
    let SwigluArgs { gate, up, y } = args;
    let (op, n, dtype) = ("swiglu", gate.numel(), y.dtype());
    let entry = match (gate.dtype(), dtype) {
        (DType::F32, DType::F32) => "llada_swiglu_fwd_f32",
        (DType::F32, DType::Bf16) => "llada_swiglu_fwd_f32_bf16",
        (DType::Bf16, _) => "llada_swiglu_fwd_bf16",
    };
    let [gate, up] = alike(cx, op, [gate, up])?;
    let kernel_args = LladaSwigluArgs {
        gate,
        up,
        y: cx.pointer_mut(y)?,
        n: count(op, n)?,
    };
    cx.launch(IMAGE, entry, plan::swiglu(n, dtype)?, &kernel_args)
}

/// See [`llada_tensor::backend::Backend::swiglu_backward`]. All tensors but `dy` may also be `bf16`.
pub(crate) fn swiglu_backward(cx: &Context, args: SwigluBackwardArgs<'_>) -> Result<()> {
    let SwigluBackwardArgs {
        gate,
        up,
        dy,
        dgate,
        dup,
    } = args;
    let (op, n, dtype) = ("swiglu_backward", gate.numel(), gate.dtype());
    let entry = match dtype {
        DType::F32 => "llada_swiglu_bwd_f32",
        DType::Bf16 => "llada_swiglu_bwd_bf16",
    };
    alike(cx, op, [gate, dgate])?;
    alike(cx, op, [gate, dup])?;
    let [gate, up] = alike(cx, op, [gate, up])?;
    let kernel_args = LladaSwigluBackwardArgs {
        gate,
        up,
        dy: cx.f32s(op, dy)?,
        dgate: cx.pointer_mut(dgate)?,
        dup: cx.pointer_mut(dup)?,
        n: count(op, n)?,
    };
    cx.launch(IMAGE, entry, plan::swiglu(n, dtype)?, &kernel_args)
}

/// Addresses of two contiguous tensors of one type.
fn alike(cx: &Context, op: &'static str, pair: [&Tensor; 2]) -> Result<[u64; 2]> {
    let [expected, got] = pair.map(Tensor::dtype);
    if got != expected {
        return Err(Error::DTypeMismatch { op, expected, got });
    }
    let [first, second] = pair;
    Ok([cx.contiguous(op, first)?, cx.contiguous(op, second)?])
}
