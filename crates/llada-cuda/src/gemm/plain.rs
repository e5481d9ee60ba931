//! Products by the kernels of `/kernels/gemm.cu`.

use llada_kernels::args::LladaGemmArgs;
use llada_tensor::{DType, Error, Result};

use super::{Gemm, GemmArgs, Operand};
use crate::context::Context;
use crate::launch::gemm::{MAX_BATCH, gemm};
use crate::launch::narrow;

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
        if args.dtype == DType::Bf16 {
            expect_k_inside(args)?;
        }
        for first in (0..args.batch).step_by(MAX_BATCH) {
            let batch = (args.batch - first).min(MAX_BATCH);
            let (entry, plan) = gemm(args.dtype, args.m, args.n, batch)?;
            cx.launch(OP, entry, plan, &kernel_args(args, first)?)?;
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
        c: at(args.c, args.c_batch_stride, size_of::<f32>()),
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
        accumulate: i32::from(args.accumulate),
    })
}

/// What the copies of 16 bytes in the bf16 kernels need.
fn expect_k_inside(args: &GemmArgs) -> Result<()> {
    let is_aligned = |x: &Operand, k_stride: usize, stride: usize| {
        let whole_chunks = stride.is_multiple_of(8) && x.batch_stride.is_multiple_of(8);
        k_stride == 1 && whole_chunks && x.pointer.is_multiple_of(16)
    };
    let a = is_aligned(&args.a, args.a.column_stride, args.a.row_stride);
    let b = is_aligned(&args.b, args.b.row_stride, args.b.column_stride);
    if a && b && args.k.is_multiple_of(8) {
        return Ok(());
    }
    let (op, what) = (OP, "bf16 operands have k inside, in rows of whole 16 bytes");
    Err(Error::InvalidArgument { op, what })
}
