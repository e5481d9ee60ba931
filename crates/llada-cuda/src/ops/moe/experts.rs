//! The experts: products of grouped rows, and what lies between them.

use llada_kernels::args::{LladaMoeBackwardArgs, LladaSwigluArgs};
use llada_tensor::backend::{
    ExpertGradientArgs, ExpertRows, ExpertWeights, ExpertsArgs, ExpertsBackwardArgs,
};
use llada_tensor::{DType, Error, Precision, Result, Tensor};

use super::IMAGE;
use super::groups::Groups;
use crate::context::Context;
use crate::launch::elementwise::count;
use crate::launch::{moe as plan, swiglu};
use crate::memory::Scratch;
use crate::operands::{Matrices, Ready, cast_into, in_rows, ready, round_to_bf16};
use crate::ops::matmul::{CudaWeight, Form};
use crate::ops::quantized::{self, PackedCodes};
use crate::product::{Operand, Output, Write};

const OP: &str = "experts";
/// Elements of bf16 to a multiple of which rows are filled up.
const ALIGNMENT: usize = 8;

/// The left operand of grouped products: a row for each pair.
struct Rows {
    dtype: DType,
    operand: Operand,
    /// What the rows are in, if it must live with them.
    _memory: Option<Scratch>,
}

impl Rows {
    fn new(dtype: DType, pointer: u64, width: usize, memory: Option<Scratch>) -> Self {
        Self {
            dtype,
            operand: Operand::rows(pointer, width),
            _memory: memory,
        }
    }

    /// The rows of `x` by tokens, `[T, C]`.
    fn of_tokens(cx: &Context, groups: &Groups, x: &Tensor, precision: Precision) -> Result<Self> {
        let x = Matrices::of(x)?;
        let width = x.columns;
        match precision {
            Precision::F32 => {
                x.expect_f32()?;
                let pointer = rows_of(&x)?;
                let rows = groups.gather(cx, (pointer, x.operand(0).row_stride), width)?;
                Ok(Self::new(DType::F32, rows.pointer(), width, Some(rows)))
            }
            Precision::Bf16 | Precision::Blocks => {
                let rounded = round_to_bf16(cx, &x)?;
                let (pointer, stride) = (rows_of(&rounded.matrices)?, rounded.operand().row_stride);
                let width = width.next_multiple_of(ALIGNMENT);
                let rows = groups.gather(cx, (pointer, stride / 2), width / 2)?;
                Ok(Self::new(DType::Bf16, rows.pointer(), width, Some(rows)))
            }
            Precision::Int8 | Precision::Int4 => {
                x.expect_f32()?;
                let rotated = quantized::rotate(cx, &x)?;
                let (pointer, width) = rotated.rows();
                let rows = groups.gather(cx, (pointer, width / 2), width / 2)?;
                Ok(Self::new(DType::Bf16, rows.pointer(), width, Some(rows)))
            }
        }
    }

    /// Rows of `width` in `f32` that are grouped already, at an address.
    fn grouped(
        cx: &Context,
        pointer: u64,
        [rows, width]: [usize; 2],
        precision: Precision,
    ) -> Result<Self> {
        let x = Matrices::contiguous(pointer, rows, width);
        match precision {
            Precision::F32 => Ok(Self::new(DType::F32, pointer, width, None)),
            Precision::Bf16 | Precision::Blocks => {
                let width = width.next_multiple_of(ALIGNMENT);
                let y = cx.scratch(rows * width * DType::Bf16.size_bytes())?;
                cast_into(cx, &x, (1, 0), y.pointer(), width)?;
                Ok(Self::new(DType::Bf16, y.pointer(), width, Some(y)))
            }
            Precision::Int8 | Precision::Int4 => {
                let rotated = quantized::rotate(cx, &x)?;
                let (pointer, width) = rotated.rows();
                let memory = rotated.into_memory();
                Ok(Self::new(DType::Bf16, pointer, width, Some(memory)))
            }
        }
    }
}

/// Address of matrices that lie in rows.
fn rows_of(x: &Matrices) -> Result<u64> {
    let operand = x.operand(0);
    match operand.column_stride == 1 || x.columns == 1 {
        true => Ok(operand.pointer),
        false => {
            let shape = vec![x.rows, x.columns];
            Err(Error::NotContiguous { op: OP, shape })
        }
    }
}

/// The weights `[N, K]` of experts, as products take them.
enum Weights<'a> {
    /// `[E, K, N]`
    Values {
        dtype: DType,
        operand: Operand,
        /// What the operand is in, if it must live with it.
        _memory: Option<Ready>,
    },
    /// And the rows from one expert to the next.
    Codes(&'a PackedCodes, usize),
}

impl<'a> Weights<'a> {
    fn of(
        cx: &Context,
        w: ExpertWeights<'a>,
        [experts, n]: [usize; 2],
        precision: Precision,
    ) -> Result<Self> {
        match w {
            ExpertWeights::Tensor(w) => {
                let ready = ready(cx, &Matrices::of(w)?, precision)?;
                let operand = ready.operand().transposed();
                Ok(Self::Values {
                    dtype: ready.matrices.dtype,
                    operand,
                    _memory: Some(ready),
                })
            }
            ExpertWeights::Packed(packed) => {
                match &CudaWeight::of_experts(cx, OP, packed, experts)?.form {
                    Form::Values {
                        dtype,
                        memory,
                        row_stride,
                    } => {
                        let rows = Operand::rows(memory.pointer(), *row_stride).transposed();
                        let batch_stride = n * row_stride;
                        let operand = Operand {
                            batch_stride,
                            ..rows
                        };
                        Ok(Self::Values {
                            dtype: *dtype,
                            operand,
                            _memory: None,
                        })
                    }
                    Form::Codes(codes) => {
                        Ok(Self::Codes(codes, quantized::expert_rows(experts, n)))
                    }
                }
            }
        }
    }

    /// `c[r] = w[e] a[r]`, of `[N, K]`.
    fn multiply(
        &self,
        cx: &Context,
        groups: &Groups,
        (a, precision): (&Rows, Precision),
        [n, k]: [usize; 2],
        c: u64,
    ) -> Result<()> {
        let c = Output {
            pointer: c,
            row_stride: n,
            write: Write::Replace,
        };
        match self {
            Self::Codes(codes, expert_rows) if precision.is_integer() => {
                groups.multiply_codes(cx, a.operand.pointer, (codes, *expert_rows), n, c)
            }
            Self::Values { dtype, operand, .. } if *dtype == a.dtype && !precision.is_integer() => {
                groups.multiply(cx, *dtype, (a.operand, *operand), [n, k], c)
            }
            _ => {
                let what = "the experts were packed for another precision";
                Err(Error::InvalidArgument { op: OP, what })
            }
        }
    }
}

/// See [`llada_tensor::backend::Backend::experts`].
pub(crate) fn experts(cx: &Context, args: ExpertsArgs<'_>) -> Result<()> {
    let (precision, n_experts) = (args.precision, args.n_experts);
    let [tokens, d] = args.x.matrix_shape(OP)?;
    let [_, k] = args.ids.matrix_shape(OP)?;
    let pairs = tokens * k;
    let [gate, up, down] = args.experts;
    let f = match down {
        ExpertWeights::Tensor(w) => w.shape()[2],
        ExpertWeights::Packed(w) => w.k(),
    };
    let y = cx.f32s_mut(OP, args.y)?;
    let weights = cx.f32s(OP, args.weights)?;
    let own;
    let [gate_out, up_out] = match args.hidden {
        Some([gate, up]) if pairs * d * f == 0 => {
            gate.fill_zero()?;
            up.fill_zero()?;
            return args.y.fill_zero();
        }
        Some([gate, up]) => [cx.f32s_mut(OP, gate)?, cx.f32s_mut(OP, up)?],
        None if pairs * d * f == 0 => return args.y.fill_zero(),
        None => {
            own = [floats(cx, pairs * f)?, floats(cx, pairs * f)?];
            own.each_ref().map(Scratch::pointer)
        }
    };
    let gate = Weights::of(cx, gate, [n_experts, f], precision)?;
    let up = Weights::of(cx, up, [n_experts, f], precision)?;
    let down = Weights::of(cx, down, [n_experts, d], precision)?;
    let groups = Groups::new(cx, args.ids, n_experts, precision)?;
    let rows = Rows::of_tokens(cx, &groups, args.x, precision)?;
    gate.multiply(cx, &groups, (&rows, precision), [f, d], gate_out)?;
    up.multiply(cx, &groups, (&rows, precision), [f, d], up_out)?;
    let h = floats(cx, pairs * f)?;
    let swiglu_args = LladaSwigluArgs {
        gate: gate_out,
        up: up_out,
        y: h.pointer(),
        rows: 1,
        columns: count(OP, pairs * f)?,
        row_stride: count(OP, pairs * f)?,
    };
    let plan = swiglu::swiglu(pairs * f, DType::F32)?;
    cx.launch("swiglu", "llada_swiglu_fwd_f32", plan, &swiglu_args)?;
    let rows = Rows::grouped(cx, h.pointer(), [pairs, f], precision)?;
    let outputs = floats(cx, pairs * d)?;
    down.multiply(cx, &groups, (&rows, precision), [d, f], outputs.pointer())?;
    groups.combine(cx, outputs.pointer(), Some(weights), y, d)
}

/// Memory for `n` values.
fn floats(cx: &Context, n: usize) -> Result<Scratch> {
    cx.scratch(n * size_of::<f32>())
}

/// `c[r] (+)= a[r] w[e]` for weights `[E, K, N]` that are tensors: their gradient to the left operand.
fn multiply_transposed(
    cx: &Context,
    groups: &Groups,
    (a, w): (&Rows, &Tensor),
    precision: Precision,
    c: u64,
    write: Write,
) -> Result<()> {
    let &[experts, k, n] = w.shape() else {
        unreachable!("weights of three axes")
    };
    let w = ready(cx, &Matrices::of(w)?, precision)?;
    // The kernels for bf16 sum along rows of both operands.
    let (b, _copy) = match a.dtype {
        DType::F32 => (w.operand(), None),
        DType::Bf16 => {
            let (copy, memory) = in_rows(cx, &w.operand().transposed(), [experts, n, k])?;
            (copy.transposed(), memory)
        }
    };
    let c = Output {
        pointer: c,
        row_stride: n,
        write,
    };
    groups.multiply(cx, a.dtype, (a.operand, b), [n, k], c)
}

/// See [`llada_tensor::backend::Backend::experts_backward`].
pub(crate) fn experts_backward(cx: &Context, args: ExpertsBackwardArgs<'_>) -> Result<()> {
    let (op, precision) = ("experts_backward", args.precision);
    let [gate, up, down] = args.experts;
    let &[n_experts, f, d] = gate.shape() else {
        unreachable!("weights of three axes")
    };
    let pairs = args.ids.numel();
    let [dgate, dup] = args.dhidden;
    if pairs * d * f == 0 {
        for out in [args.dweights, dgate, dup, args.weighted] {
            out.fill_zero()?;
        }
        return args.dx.map_or(Ok(()), Tensor::fill_zero);
    }
    let groups = Groups::new(cx, args.ids, n_experts, precision)?;
    let dh = floats(cx, pairs * f)?;
    let dy = Rows::of_tokens(cx, &groups, args.dy, precision)?;
    let replace = Write::Replace;
    multiply_transposed(cx, &groups, (&dy, down), precision, dh.pointer(), replace)?;
    let [dgate, dup] = [cx.f32s_mut(op, dgate)?, cx.f32s_mut(op, dup)?];
    let kernel_args = LladaMoeBackwardArgs {
        gate: cx.f32s(op, args.hidden[0])?,
        up: cx.f32s(op, args.hidden[1])?,
        weights: cx.f32s(op, args.weights)?,
        rows: groups.rows.pointer(),
        dh: dh.pointer(),
        dgate,
        dup,
        weighted: cx.f32s_mut(op, args.weighted)?,
        dweights: cx.f32s_mut(op, args.dweights)?,
        f: count(op, f)?,
    };
    cx.launch(IMAGE, "llada_moe_bwd_f32", plan::each(pairs)?, &kernel_args)?;
    let Some(dx) = args.dx else { return Ok(()) };
    let of_rows = floats(cx, pairs * d)?;
    for (dy, w, write) in [(dup, up, Write::Replace), (dgate, gate, Write::Add)] {
        let rows = Rows::grouped(cx, dy, [pairs, f], precision)?;
        multiply_transposed(cx, &groups, (&rows, w), precision, of_rows.pointer(), write)?;
    }
    groups.combine(cx, of_rows.pointer(), None, cx.f32s_mut(op, dx)?, d)
}

/// See [`llada_tensor::backend::Backend::expert_gradient`].
pub(crate) fn expert_gradient(cx: &Context, args: ExpertGradientArgs<'_>) -> Result<()> {
    let &[n_experts, n, k] = args.dw.shape() else {
        unreachable!("the gradient of three axes")
    };
    if args.ids.numel() * n * k == 0 {
        return Ok(());
    }
    let groups = Groups::new(cx, args.ids, n_experts, args.precision)?;
    let rows = |of: ExpertRows<'_>| match of {
        ExpertRows::OfTokens(x) => Rows::of_tokens(cx, &groups, x, args.precision),
        ExpertRows::Grouped(x) => {
            let shape = x.matrix_shape(OP)?;
            Rows::grouped(cx, cx.f32s(OP, x)?, shape, args.precision)
        }
    };
    let (dy, x) = (rows(args.dy)?, rows(args.x)?);
    let operands = (dy.operand.transposed(), x.operand);
    let dw = cx.f32s_mut(OP, args.dw)?;
    groups.add_gradient(cx, dy.dtype, operands, [n, k], dw)
}
