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
        let mut y = Tensor::empty(self.device(), dtype, x_shape)?;
        let mut rstd = Tensor::empty(self.device(), DType::F32, &[rows])?;
        let args = RmsNormArgs {
            x: x.value(),
            weight: weight.value(),
            eps,
            y: &mut y,
            rstd: &mut rstd,
        };
        self.device().backend().rms_norm(args)?;
        let (x_in, w_in) = (x.clone(), weight.clone());
        Ok(self.push(y, &[x, weight], move |dy, sink| {
            let (x, weight, rstd) = (x_in.value(), w_in.value(), &rstd);
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
            sink.add(&x_in, dx)
        }))
    }
}
