//! See `/kernels/swiglu.cu`.

use llada_kernels::args::{LladaSwigluArgs, LladaSwigluBackwardArgs};
use llada_tensor::backend::{SwigluArgs, SwigluBackwardArgs};
use llada_tensor::{DType, Error, Result, Tensor};

use crate::context::{Context, pointer};
use crate::launch::elementwise::count;
use crate::launch::swiglu as plan;
use crate::ops::common_dtype;

const IMAGE: &str = "swiglu";

/// See [`llada_tensor::backend::Backend::swiglu`]. The output, or all tensors, may also be `bf16`.
pub(crate) fn swiglu(cx: &Context, args: SwigluArgs<'_>) -> Result<()> {
    let SwigluArgs { gate, up, y } = args;
    let (op, dtype) = ("swiglu", y.dtype());
    let entry = match (gate.dtype(), dtype) {
        (DType::F32, DType::F32) => "llada_swiglu_fwd_f32",
        (DType::F32, DType::Bf16) => "llada_swiglu_fwd_f32_bf16",
        (DType::Bf16, _) => "llada_swiglu_fwd_bf16",
    };
    let layout = Layout::common(op, gate, &[up])?;
    if gate.dtype() == dtype {
        Layout::common(op, gate, &[y])?;
    } else {
        y.expect_contiguous(op)?;
    }
    let kernel_args = LladaSwigluArgs {
        gate: pointer(gate)?,
        up: pointer(up)?,
        y: cx.rows_mut(op, y)?,
        rows: layout.rows,
        columns: layout.columns,
        row_stride: layout.row_stride,
    };
    let plan = plan::swiglu(gate.numel(), dtype)?;
    cx.launch(IMAGE, entry, plan, &kernel_args)
}

/// See [`llada_tensor::backend::Backend::swiglu_backward`]. All tensors may also be `bf16`.
pub(crate) fn swiglu_backward(cx: &Context, args: SwigluBackwardArgs<'_>) -> Result<()> {
    let SwigluBackwardArgs { gate, up, dy, .. } = args;
    let (op, dtype) = ("swiglu_backward", gate.dtype());
    let entry = match dtype {
        DType::F32 => "llada_swiglu_bwd_f32",
        DType::Bf16 => "llada_swiglu_bwd_bf16",
    };
    let layout = Layout::common(op, gate, &[up, dy, args.dgate, args.dup])?;
    let kernel_args = LladaSwigluBackwardArgs {
        gate: pointer(gate)?,
        up: pointer(up)?,
        dy: pointer(dy)?,
        dgate: cx.rows_mut(op, args.dgate)?,
        dup: cx.rows_mut(op, args.dup)?,
        rows: layout.rows,
        columns: layout.columns,
        row_stride: layout.row_stride,
    };
    let plan = plan::swiglu(gate.numel(), dtype)?;
    cx.launch(IMAGE, entry, plan, &kernel_args)
}

/// Where the elements of a tensor are.
struct Layout {
    rows: i64,
    columns: i64,
    row_stride: i64,
}

impl Layout {
    /// That of a tensor, which must be that of others as well: without gaps or, of bf16, in rows
    /// that are filled up.
    fn common(op: &'static str, x: &Tensor, others: &[&Tensor]) -> Result<Self> {
        let new = |rows, columns, row_stride| {
            Ok(Self {
                rows: count(op, rows)?,
                columns: count(op, columns)?,
                row_stride: count(op, row_stride)?,
            })
        };
        let dtype = common_dtype(op, x, others)?;
        if std::iter::once(&x).chain(others).all(|x| x.is_contiguous()) {
            return new(1, x.numel(), x.numel());
        }
        let is_other = |other: &&&Tensor| other.strides() != x.strides();
        let not_alike = others.iter().find(is_other).copied();
        match (x.shape(), x.strides(), not_alike) {
            (&[rows, columns], &[row_stride, 1], None) if dtype == DType::Bf16 => {
                new(rows, columns, row_stride)
            }
            _ => {
                let shape = not_alike.unwrap_or(x).shape().to_vec();
                Err(Error::NotContiguous { op, shape })
            }
        }
    }
}
