//! One batch of matrix products as data: what ops ask for and [`crate::gemm`] computes.

use llada_kernels::args::{LLADA_GEMM_ADD, LLADA_GEMM_REPLACE, LLADA_GEMM_REPLACE_BF16};
use llada_tensor::DType;

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
///   of 8, as those of [`crate::operands::round_to_bf16`].
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

    /// As the kernels know it.
    pub(crate) fn kernel(self) -> i32 {
        let number = match self {
            Self::Replace => LLADA_GEMM_REPLACE,
            Self::Add => LLADA_GEMM_ADD,
            Self::ReplaceBf16 => LLADA_GEMM_REPLACE_BF16,
        };
        number.cast_signed()
    }

    /// Type of the output.
    pub(crate) fn dtype(self) -> DType {
        match self {
            Self::Replace | Self::Add => DType::F32,
            Self::ReplaceBf16 => DType::Bf16,
        }
    }
}

/// Where rows of a product go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// Address of the first element.
    pub(crate) pointer: u64,
    /// Elements from one row to the next.
    pub(crate) row_stride: usize,
    /// What becomes of what is there.
    pub(crate) write: Write,
}
