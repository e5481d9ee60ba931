//! Matrix products: `c[.., m, n] = sum_k a[.., m, k] b[.., k, n]`.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::Cost;
use crate::backend::PackedWeight;
use crate::error::expect_shapes;
use crate::{DType, Device, Error, Precision, Result, Tape, Tensor, Var};

/// Elements of `bf16` after which a row of an operand may begin: 16 bytes.
const OPERAND_ALIGNMENT: usize = 8;

/// Right operand of a product.
#[derive(Debug, Clone, Copy)]
pub enum Rhs<'a> {
    /// A matrix `[.., K, N]`, any strides.
    Matrix(&'a Tensor),
    /// A weight `[N, K]`, used transposed.
    Weight(&'a Tensor),
    /// A weight `[N, K]` in the backend's layout, used transposed.
    Packed(&'a Arc<dyn PackedWeight>),
}

impl Rhs<'_> {
    /// Rows and columns `(K, N)` of the operand as it is multiplied.
    #[must_use]
    pub fn k_n(&self) -> Option<(usize, usize)> {
        match self {
            Self::Matrix(b) => match *b.shape() {
                [.., k, n] => Some((k, n)),
                _ => None,
            },
            Self::Weight(w) => match *w.shape() {
                [n, k] => Some((k, n)),
                _ => None,
            },
            Self::Packed(w) => Some((w.k(), w.n())),
        }
    }

    /// An error if the operand is a tensor of another type than `f32`.
    pub(crate) fn expect_f32(&self, op: &'static str) -> Result<()> {
        match self {
            Self::Matrix(x) | Self::Weight(x) => x.expect_f32(op),
            Self::Packed(_) => Ok(()),
        }
    }

    fn expect_operand(&self, op: &'static str, precision: Precision) -> Result<()> {
        match self {
            Self::Matrix(x) | Self::Weight(x) => expect_operand(x, op, precision),
            Self::Packed(_) => Ok(()),
        }
    }
}

/// Arguments of [`crate::backend::Backend::matmul`].
#[derive(Debug)]
pub struct MatmulArgs<'a> {
    /// Left operand `[.., M, K]`, any strides; `f32`, or as [`operand`] makes it.
    pub a: &'a Tensor,
    /// Right operand; a tensor is of the types of the left one.
    pub b: Rhs<'a>,
    /// Output `[.., M, N]`, contiguous; `f32`, or, of a single matrix that is not added to, of the
    /// type of operands.
    pub c: &'a mut Tensor,
    /// Add to the output instead of replacing it.
    pub accumulate: bool,
    /// Whether operands are rounded to bf16; sums are `f32` in any case.
    pub precision: Precision,
}

/// Checks shapes and types, then multiplies.
///
/// Leading axes of `a` and of a [`Rhs::Matrix`] are a batch and must be equal; a weight is
/// shared by the batch.
///
/// # Errors
/// [`Error::Rank`], [`Error::ShapeMismatch`] or [`Error::DTypeMismatch`].
pub fn matmul(args: MatmulArgs<'_>) -> Result<()> {
    let op = "matmul";
    let rank = |shape: &[usize]| Error::Rank {
        op,
        expected: 2,
        shape: shape.to_vec(),
    };
    let [a_batch @ .., m, k] = args.a.shape() else {
        return Err(rank(args.a.shape()));
    };
    let (b_k, n) = args.b.k_n().ok_or_else(|| rank(&[]))?;
    if b_k != *k {
        return Err(Error::shapes(op, args.a.shape(), &[b_k, n]));
    }
    if let Rhs::Matrix(b) = args.b
        && b.shape()[..b.shape().len() - 2] != *a_batch
    {
        return Err(Error::shapes(op, args.a.shape(), b.shape()));
    }
    let expected = [a_batch, &[*m, n]].concat();
    expect_shapes(op, &expected, args.c.shape())?;
    expect_operand(args.a, op, args.precision)?;
    args.b.expect_operand(op, args.precision)?;
    match args.accumulate || args.c.shape().len() != 2 {
        true => args.c.expect_f32(op)?,
        false => expect_operand(args.c, op, args.precision)?,
    }
    let device = args.a.device().clone();
    device.backend().matmul(args)
}

/// An error if the tensor is neither `f32` nor of the type of operands.
pub(crate) fn expect_operand(x: &Tensor, op: &'static str, precision: Precision) -> Result<()> {
    match x.dtype() == x.device().backend().operand_dtype(precision) {
        true => Ok(()),
        false => x.expect_f32(op),
    }
}

/// A matrix `[R, C]` as products take it, for several of them: rounded once on a device that
/// multiplies `bf16` tensors in this precision, else as it is.
///
/// # Errors
/// [`Error::Rank`], or if there is no memory.
pub fn operand(x: &Tensor, precision: Precision) -> Result<Tensor> {
    let device = x.device();
    let dtype = device.backend().operand_dtype(precision);
    if dtype == DType::F32 || x.dtype() == dtype {
        return Ok(x.clone());
    }
    let mut y = empty_operand(device, dtype, x.matrix_shape("operand")?)?;
    device.backend().round(x, &mut y)?;
    Ok(y)
}

/// A matrix with unspecified contents that products take as it is: rows of `bf16` start on 16
/// bytes.
pub(crate) fn empty_operand(
    device: &Device,
    dtype: DType,
    [rows, columns]: [usize; 2],
) -> Result<Tensor> {
    let width = match dtype {
        DType::F32 => columns,
        DType::Bf16 => columns.next_multiple_of(OPERAND_ALIGNMENT),
    };
    Tensor::empty(device, dtype, &[rows, width])?.narrow(1, 0, columns)
}

/// Packs a weight `[N, K]` of any type and strides for products `x wᵀ`.
///
/// # Errors
/// [`Error::Rank`] if the weight is not a matrix.
///
/// # Panics
/// Never: the backend asks for rows that exist.
pub fn pack(weight: &Tensor, precision: Precision) -> Result<Arc<dyn PackedWeight>> {
    let shape = weight.matrix_shape("pack")?;
    let failure = OnceLock::new();
    let fill = |rows: Range<usize>, out: &mut [f32]| {
        let part = weight.narrow(0, rows.start, rows.len());
        let part = part.expect("the backend asks for rows that exist");
        if let Err(error) = part.copy_f32(out) {
            failure.get_or_init(|| error);
        }
    };
    let packed = weight.device().backend().pack(shape, precision, &fill)?;
    failure.into_inner().map_or(Ok(packed), Err)
}

/// Work of one product with operands of `operand_bytes` each and an `f32` output.
#[must_use]
pub fn cost(batch: usize, m: usize, n: usize, k: usize, operand_bytes: usize) -> Cost {
    let [batch, m, n, k, bytes] = [batch, m, n, k, operand_bytes].map(|x| x as u64);
    Cost {
        flops: 2 * batch * m * n * k,
        bytes: batch * ((m * k + k * n) * bytes + 4 * m * n),
    }
}

impl Tape {
    /// Type of a matrix `[R, width]` without gaps that only products take.
    pub(crate) fn operand_dtype(&self, width: usize) -> DType {
        match width.is_multiple_of(OPERAND_ALIGNMENT) {
            true => self.device().backend().operand_dtype(self.precision()),
            false => DType::F32,
        }
    }

    /// Linear layer `y = x wᵀ + bias`.
    ///
    /// - `x`: `[T, K]`; `weight`: `[N, K]`; `bias`: `[N]`; returns `[T, N]`.
    /// - Gradients: `dx = dy w`, `dw += dyᵀ x`, `dbias += sum_t dy`.
    ///
    /// # Errors
    /// As [`matmul`].
    pub fn linear(&mut self, x: &Var, weight: &Var, bias: Option<&Var>) -> Result<Var> {
        let y = self.linear_to(x, weight, DType::F32)?;
        match bias {
            Some(bias) => self.add(&y, bias),
            None => Ok(y),
        }
    }

    /// As [`Self::linear`] without a bias, in `f32` or in the type of operands: see [`operand`].
    pub(crate) fn linear_to(&mut self, x: &Var, weight: &Var, dtype: DType) -> Result<Var> {
        self.linear_in(x, weight, self.precision(), dtype)
    }

    /// As [`Self::linear_to`], in another precision than the tape's.
    pub(crate) fn linear_in(
        &mut self,
        x: &Var,
        weight: &Var,
        precision: Precision,
        dtype: DType,
    ) -> Result<Var> {
        let x_in = x.with_value(operand(x.value(), precision)?);
        let w_in = weight.with_value(operand(weight.value(), precision)?);
        let y = product(x_in.value(), Rhs::Weight(w_in.value()), precision, dtype)?;
        Ok(self.push_product(y, &[x, weight], move |dy, sink| {
            let dy = &operand(dy, precision)?;
            add_product(sink, &x_in, dy, w_in.value(), precision)?;
            add_product(sink, &w_in, &dy.transpose(0, 1)?, x_in.value(), precision)
        }))
    }

    /// The same value, as products take it: see [`operand`]. For several layers of one input.
    pub(crate) fn operand(&self, x: &Var) -> Result<Var> {
        Ok(x.with_value(operand(x.value(), self.precision())?))
    }
}

/// `x wᵀ` for several packed weights, without gradients; `x: [T, K]`, each weight `[N, K]`.
///
/// # Errors
/// As [`matmul`].
///
/// # Panics
/// Never: there is one output for each weight.
pub fn linear_each<const N: usize>(
    x: &Tensor,
    weights: [&Arc<dyn PackedWeight>; N],
    precision: Precision,
) -> Result<[Tensor; N]> {
    let op = "linear_each";
    let [rows, k] = x.matrix_shape(op)?;
    if let Some(other) = weights.iter().find(|weight| weight.k() != k) {
        return Err(Error::shapes(op, x.shape(), &[other.n(), other.k()]));
    }
    expect_operand(x, op, precision)?;
    let empty =
        |weight: &Arc<dyn PackedWeight>| Tensor::empty(x.device(), DType::F32, &[rows, weight.n()]);
    let outputs: Vec<Tensor> = weights.into_iter().map(empty).collect::<Result<_>>()?;
    let mut outputs: [Tensor; N] = outputs.try_into().expect("one output for each weight");
    let backend = x.device().backend();
    backend.matmul_each(x, &weights, &mut outputs, precision)?;
    Ok(outputs)
}

/// `x b` in a new tensor, `x: [T, K]`.
fn product(x: &Tensor, b: Rhs<'_>, precision: Precision, dtype: DType) -> Result<Tensor> {
    let n = b.k_n().map_or(0, |(_, n)| n);
    let rows = x.shape().first().copied().unwrap_or(0);
    let mut y = empty_operand(x.device(), dtype, [rows, n])?;
    matmul(MatmulArgs {
        a: x,
        b,
        c: &mut y,
        accumulate: false,
        precision,
    })?;
    Ok(y)
}

/// Adds `a b` to the gradient of `x`, in place where there is one already.
fn add_product(
    sink: &mut crate::tape::GradSink<'_>,
    x: &Var,
    a: &Tensor,
    b: &Tensor,
    precision: Precision,
) -> Result<()> {
    if !x.needs_grad() {
        return Ok(());
    }
    let b = Rhs::Matrix(b);
    if let Some(c) = sink.sum(x)? {
        let accumulate = true;
        return matmul(MatmulArgs {
            a,
            b,
            c,
            accumulate,
            precision,
        });
    }
    let dtype = match sink.takes_operand(x.place()) {
        true => a.device().backend().operand_dtype(precision),
        false => DType::F32,
    };
    sink.add(x, product(a, b, precision, dtype)?)
}
