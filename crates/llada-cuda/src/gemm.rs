//! Matrix products of operands that lie in device memory: the one seam between ops and whatever
//! multiplies, NVIDIA's library or this crate's own kernels.

mod cublaslt;
mod plain;

use std::fmt;

use llada_kernels::args::LladaScaleColumnsArgs;
use llada_tensor::{DType, Result};

use crate::context::Context;
use crate::launch::gemm::scale_columns;
use crate::launch::narrow;
use crate::memory::Allocator;
pub(crate) use cublaslt::CublasLt;
pub(crate) use plain::PlainGemm;

/// Environment variable that can leave cuBLASLt out.
const SWITCH: &str = "LLADA_CUBLASLT";

/// A batch of matrices in device memory; strides in elements, so that a transpose is a pair of
/// exchanged strides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operand {
    /// Address of the first element.
    pub(crate) pointer: u64,
    /// From one row to the next.
    pub(crate) row_stride: usize,
    /// From one column to the next.
    pub(crate) column_stride: usize,
    /// From one matrix to the next; 0 if all products share it.
    pub(crate) batch_stride: usize,
}

impl Operand {
    /// A single matrix in row-major order with `row_stride` elements per row.
    pub(crate) fn rows(pointer: u64, row_stride: usize) -> Self {
        Self {
            pointer,
            row_stride,
            column_stride: 1,
            batch_stride: 0,
        }
    }

    /// The transpose of each matrix.
    pub(crate) fn transposed(self) -> Self {
        Self {
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// `c[i, m, n] (+)= column_scales[n] sum_k a[i, m, k] b[i, k, n]`, sums in `f32`.
///
/// - `a`: `[batch, M, K]`; `b`: `[batch, K, N]`, both of type `dtype`.
/// - `c`: `[batch, M, N]`, `f32` or as [`Write`] says.
/// - `f32` operands have any strides, and are not rounded (no TF32).
/// - `bf16` operands have one stride of 1, start on 16 bytes, and their other strides are multiples
///   of 8, as those of [`crate::ops::matmul::round_to_bf16`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct GemmArgs {
    /// Type of both operands.
    pub(crate) dtype: DType,
    /// Left operand.
    pub(crate) a: Operand,
    /// Right operand.
    pub(crate) b: Operand,
    /// Address of the output.
    pub(crate) c: u64,
    /// From one row of the output to the next.
    pub(crate) c_row_stride: usize,
    /// From one matrix of the output to the next.
    pub(crate) c_batch_stride: usize,
    /// Rows of `a` and `c`.
    pub(crate) m: usize,
    /// Columns of `b` and `c`.
    pub(crate) n: usize,
    /// Columns of `a`, rows of `b`; the output is zero (or stays as it is) if there are none.
    pub(crate) k: usize,
    /// Number of products.
    pub(crate) batch: usize,
    /// Address of `[N]` factors in `f32`, all 1 if there are none.
    pub(crate) column_scales: Option<u64>,
    /// What becomes of the output.
    pub(crate) write: Write,
}

/// What becomes of the output of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Write {
    /// It is replaced.
    Replace,
    /// The product is added to it.
    Add,
    /// It is replaced, and of type bf16; no scales of columns.
    ReplaceBf16,
}

impl Write {
    /// Of an output in `f32`.
    pub(crate) fn f32(accumulate: bool) -> Self {
        match accumulate {
            true => Self::Add,
            false => Self::Replace,
        }
    }

    /// Type of the output.
    pub(crate) fn dtype(self) -> DType {
        match self {
            Self::Replace | Self::Add => DType::F32,
            Self::ReplaceBf16 => DType::Bf16,
        }
    }
}

/// What multiplies matrices on a device, in order with all else on the stream of `cx`.
pub(crate) trait Gemm: fmt::Debug + Send + Sync {
    /// Asks for one batch of products. Deterministic: the same arguments give the same bits.
    ///
    /// # Errors
    /// If operands are not as [`GemmArgs`] says, or the device fails.
    fn gemm(&self, cx: &Context, args: &GemmArgs) -> Result<()>;
}

/// The best that there is: [`CublasLt`] where its library is installed, as on any GPU with CUDA's
/// toolkit, else [`PlainGemm`], as on the software device, which runs PTX and nothing else.
///
/// Their results differ in the order of sums. [`PlainGemm`] gives a row the same bits whatever
/// other rows there are; cuBLASLt chooses its order of sums by shape, so that results are the same
/// from run to run, but not for a row alone and among others. It multiplies bf16 only: who asks for
/// `f32` wants exact results before fast ones.
///
/// Chosen before the device is used: loading the library waits for a thread that has the stream for
/// itself, and that thread may be waiting for products.
///
/// `LLADA_CUBLASLT=0` leaves the library out: then the bits of a result depend on nothing beside it
/// in bf16 either.
pub(crate) fn choose(allocator: &Allocator) -> Chosen {
    if std::env::var_os(SWITCH).is_some_and(|value| value == "0") {
        return Chosen {
            gemm: Box::new(PlainGemm),
            why: format!("own products: {SWITCH}=0"),
        };
    }
    match CublasLt::new(allocator) {
        Ok(library) => Chosen {
            gemm: Box::new(library),
            why: "cuBLASLt".to_owned(),
        },
        Err(error) => Chosen {
            gemm: Box::new(PlainGemm),
            why: format!("own products: {error}"),
        },
    }
}

/// What multiplies, and in words.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) gemm: Box<dyn Gemm>,
    pub(crate) why: String,
}

/// Products by a `library` that has no scales of columns: they are applied to what it computes.
fn scaled(library: &dyn Gemm, cx: &Context, args: &GemmArgs, scales: u64) -> Result<()> {
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
            rows: narrow("gemm", args.m)?,
            columns: narrow("gemm", args.n)?,
            accumulate: i32::from(accumulate),
            padding: 0,
        };
        let plan = scale_columns(args.m * args.n)?;
        cx.launch("gemm", "llada_scale_columns_fwd_f32", plan, &kernel_args)?;
    }
    Ok(())
}

#[cfg(all(test, feature = "nvcc"))]
mod tests;
