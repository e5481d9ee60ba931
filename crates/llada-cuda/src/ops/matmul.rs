//! Matrix products: operands are rounded as the precision says, then multiplied by [`crate::gemm`]
//! or, if the weight is of integers, by `/kernels/quantized.cu`.

mod weight;

use std::ops::Range;
use std::sync::Arc;

use llada_tensor::backend::{FillCodes, FillRows, MatmulArgs, PackedWeight, Rhs};
use llada_tensor::{DType, Error, Precision, Result, Tensor};

use crate::context::Context;
use crate::memory::Memory;
use crate::operands::{Matrices, Ready, cast_into, ready, round_to_bf16};
use crate::ops::quantized::{self, PackedCodes, Rotated, Source};
use crate::product::{GemmArgs, Operand, Output, Write};
pub(crate) use weight::{CudaWeight, Form};

const OP: &str = "matmul";

/// See [`llada_tensor::backend::Backend::matmul`].
pub(crate) fn matmul(cx: &Context, args: MatmulArgs<'_>) -> Result<()> {
    let a = Matrices::of(args.a)?;
    let (k, n) = args.b.k_n().unwrap_or_default();
    if a.count() * a.rows * n == 0 {
        return Ok(());
    }
    let c = match args.c.dtype() {
        DType::F32 => Output {
            pointer: cx.pointer_mut(args.c)?,
            row_stride: n,
            write: Write::f32(args.accumulate),
        },
        DType::Bf16 => Output {
            pointer: cx.rows_mut(OP, args.c)?,
            row_stride: args.c.strides()[0],
            write: Write::ReplaceBf16,
        },
    };
    if k == 0 {
        return match args.accumulate {
            true => Ok(()),
            false => args.c.fill_zero(),
        };
    }
    if let Rhs::Matrix(b) = args.b {
        return multiply_batch(cx, &a, &Matrices::of(b)?, c, args.precision);
    }
    if let Some(a) = a.stacked() {
        let left = Left::of(cx, &a, args.precision)?;
        return left.multiply(cx, args.b, 0..n, c);
    }
    for at in 0..a.count() {
        let left = Left::of(cx, &a.at(at), args.precision)?;
        let pointer = c.pointer + (at * a.rows * n * size_of::<f32>()) as u64;
        left.multiply(cx, args.b, 0..n, Output { pointer, ..c })?;
    }
    Ok(())
}

/// See [`llada_tensor::backend::Backend::round`].
pub(crate) fn round(cx: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
    let op = "round";
    y.expect_dtype(op, DType::Bf16)?;
    let x = Matrices::of(x)?;
    x.expect_f32()?;
    let (width, y) = (y.strides()[0], cx.rows_mut(op, y)?);
    cast_into(cx, &x, (1, 0), y, width)
}

/// See [`llada_tensor::backend::Backend::matmul_each`].
pub(crate) fn matmul_each(
    cx: &Context,
    a: &Tensor,
    weights: &[&Arc<dyn PackedWeight>],
    outputs: &mut [Tensor],
    precision: Precision,
) -> Result<()> {
    let left = Left::new(cx, a, precision)?;
    for (weight, y) in weights.iter().zip(outputs) {
        let n = weight.n();
        let c = Output {
            pointer: cx.pointer_mut(y)?,
            row_stride: n,
            write: Write::Replace,
        };
        left.multiply(cx, Rhs::Packed(weight), 0..n, c)?;
    }
    Ok(())
}

/// A left operand `[M, K]`, rounded once for several products.
#[derive(Debug)]
pub(crate) struct Left {
    m: usize,
    k: usize,
    form: LeftForm,
}

#[derive(Debug)]
enum LeftForm {
    Values(Operand),
    Rounded(Ready),
    Rotated(Rotated),
}

impl Left {
    /// The matrix of a tensor of two axes, which must not change while this lives.
    ///
    /// # Errors
    /// If the tensor is not a matrix of `f32` on this device, or there is no memory.
    pub(crate) fn new(cx: &Context, a: &Tensor, precision: Precision) -> Result<Self> {
        Self::of(cx, &Matrices::of(a)?, precision)
    }

    fn of(cx: &Context, a: &Matrices, precision: Precision) -> Result<Self> {
        let form = match precision {
            Precision::F32 => {
                a.expect_f32()?;
                LeftForm::Values(a.operand(0))
            }
            Precision::Bf16 | Precision::Blocks => LeftForm::Rounded(round_to_bf16(cx, a)?),
            Precision::Int8 | Precision::Int4 => {
                a.expect_f32()?;
                LeftForm::Rotated(quantized::rotate(cx, a)?)
            }
        };
        let (m, k) = (a.rows, a.columns);
        Ok(Self { m, k, form })
    }

    /// `c (+)= a b[:, columns]`; of a weight of integers, `columns` starts at a multiple of 32.
    ///
    /// A weight in `f32` is rounded here, `columns` of it: a product in tiles needs little
    /// memory.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the weight was packed for another precision or device.
    pub(crate) fn multiply(
        &self,
        cx: &Context,
        b: Rhs<'_>,
        columns: Range<usize>,
        c: Output,
    ) -> Result<()> {
        if self.m == 0 || columns.is_empty() {
            return Ok(());
        }
        match Right::of(cx, b)? {
            Right::Codes(codes) => match &self.form {
                LeftForm::Rotated(a) => codes.multiply(cx, a, columns, c),
                _ => Err(other_precision()),
            },
            Right::Matrix(b) => {
                let b = b.rows_of_transpose(columns);
                match &self.form {
                    LeftForm::Values(a) => {
                        b.expect_f32()?;
                        let [m, n, k] = [self.m, b.rows, self.k];
                        let b = b.operand(0).transposed();
                        product(cx, DType::F32, (*a, b), [m, n, k], c)
                    }
                    LeftForm::Rounded(a) => {
                        let n = b.rows;
                        let b = round_to_bf16(cx, &b)?;
                        let b = b.operand().transposed();
                        self.product_of_rounded(cx, a, b, n, c)
                    }
                    LeftForm::Rotated(_) => {
                        let what = "integers are only multiplied by packed weights";
                        Err(Error::InvalidArgument { op: OP, what })
                    }
                }
            }
            Right::Values(dtype, weight, row_stride) => {
                let n = columns.len();
                let b = weight::right_operand(weight, dtype, row_stride, columns.start);
                match (&self.form, dtype) {
                    (LeftForm::Values(a), DType::F32) => {
                        product(cx, dtype, (*a, b), [self.m, n, self.k], c)
                    }
                    (LeftForm::Rounded(a), DType::Bf16) => self.product_of_rounded(cx, a, b, n, c),
                    _ => Err(other_precision()),
                }
            }
        }
    }

    fn product_of_rounded(
        &self,
        cx: &Context,
        a: &Ready,
        b: Operand,
        n: usize,
        c: Output,
    ) -> Result<()> {
        let operands = (a.operand(), b);
        product(cx, DType::Bf16, operands, [self.m, n, self.k], c)
    }
}

/// A right operand that all rows share.
enum Right<'a> {
    /// Transposed: `[N, K]`.
    Matrix(Matrices),
    Values(DType, &'a Memory, usize),
    Codes(&'a PackedCodes),
}

impl<'a> Right<'a> {
    fn of(cx: &Context, b: Rhs<'a>) -> Result<Self> {
        let weight: &CudaWeight = match b {
            Rhs::Matrix(b) => return Ok(Self::Matrix(Matrices::of(b)?.transposed())),
            Rhs::Weight(w) => return Ok(Self::Matrix(Matrices::of(w)?)),
            Rhs::Packed(w) => CudaWeight::of(cx, OP, w)?,
        };
        Ok(match &weight.form {
            Form::Values {
                dtype,
                memory,
                row_stride,
            } => Self::Values(*dtype, memory, *row_stride),
            Form::Codes(codes) => Self::Codes(codes),
        })
    }
}

fn other_precision() -> Error {
    let (op, what) = (OP, "the weight was packed for another precision");
    Error::InvalidArgument { op, what }
}

/// One product.
fn product(
    cx: &Context,
    dtype: DType,
    (a, b): (Operand, Operand),
    [m, n, k]: [usize; 3],
    c: Output,
) -> Result<()> {
    let args = GemmArgs {
        dtype,
        a,
        b,
        c: c.pointer,
        c_row_stride: c.row_stride,
        c_batch_stride: 0,
        m,
        n,
        k,
        batch: 1,
        column_scales: None,
        write: c.write,
    };
    cx.gemm(&args)
}

/// `c[i] (+)= a[i] b[i]` for all matrices of a batch.
pub(crate) fn multiply_batch(
    cx: &Context,
    a: &Matrices,
    b: &Matrices,
    c: Output,
    precision: Precision,
) -> Result<()> {
    if precision.is_integer() {
        let what = "integers are only multiplied by packed weights";
        return Err(Error::InvalidArgument { op: OP, what });
    }
    let [m, n, k] = [a.rows, b.columns, a.columns];
    let count = a.count();
    let (a, b) = (ready(cx, a, precision)?, ready(cx, b, precision)?);
    let args = GemmArgs {
        dtype: a.matrices.dtype,
        a: a.operand(),
        b: b.operand(),
        c: c.pointer,
        c_row_stride: c.row_stride,
        c_batch_stride: m * n,
        m,
        n,
        k,
        batch: count,
        column_scales: None,
        write: c.write,
    };
    let (a, b) = (&a.matrices, &b.matrices);
    if a.batch_stride().is_some() && b.batch_stride().is_some() {
        return cx.gemm(&args);
    }
    for at in 0..count {
        let one = GemmArgs {
            a: a.at(at).operand(0),
            b: b.at(at).operand(0),
            c: c.pointer + (at * m * n * size_of::<f32>()) as u64,
            batch: 1,
            ..args
        };
        cx.gemm(&one)?;
    }
    Ok(())
}

/// See [`llada_tensor::backend::Backend::pack`].
pub(crate) fn pack(
    cx: &Context,
    [n, k]: [usize; 2],
    precision: Precision,
    fill: FillRows<'_>,
) -> Result<Arc<dyn PackedWeight>> {
    pack_stack(cx, [1, n, k], precision, fill)
}

/// See [`llada_tensor::backend::Backend::pack_experts`].
pub(crate) fn pack_stack(
    cx: &Context,
    [experts, n, k]: [usize; 3],
    precision: Precision,
    fill: FillRows<'_>,
) -> Result<Arc<dyn PackedWeight>> {
    let form = match precision {
        Precision::F32 | Precision::Bf16 | Precision::Blocks => {
            weight::pack_values(cx, [experts * n, k], precision, fill)?
        }
        Precision::Int8 | Precision::Int4 => {
            let values = Source::Values(fill);
            Form::Codes(quantized::pack(cx, [experts, n, k], precision, values)?)
        }
    };
    Ok(Arc::new(CudaWeight::new(cx, [experts, n, k], form)))
}

/// See [`llada_tensor::backend::Backend::pack_codes`].
pub(crate) fn pack_codes(
    cx: &Context,
    [n, k]: [usize; 2],
    precision: Precision,
    fill: FillCodes<'_>,
) -> Result<Arc<dyn PackedWeight>> {
    pack_code_stack(cx, [1, n, k], precision, fill)
}

/// See [`llada_tensor::backend::Backend::pack_expert_codes`].
pub(crate) fn pack_code_stack(
    cx: &Context,
    shape: [usize; 3],
    precision: Precision,
    fill: FillCodes<'_>,
) -> Result<Arc<dyn PackedWeight>> {
    let codes = quantized::pack(cx, shape, precision, Source::Codes(fill))?;
    Ok(Arc::new(CudaWeight::new(cx, shape, Form::Codes(codes))))
}

/// See [`llada_tensor::backend::Backend::gemm_peak`]: products of the size of a layer, which is
/// what a GPU reaches; integers are multiplied as bf16. Waits until they are done.
pub(crate) fn gemm_peak(cx: &Context, precision: Precision, rounds: usize) -> Result<u64> {
    const SIZE: usize = 4096;
    const K: usize = 1024;
    // Neither zeros nor ones: processors may be faster on those.
    let values: Vec<f32> = (0..SIZE * K)
        .map(|i| ((i * 37 % 251) as f32 - 125.0) / 128.0)
        .collect();
    let mut memory = cx.scratch(size_of_val(&values[..]))?;
    llada_tensor::backend::DeviceMemory::write(&mut memory, 0, bytemuck::cast_slice(&values))?;
    let a = Matrices::contiguous(memory.pointer(), SIZE, K);
    let output = cx.scratch(SIZE * SIZE * size_of::<f32>())?;
    let c = Output {
        pointer: output.pointer(),
        row_stride: SIZE,
        write: Write::Replace,
    };
    let rounded = round_to_bf16(cx, &a)?;
    let (dtype, a) = match precision {
        Precision::F32 => (DType::F32, a.operand(0)),
        _ => (DType::Bf16, rounded.operand()),
    };
    for _ in 0..rounds {
        product(cx, dtype, (a, a.transposed()), [SIZE, SIZE, K], c)?;
    }
    cx.allocator().synchronize()?;
    Ok((rounds * 2 * SIZE * SIZE * K) as u64)
}
