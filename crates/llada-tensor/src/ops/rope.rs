//! Rotary position embedding in the reference's layout: halves `(i, i + E/2)` form a pair.

use super::Cost;
use crate::error::expect_ids;
use crate::{DType, Device, Error, Result, Tape, Tensor, Var};

/// Cosines and sines for the positions `0..n`.
#[derive(Debug, Clone)]
pub struct RopeTable {
    /// `[n, R/2]`, `cos(position * theta^(-2i/R))`, `R` being the dimensions that are rotated.
    pub cos: Tensor,
    /// `[n, R/2]`.
    pub sin: Tensor,
    /// Width `E` of a head, at least `R`.
    pub head_dim: usize,
}

impl RopeTable {
    /// Tables in `f32`, frequencies too, as the reference makes them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `head_dim` is odd or 0.
    ///
    /// Source: `RotaryEmbedding.get_rotary_embedding` in the reference's `modeling_llada.py`.
    pub fn new(device: &Device, n_positions: usize, head_dim: usize, theta: f32) -> Result<Self> {
        Self::partial(device, n_positions, [head_dim, head_dim], theta)
    }

    /// As [`Self::new`] for heads of which only the first `rotary_dim` dimensions are rotated, as if
    /// there were no others.
    ///
    /// # Errors
    /// As there, and if more are rotated than there are.
    pub fn partial(
        device: &Device,
        n_positions: usize,
        [rotary_dim, head_dim]: [usize; 2],
        theta: f32,
    ) -> Result<Self> {
        if rotary_dim == 0 || !rotary_dim.is_multiple_of(2) {
            let what = "the head dimension must be even and not 0";
            return Err(Error::InvalidArgument { op: "rope", what });
        }
        if rotary_dim > head_dim {
            let what = "more dimensions would be rotated than a head has";
            return Err(Error::InvalidArgument { op: "rope", what });
        }
        let half = rotary_dim / 2;
        #[expect(
            clippy::cast_precision_loss,
            reason = "f32 positions, as in the reference"
        )]
        let angle = |at: usize| {
            let exponent = (2 * (at % half)) as f32 / rotary_dim as f32;
            (at / half) as f32 * (1.0 / theta.powf(exponent))
        };
        let cos: Vec<f32> = (0..n_positions * half).map(|at| angle(at).cos()).collect();
        let sin: Vec<f32> = (0..n_positions * half).map(|at| angle(at).sin()).collect();
        let shape = [n_positions, half];
        Ok(Self {
            cos: Tensor::from_f32(device, &shape, &cos)?,
            sin: Tensor::from_f32(device, &shape, &sin)?,
            head_dim,
        })
    }
}

/// Arguments of [`crate::backend::Backend::rope`].
#[derive(Debug)]
pub struct RopeArgs<'a> {
    /// Input `[T, H * E]`.
    pub x: &'a Tensor,
    /// Cosines and sines.
    pub table: &'a RopeTable,
    /// `[T]`, the position of each row.
    pub positions: &'a [u32],
    /// Rotate back: the gradient.
    pub inverse: bool,
    /// Output `[T, H * E]`.
    pub y: &'a mut Tensor,
}

/// Work of one call on `t` rows of `width` elements.
#[must_use]
pub fn cost(t: usize, width: usize) -> Cost {
    Cost::elementwise(t * width, 3, 8)
}

impl Tape {
    /// Rotates every head of every row by its position.
    ///
    /// `(a, b) -> (a cos - b sin, b cos + a sin)` for the pairs `(x[i], x[i + R/2])` of the first `R`
    /// dimensions of a head; the others stay.
    ///
    /// - `x`: `[T, H * E]` with the table's `E`; `positions`: `[T]`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`], or [`Error::IndexOutOfRange`] for a position past the table.
    ///
    /// Source: Su et al. 2021 (arXiv 2104.09864); `rotate_half` of the reference.
    pub fn rope(&mut self, x: &Var, table: &RopeTable, positions: &[u32]) -> Result<Var> {
        self.rope_to(x, table, positions, DType::F32)
    }

    /// As [`Self::rope`], in `f32` or in the type that [`Self::attention`] reads.
    pub(crate) fn rope_to(
        &mut self,
        x: &Var,
        table: &RopeTable,
        positions: &[u32],
        dtype: DType,
    ) -> Result<Var> {
        let op = "rope";
        let (n_positions, head_dim) = (table.cos.shape()[0], table.head_dim);
        let shape = x.value().shape();
        let fits = matches!(*shape, [t, width] if t == positions.len() && head_dim > 0
            && width % head_dim == 0);
        if !fits {
            return Err(Error::shapes(op, shape, &[positions.len(), head_dim]));
        }
        expect_ids(op, positions, n_positions)?;
        let mut y = Tensor::empty(self.device(), dtype, shape)?;
        let args = RopeArgs {
            x: x.value(),
            table,
            positions,
            inverse: false,
            y: &mut y,
        };
        self.device().backend().rope(args)?;
        let (x_in, table, positions) = (x.place(), table.clone(), positions.to_vec());
        let operand_dtype = self.operand_dtype(shape[1]);
        Ok(self.push(y, &[x], move |dy, sink| {
            let dtype = match sink.takes_operand(x_in) {
                true => operand_dtype,
                false => DType::F32,
            };
            let mut dx = Tensor::empty(dy.device(), dtype, dy.shape())?;
            let (table, positions) = (&table, &positions[..]);
            let args = RopeArgs {
                x: dy,
                table,
                positions,
                inverse: true,
                y: &mut dx,
            };
            dy.device().backend().rope(args)?;
            sink.add(x_in, dx)
        }))
    }
}
