//! Products by the kernels of `/kernels/gemm.cu`, and the scales of columns that a library lacks.

use llada_kernels::args::{LladaGemmArgs, LladaScaleColumnsArgs};
use llada_tensor::{DType, Error, Result};

use crate::context::{Context, Gemm};
use crate::launch::gemm::{MAX_BATCH, gemm, scale_columns};
use crate::launch::narrow;
use crate::memory::Scratch;
use crate::operands::in_rows;
use crate::product::{GemmArgs, Operand, Write};

const OP: &str = "gemm";

/// Tensor-core products of bf16 and plain ones of `f32`; needs nothing but the kernels. A row of
/// the output has the same bits whatever other rows and products there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlainGemm;

impl Gemm for PlainGemm {
    fn gemm(&self, cx: &Context, args: &GemmArgs) -> Result<()> {
        if args.m == 0 || args.n == 0 {
            return Ok(());
        }
        let (args, _copies) = with_k_inside(cx, *args)?;
        for first in (0..args.batch).step_by(MAX_BATCH) {
            let batch = (args.batch - first).min(MAX_BATCH);
            let (entry, plan) = gemm(args.dtype, args.m, args.n, batch)?;
            cx.launch(OP, entry, plan, &kernel_args(&args, first)?)?;
        }
        Ok(())
    }
}

/// The arguments from one product of the batch on.
fn kernel_args(args: &GemmArgs, first: usize) -> Result<LladaGemmArgs> {
    let at = |pointer: u64, stride: usize, bytes: usize| pointer + (first * stride * bytes) as u64;
    let bytes = args.dtype.size_bytes();
    Ok(LladaGemmArgs {
        a: at(args.a.pointer, args.a.batch_stride, bytes),
        b: at(args.b.pointer, args.b.batch_stride, bytes),
        c: at(args.c, args.c_batch_stride, args.write.dtype().size_bytes()),
        column_scales: args.column_scales.unwrap_or(0),
        a_row_stride: args.a.row_stride as i64,
        a_column_stride: args.a.column_stride as i64,
        a_batch_stride: args.a.batch_stride as i64,
        b_row_stride: args.b.row_stride as i64,
        b_column_stride: args.b.column_stride as i64,
        b_batch_stride: args.b.batch_stride as i64,
        c_row_stride: args.c_row_stride as i64,
        c_batch_stride: args.c_batch_stride as i64,
        m: narrow(OP, args.m)?,
        n: narrow(OP, args.n)?,
        k: narrow(OP, args.k)?,
        output: args.write.kernel(),
    })
}

/// The kernels for bf16 sum along rows of both operands: an operand that lies in columns is copied.
/// The copies must live until the product was asked for.
fn with_k_inside(cx: &Context, mut args: GemmArgs) -> Result<(GemmArgs, [Option<Scratch>; 2])> {
    let GemmArgs { batch, m, n, k, .. } = args;
    let mut copies = [None, None];
    if args.dtype == DType::F32 {
        return Ok((args, copies));
    }
    let has_k_inside =
        |x: &Operand| (x.column_stride == 1 || k == 1) && x.row_stride.is_multiple_of(8);
    if !has_k_inside(&args.a) {
        let (operand, copy) = in_rows(cx, &args.a, [batch, m, k])?;
        (args.a, copies[0]) = (operand, copy);
    }
    let b = args.b.transposed();
    if !has_k_inside(&b) {
        let (operand, copy) = in_rows(cx, &b, [batch, n, k])?;
        (args.b, copies[1]) = (operand.transposed(), copy);
    }
    let is_aligned = |x: &Operand| x.batch_stride.is_multiple_of(8) && x.pointer.is_multiple_of(16);
    if is_aligned(&args.a) && is_aligned(&args.b) {
        return Ok((args, copies));
    }
    let (op, what) = (OP, "bf16 operands are in rows or columns of whole 16 bytes");
    Err(Error::InvalidArgument { op, what })
}

/// Products by a `library` that has no scales of columns: they are applied to what it computes.
pub(super) fn scaled(library: &dyn Gemm, cx: &Context, args: &GemmArgs, scales: u64) -> Result<()> {
    let bytes = args.dtype.size_bytes();
    // What is added to must stay until the product is known.
    let accumulate = args.write == Write::Add;
    let room = match accumulate {
        true => Some(cx.scratch(args.m * args.n * size_of::<f32>())?),
        false => None,
    };
    for at in 0..args.batch {
        let y = args.c + (at * args.c_batch_stride * size_of::<f32>()) as u64;
        let (x, x_row_stride) = match &room {
            Some(room) => (room.pointer(), args.n),
            None => (y, args.c_row_stride),
        };
        let mut one = GemmArgs {
            c: x,
            c_row_stride: x_row_stride,
            batch: 1,
            column_scales: None,
            write: Write::Replace,
            ..*args
        };
        one.a.pointer += (at * args.a.batch_stride * bytes) as u64;
        one.b.pointer += (at * args.b.batch_stride * bytes) as u64;
        library.gemm(cx, &one)?;
        let kernel_args = LladaScaleColumnsArgs {
            x,
            scales,
            y,
            x_row_stride: x_row_stride as i64,
            y_row_stride: args.c_row_stride as i64,
            rows: narrow(OP, args.m)?,
            columns: narrow(OP, args.n)?,
            accumulate: i32::from(accumulate),
            padding: 0,
        };
        let plan = scale_columns(args.m * args.n)?;
        cx.launch(OP, "llada_scale_columns_fwd_f32", plan, &kernel_args)?;
    }
    Ok(())
}
