//! Operands of products: matrices of a tensor, their copies in bf16, and pieces of weights.

use std::ops::Range;

use llada_kernels::args::LladaCastArgs;
use llada_tensor::{DType, Error, Precision, Result, Tensor};

use crate::context::{Context, pointer};
use crate::launch::gemm::{MAX_BATCH, cast_rows, cast_tile};
use crate::launch::narrow;
use crate::memory::Scratch;
use crate::product::Operand;

const OP: &str = "matmul";
/// Bytes of a weight that the host holds at a time.
const PIECE_BYTES: usize = 4 << 20;

/// A batch of matrices `[.., rows, columns]` of a tensor, any strides.
#[derive(Debug, Clone)]
pub(crate) struct Matrices {
    pub(crate) dtype: DType,
    pointer: u64,
    /// Lengths and strides of the leading axes.
    batch: Vec<(usize, usize)>,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl Matrices {
    /// Those of a tensor of at least two axes.
    ///
    /// # Errors
    /// [`Error::Rank`], or if the tensor is not on this device.
    pub(crate) fn of(tensor: &Tensor) -> Result<Self> {
        let axes: Vec<_> = std::iter::zip(tensor.shape(), tensor.strides())
            .map(|(&size, &stride)| (size, stride))
            .collect();
        let [batch @ .., (rows, row_stride), (columns, column_stride)] = &axes[..] else {
            let (op, shape) = (OP, tensor.shape().to_vec());
            return Err(Error::Rank {
                op,
                expected: 2,
                shape,
            });
        };
        Ok(Self {
            dtype: tensor.dtype(),
            pointer: pointer(tensor)?,
            batch: batch.to_vec(),
            rows: *rows,
            columns: *columns,
            row_stride: *row_stride,
            column_stride: *column_stride,
        })
    }

    /// An error if the elements are not `f32`.
    pub(crate) fn expect_f32(&self) -> Result<()> {
        let (op, expected, got) = (OP, DType::F32, self.dtype);
        match got == expected {
            true => Ok(()),
            false => Err(Error::DTypeMismatch { op, expected, got }),
        }
    }

    /// One matrix of `f32` without gaps.
    pub(crate) fn contiguous(pointer: u64, rows: usize, columns: usize) -> Self {
        Self {
            dtype: DType::F32,
            pointer,
            batch: Vec::new(),
            rows,
            columns,
            row_stride: columns,
            column_stride: 1,
        }
    }

    /// Number of matrices.
    pub(crate) fn count(&self) -> usize {
        self.batch.iter().map(|(size, _)| size).product()
    }

    /// Each matrix transposed.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// One matrix of the batch, counted in row-major order.
    pub(crate) fn at(&self, index: usize) -> Self {
        let (mut rest, mut offset) = (index, 0);
        for &(size, stride) in self.batch.iter().rev() {
            offset += rest % size * stride;
            rest /= size;
        }
        Self {
            pointer: self.pointer + (offset * self.dtype.size_bytes()) as u64,
            batch: Vec::new(),
            ..*self
        }
    }

    /// The distance of neighbors in the batch, if all are equally far apart.
    pub(crate) fn batch_stride(&self) -> Option<usize> {
        // Length and stride of the axis that all so far, from the last on, are one of.
        let mut merged: Option<(usize, usize)> = None;
        for &(size, stride) in self.batch.iter().rev().filter(|(size, _)| *size != 1) {
            merged = match merged {
                None => Some((size, stride)),
                Some((inner, inner_stride)) if stride == inner * inner_stride => {
                    Some((inner * size, inner_stride))
                }
                Some(_) => return None,
            };
        }
        Some(merged.map_or(0, |(_, stride)| stride))
    }

    /// All rows of the batch as those of one matrix, if they are equally far apart.
    pub(crate) fn stacked(&self) -> Option<Self> {
        let mut batch = self.batch.clone();
        batch.push((self.rows, self.row_stride));
        let rows = Self { batch, ..*self };
        let row_stride = rows.batch_stride()?;
        Some(Self {
            rows: rows.count(),
            row_stride,
            batch: Vec::new(),
            ..rows
        })
    }

    /// Some rows, of a right operand that is stored transposed: some columns of a product.
    pub(crate) fn rows_of_transpose(self, rows: Range<usize>) -> Self {
        let offset = rows.start * self.row_stride * self.dtype.size_bytes();
        Self {
            pointer: self.pointer + offset as u64,
            rows: rows.len(),
            ..self
        }
    }

    /// As a product takes them.
    pub(crate) fn operand(&self, batch_stride: usize) -> Operand {
        Operand {
            pointer: self.pointer,
            row_stride: self.row_stride,
            column_stride: self.column_stride,
            batch_stride,
        }
    }
}

/// A batch of matrices as [`crate::product::GemmArgs`] wants operands.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) matrices: Matrices,
    /// A copy, if they were not like that.
    memory: Option<Scratch>,
}

impl Ready {
    /// Of matrices that are equally far apart.
    pub(crate) fn operand(&self) -> Operand {
        let stride = self.matrices.batch_stride().unwrap_or(0);
        self.matrices.operand(stride)
    }
}

/// Matrices for products in `f32` or bf16, for several of them.
///
/// # Errors
/// [`Error::DTypeMismatch`], or as [`round_to_bf16`].
pub(crate) fn ready(cx: &Context, x: &Matrices, precision: Precision) -> Result<Ready> {
    if matches!(precision, Precision::Bf16 | Precision::Blocks) {
        return round_to_bf16(cx, x);
    }
    x.expect_f32()?;
    let (matrices, memory) = (x.clone(), None);
    Ok(Ready { matrices, memory })
}

/// Matrices in bf16 (nearest, ties to even), each in rows or in columns, as its elements are
/// already: as they are, or in scratch.
///
/// # Errors
/// If there is no memory, or the device fails.
pub(crate) fn round_to_bf16(cx: &Context, x: &Matrices) -> Result<Ready> {
    if is_ready(x) {
        let (matrices, memory) = (x.clone(), None);
        return Ok(Ready { matrices, memory });
    }
    if x.row_stride == 1 && x.column_stride != 1 {
        let Ready { matrices, memory } = rounded_rows(cx, &x.clone().transposed())?;
        let matrices = matrices.transposed();
        return Ok(Ready { matrices, memory });
    }
    rounded_rows(cx, x)
}

/// Whether products in bf16 take matrices where they are.
fn is_ready(x: &Matrices) -> bool {
    let Some(batch_stride) = x.batch_stride() else {
        return false;
    };
    let (inner, outer) = match x.column_stride {
        1 => (x.column_stride, x.row_stride),
        _ => (x.row_stride, x.column_stride),
    };
    let whole_chunks = outer.is_multiple_of(8) && batch_stride.is_multiple_of(8);
    x.dtype == DType::Bf16 && inner == 1 && whole_chunks && x.pointer.is_multiple_of(16)
}

/// A copy in rows of whole 16 bytes.
fn rounded_rows(cx: &Context, x: &Matrices) -> Result<Ready> {
    let width = x.columns.next_multiple_of(8);
    let (count, stride) = (x.count(), x.rows * width);
    let memory = cx.scratch(count * stride * DType::Bf16.size_bytes())?;
    match x.batch_stride() {
        Some(x_stride) => cast_into(cx, x, (count, x_stride), memory.pointer(), width)?,
        None => {
            for at in 0..count {
                let y = memory.pointer() + (at * stride * DType::Bf16.size_bytes()) as u64;
                cast_into(cx, &x.at(at), (1, 0), y, width)?;
            }
        }
    }
    let matrices = Matrices {
        dtype: DType::Bf16,
        pointer: memory.pointer(),
        batch: vec![(count, stride)],
        rows: x.rows,
        columns: x.columns,
        row_stride: width,
        column_stride: 1,
    };
    let memory = Some(memory);
    Ok(Ready { matrices, memory })
}

/// A copy of an operand of bf16 `[batch, rows, columns]` in rows.
///
/// # Errors
/// If there is no memory, or the device fails.
pub(crate) fn in_rows(
    cx: &Context,
    x: &Operand,
    [batch, rows, columns]: [usize; 3],
) -> Result<(Operand, Option<Scratch>)> {
    let is_shared = x.batch_stride == 0;
    let copy = rounded_rows(
        cx,
        &Matrices {
            dtype: DType::Bf16,
            pointer: x.pointer,
            batch: vec![(if is_shared { 1 } else { batch }, x.batch_stride)],
            rows,
            columns,
            row_stride: x.row_stride,
            column_stride: x.column_stride,
        },
    )?;
    Ok((copy.operand(), copy.memory))
}

/// `y = bf16(x)` in rows of `y_columns`, for `count` matrices that are `stride` apart.
pub(crate) fn cast_into(
    cx: &Context,
    x: &Matrices,
    (count, stride): (usize, usize),
    y: u64,
    y_columns: usize,
) -> Result<()> {
    if count * x.rows * y_columns == 0 {
        return Ok(());
    }
    let args = |first: usize, batch: usize| -> Result<LladaCastArgs> {
        Ok(LladaCastArgs {
            x: x.pointer + (first * stride * x.dtype.size_bytes()) as u64,
            y: y + (first * x.rows * y_columns * DType::Bf16.size_bytes()) as u64,
            x_row_stride: x.row_stride as i64,
            x_column_stride: x.column_stride as i64,
            x_batch_stride: stride as i64,
            batch: batch as i64,
            rows: narrow(OP, x.rows)?,
            columns: narrow(OP, x.columns)?,
            y_columns: narrow(OP, y_columns)?,
            padding: 0,
        })
    };
    let in_tiles = match x.dtype {
        DType::F32 => "llada_cast_tile_fwd_bf16",
        DType::Bf16 => "llada_transpose_tile_fwd_bf16",
    };
    if x.dtype == DType::F32 && (x.column_stride == 1 || x.columns == 1) {
        let plan = cast_rows(count * x.rows * y_columns)?;
        return cx.launch("gemm", "llada_cast_rows_fwd_bf16", plan, &args(0, count)?);
    }
    for first in (0..count).step_by(MAX_BATCH) {
        let batch = (count - first).min(MAX_BATCH);
        let plan = cast_tile(x.rows, y_columns, batch)?;
        let args = args(first, batch)?;
        cx.launch("gemm", in_tiles, plan, &args)?;
    }
    Ok(())
}

/// Ranges of rows of `row_bytes` bytes that the host holds at a time.
pub(crate) fn pieces(n: usize, row_bytes: usize) -> impl Iterator<Item = Range<usize>> {
    let rows = (PIECE_BYTES / row_bytes.max(1)).clamp(1, n.max(1));
    (0..n)
        .step_by(rows)
        .map(move |first| first..(first + rows).min(n))
}

#[cfg(test)]
mod tests;
