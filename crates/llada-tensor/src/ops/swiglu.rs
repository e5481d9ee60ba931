//! SwiGLU activation: `y = silu(gate) * up`.

use super::Cost;
use super::matmul::{empty_operand, operand};
use crate::error::expect_shapes;
use crate::tape::GradSink;
use crate::{DType, Result, Tape, Tensor, Var};

/// Arguments of [`crate::backend::Backend::swiglu`].
#[derive(Debug)]
pub struct SwigluArgs<'a> {
    /// Input of the sigmoid (`ff_proj`).
    pub gate: &'a Tensor,
    /// The other factor (`up_proj`).
    pub up: &'a Tensor,
    /// Output.
    pub y: &'a mut Tensor,
}

/// Arguments of [`crate::backend::Backend::swiglu_backward`].
#[derive(Debug)]
pub struct SwigluBackwardArgs<'a> {
    /// Input of the sigmoid.
    pub gate: &'a Tensor,
    /// The other factor.
    pub up: &'a Tensor,
    /// Gradient of the output.
    pub dy: &'a Tensor,
    /// Output.
    pub dgate: &'a mut Tensor,
    /// Output.
    pub dup: &'a mut Tensor,
}

/// Work of one forward call on `numel` elements.
#[must_use]
pub fn cost(numel: usize) -> Cost {
    Cost::elementwise(numel, 6, 12)
}

/// Work of one backward call.
#[must_use]
pub fn backward_cost(numel: usize) -> Cost {
    Cost::elementwise(numel, 12, 20)
}

impl Tape {
    /// `y = gate * sigmoid(gate) * up`, all of one shape.
    ///
    /// # Errors
    /// [`crate::Error::ShapeMismatch`].
    ///
    /// Source: Shazeer 2020, eq. 6 (arXiv 2002.05202); `LLaDALlamaBlock` of the reference.
    pub fn swiglu(&mut self, gate: &Var, up: &Var) -> Result<Var> {
        self.swiglu_to(gate, up, DType::F32)
    }

    /// As [`Self::swiglu`], in `f32` or in the type of [`super::matmul::operand`].
    pub(crate) fn swiglu_to(&mut self, gate: &Var, up: &Var, dtype: DType) -> Result<Var> {
        let (g, u) = (gate.value(), up.value());
        expect_shapes("swiglu", g.shape(), u.shape())?;
        let mut y = empty_like(g, dtype)?;
        self.device().backend().swiglu(SwigluArgs {
            gate: g,
            up: u,
            y: &mut y,
        })?;
        let (gate_in, up_in, precision) = (gate.clone(), up.clone(), self.precision());
        let backward = move |dy: &Tensor, sink: &mut GradSink<'_>| {
            let (gate, up) = (gate_in.value(), up_in.value());
            let dy = match gate.dtype() {
                DType::F32 => dy.clone(),
                DType::Bf16 => operand(dy, precision)?,
            };
            let mut dgate = empty_like(gate, gate.dtype())?;
            let mut dup = empty_like(gate, gate.dtype())?;
            let args = SwigluBackwardArgs {
                gate,
                up,
                dy: &dy,
                dgate: &mut dgate,
                dup: &mut dup,
            };
            dy.device().backend().swiglu_backward(args)?;
            sink.add(&gate_in, dgate)?;
            sink.add(&up_in, dup)
        };
        Ok(match g.dtype() {
            DType::F32 => self.push(y, &[gate, up], backward),
            DType::Bf16 => self.push_product(y, &[gate, up], backward),
        })
    }
}

/// A tensor of another's shape; of `bf16` as products take it.
fn empty_like(x: &Tensor, dtype: DType) -> Result<Tensor> {
    match (dtype, x.shape()) {
        (DType::Bf16, &[rows, columns]) => empty_operand(x.device(), dtype, [rows, columns]),
        (_, shape) => Tensor::empty(x.device(), dtype, shape),
    }
}
