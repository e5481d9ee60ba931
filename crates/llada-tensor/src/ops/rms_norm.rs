//! Root-mean-square normalization.

use super::Cost;
use crate::{DType, Error, Result, Tape, Tensor, Var};

/// Arguments of [`crate::backend::Backend::rms_norm`].
#[derive(Debug)]
pub struct RmsNormArgs<'a> {
    /// Input `[R, D]`.
    pub x: &'a Tensor,
    /// Weight `[D]`.
    pub weight: &'a Tensor,
    /// Added to the mean square.
    pub eps: f32,
    /// Output `[R, D]`.
    pub y: &'a mut Tensor,
    /// Output `[R]`: `1 / sqrt(mean(x^2) + eps)`.
    pub rstd: &'a mut Tensor,
}

/// Arguments of [`crate::backend::Backend::rms_norm_backward`].
#[derive(Debug)]
pub struct RmsNormBackwardArgs<'a> {
    /// Input `[R, D]`.
    pub x: &'a Tensor,
    /// Weight `[D]`.
    pub weight: &'a Tensor,
    /// Saved `[R]`.
    pub rstd: &'a Tensor,
    /// Gradient of the output `[R, D]`.
    pub dy: &'a Tensor,
    /// Output `[R, D]`.
    pub dx: &'a mut Tensor,
    /// Gradient of the weight `[D]`, added to.
    pub dweight: &'a mut Tensor,
}

/// Work of one forward call on `rows` rows of `d` elements.
#[must_use]
pub fn cost(rows: usize, d: usize) -> Cost {
    Cost::elementwise(rows * d, 4, 8)
}

/// Work of one backward call.
#[must_use]
pub fn backward_cost(rows: usize, d: usize) -> Cost {
    Cost::elementwise(rows * d, 9, 12)
}

impl Tape {
    /// Root-mean-square normalization over the last axis.
    ///
    /// `y[r, c] = x[r, c] * weight[c] / sqrt(mean_c(x[r]^2) + eps)`
    ///
    /// - `x`: `[R, D]`; `weight`: `[D]`; returns `[R, D]`. The mean is accumulated in `f32`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if `weight` is not `[D]`.
    ///
    /// Source: Zhang and Sennrich 2019, eq. 4 (arXiv 1910.07467).
    pub fn rms_norm(&mut self, x: &Var, weight: &Var, eps: f32) -> Result<Var> {
        self.rms_norm_to(x, weight, eps, DType::F32)
    }

    /// Normalizes each head by itself.
    ///
    /// - `x`: `[T, H * E]`; `weight`: `[E]`; returns `[T, H * E]`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the width of `x` is no multiple of that of `weight`.
    pub fn rms_norm_heads(&mut self, x: &Var, weight: &Var, eps: f32) -> Result<Var> {
        let op = "rms_norm_heads";
        let (x_shape, w_shape) = (x.value().shape(), weight.value().shape());
        let [rows, width] = x.value().matrix_shape(op)?;
        match *w_shape {
            [e] if e > 0 && width % e == 0 => {
                self.rms_norm_of(x, weight, eps, (DType::F32, [rows * (width / e), e]))
            }
            _ => Err(Error::shapes(op, x_shape, w_shape)),
        }
    }

    /// As [`Self::rms_norm`], in `f32` or in the type of [`super::matmul::operand`].
    pub(crate) fn rms_norm_to(
        &mut self,
        x: &Var,
        weight: &Var,
        eps: f32,
        dtype: DType,
    ) -> Result<Var> {
        let op = "rms_norm";
        let (x_shape, w_shape) = (x.value().shape(), weight.value().shape());
        let [rows, d] = x.value().matrix_shape(op)?;
        if w_shape != [d] {
            return Err(Error::shapes(op, x_shape, w_shape));
        }
        self.rms_norm_of(x, weight, eps, (dtype, [rows, d]))
    }

    /// Of `x` as rows of `d` values.
    fn rms_norm_of(
        &mut self,
        x: &Var,
        weight: &Var,
        eps: f32,
        (dtype, [rows, d]): (DType, [usize; 2]),
    ) -> Result<Var> {
        let shape = x.value().shape().to_vec();
        let as_rows = move |x: &Tensor| x.reshape(&[rows, d]);
        let mut y = Tensor::empty(self.device(), dtype, &[rows, d])?;
        let mut rstd = Tensor::empty(self.device(), DType::F32, &[rows])?;
        let args = RmsNormArgs {
            x: &as_rows(x.value())?,
            weight: weight.value(),
            eps,
            y: &mut y,
            rstd: &mut rstd,
        };
        self.device().backend().rms_norm(args)?;
        let (x_in, w_in) = (x.clone(), weight.clone());
        Ok(
            self.push(y.reshape(&shape)?, &[x, weight], move |dy, sink| {
                let (x, dy) = (&as_rows(x_in.value())?, &as_rows(dy)?);
                let (weight, rstd) = (w_in.value(), &rstd);
                let mut dx = Tensor::empty(dy.device(), DType::F32, x.shape())?;
                let mut dw = Tensor::zeros(dy.device(), DType::F32, weight.shape())?;
                let args = RmsNormBackwardArgs {
                    x,
                    weight,
                    rstd,
                    dy,
                    dx: &mut dx,
                    dweight: &mut dw,
                };
                dy.device().backend().rms_norm_backward(args)?;
                sink.add(&w_in, dw)?;
                sink.add(&x_in, dx.reshape(&shape)?)
            }),
        )
    }
}
