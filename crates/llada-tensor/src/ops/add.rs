//! Addition: residual connections and biases.

use super::Cost;
use crate::error::expect_shapes;
use crate::{DType, Result, Tape, Tensor, Var};

/// `y += x`, of one shape.
///
/// # Errors
/// [`crate::Error::ShapeMismatch`]; [`crate::Error::SharedOutput`] if `y` shares its storage.
pub fn add_into(y: &mut Tensor, x: &Tensor) -> Result<()> {
    expect_shapes("add", y.shape(), x.shape())?;
    x.device().clone().backend().add_into(x, y)
}

/// Work of one addition of `numel` elements.
#[must_use]
pub fn cost(numel: usize) -> Cost {
    Cost::elementwise(numel, 1, 12)
}

impl Tape {
    /// `y = x + z`, all of one shape, or `z` a row `[D]` that is added to every row of `x`.
    ///
    /// # Errors
    /// [`crate::Error::ShapeMismatch`].
    pub fn add(&mut self, x: &Var, z: &Var) -> Result<Var> {
        let (x_shape, z_shape) = (x.value().shape(), z.value().shape());
        let is_row = z_shape.len() == 1 && x_shape.len() > 1;
        if !(is_row && x_shape.last() == z_shape.last()) {
            expect_shapes("add", x_shape, z_shape)?;
        }
        let mut y = Tensor::empty(self.device(), DType::F32, x_shape)?;
        self.device().backend().add(x.value(), z.value(), &mut y)?;
        let (x_in, z_in) = (x.place(), z.place());
        Ok(self.push(y, &[x, z], move |dy, sink| {
            if z_in.needs_grad() {
                if is_row {
                    let width = dy.shape().last().copied().unwrap_or(0);
                    let mut dz = Tensor::zeros(dy.device(), DType::F32, &[width])?;
                    dy.device().backend().column_sum(dy, &mut dz)?;
                    sink.add(z_in, dz)?;
                } else {
                    sink.add(z_in, dy.clone())?;
                }
            }
            sink.add(x_in, dy.clone())
        }))
    }

    /// `y = x + a z`, all of one shape.
    ///
    /// # Errors
    /// [`crate::Error::ShapeMismatch`].
    pub fn add_scaled(&mut self, x: &Var, a: f32, z: &Var) -> Result<Var> {
        expect_shapes("add_scaled", x.value().shape(), z.value().shape())?;
        let mut y = x.value().to_dtype(DType::F32)?;
        self.device().backend().axpby(a, z.value(), 1.0, &mut y)?;
        let (x_in, z_in) = (x.place(), z.place());
        Ok(self.push(y, &[x, z], move |dy, sink| {
            if z_in.needs_grad() {
                let mut dz = Tensor::zeros(dy.device(), DType::F32, dy.shape())?;
                dy.device().backend().axpby(a, dy, 0.0, &mut dz)?;
                sink.add(z_in, dz)?;
            }
            sink.add(x_in, dy.clone())
        }))
    }
}
