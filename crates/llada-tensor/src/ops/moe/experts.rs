//! The experts of each token.

use std::sync::Arc;

use super::super::Cost;
use super::Routes;
use crate::backend::PackedWeight;
use crate::error::expect_shapes;
use crate::layers::Weight;
use crate::ops::matmul::expect_operand;
use crate::tape::GradSink;
use crate::{DType, Error, Precision, Result, Tape, Tensor, Var};

/// The same weight `[N, K]` of every expert.
#[derive(Debug, Clone, Copy)]
pub enum ExpertWeights<'a> {
    /// `[E, N, K]`, without gaps.
    Tensor(&'a Tensor),
    /// Made by [`super::pack_experts`].
    Packed(&'a Arc<dyn PackedWeight>),
}

/// Arguments of [`crate::backend::Backend::experts`].
#[derive(Debug)]
pub struct ExpertsArgs<'a> {
    /// `[T, D]`
    pub x: &'a Tensor,
    /// Experts of each token `[T, k]`, as numbers, ascending.
    pub ids: &'a Tensor,
    /// Their weights `[T, k]`.
    pub weights: &'a Tensor,
    /// Experts `E`.
    pub n_experts: usize,
    /// Gate and up `[E, F, D]`, down `[E, D, F]`: all tensors or all packed.
    pub experts: [ExpertWeights<'a>; 3],
    /// Outputs for the gradient, `[T * k, F]` each, grouped: the products with gate and up.
    pub hidden: Option<[&'a mut Tensor; 2]>,
    /// Output `[T, D]`
    pub y: &'a mut Tensor,
    /// Of the products.
    pub precision: Precision,
}

/// Arguments of [`crate::backend::Backend::experts_backward`].
#[derive(Debug)]
pub struct ExpertsBackwardArgs<'a> {
    /// Experts of each token `[T, k]`.
    pub ids: &'a Tensor,
    /// Their weights `[T, k]`.
    pub weights: &'a Tensor,
    /// Gate and up `[E, F, D]`, down `[E, D, F]`.
    pub experts: [&'a Tensor; 3],
    /// Saved `[T * k, F]`, grouped.
    pub hidden: [&'a Tensor; 2],
    /// Gradient of the output `[T, D]`.
    pub dy: &'a Tensor,
    /// Output `[T, D]`, if it is asked for.
    pub dx: Option<&'a mut Tensor>,
    /// Output `[T, k]`
    pub dweights: &'a mut Tensor,
    /// Outputs `[T * k, F]`, grouped: the gradients of `hidden`.
    pub dhidden: [&'a mut Tensor; 2],
    /// Output `[T * k, F]`, grouped: what down was multiplied by, times the weight of the expert.
    pub weighted: &'a mut Tensor,
    /// Of the products.
    pub precision: Precision,
}

/// One row for each pair of a token and one of its experts.
#[derive(Debug, Clone, Copy)]
pub enum ExpertRows<'a> {
    /// `[T, C]`: that of the token.
    OfTokens(&'a Tensor),
    /// `[T * k, C]`: its own.
    Grouped(&'a Tensor),
}

/// Arguments of [`crate::backend::Backend::expert_gradient`].
#[derive(Debug)]
pub struct ExpertGradientArgs<'a> {
    /// Experts of each token `[T, k]`.
    pub ids: &'a Tensor,
    /// Gradients of the outputs, rows of `N`.
    pub dy: ExpertRows<'a>,
    /// Inputs, rows of `K`.
    pub x: ExpertRows<'a>,
    /// Gradient `[E, N, K]`, added to.
    pub dw: &'a mut Tensor,
    /// Of the products.
    pub precision: Precision,
}

/// Work of one forward call of `tokens` tokens with `k` experts of `[d, f]` each; those that have a
/// token take `expert_bytes` bytes together.
#[must_use]
pub fn cost([tokens, k]: [usize; 2], [d, f]: [usize; 2], expert_bytes: usize) -> Cost {
    let [tokens, k, d, f, expert_bytes] = [tokens, k, d, f, expert_bytes].map(|x| x as u64);
    Cost {
        flops: 6 * tokens * k * d * f,
        bytes: expert_bytes + 8 * tokens * d,
    }
}

/// Sizes of a call.
struct Sizes {
    op: &'static str,
    n_experts: usize,
    d: usize,
    f: usize,
}

impl Sizes {
    /// Of packed experts, whose widths follow from those of their inputs.
    fn of(op: &'static str, x: &Tensor, routes: &Routes, down: &Weight<'_>) -> Result<Self> {
        let [tokens, d] = x.matrix_shape(op)?;
        let [of_routes, k] = routes.ids.matrix_shape(op)?;
        expect_shapes(op, &[of_routes, k], &[tokens, k])?;
        let f = match down {
            Weight::Tensor(w) => *w.value().shape().last().unwrap_or(&0),
            Weight::Packed(w) => w.k(),
        };
        let n_experts = routes.n_experts;
        Ok(Self {
            op,
            n_experts,
            d,
            f,
        })
    }

    /// An error unless a weight is of `[E, n, k]`.
    fn expect(&self, weight: &Weight<'_>, [n, k]: [usize; 2], precision: Precision) -> Result<()> {
        let (op, n_experts) = (self.op, self.n_experts);
        match weight {
            Weight::Tensor(w) => {
                let w = w.value();
                expect_shapes(op, w.shape(), &[n_experts, n, k])?;
                w.expect_contiguous(op)?;
                if precision.is_integer() {
                    let what = "integers are only multiplied by packed weights";
                    return Err(Error::InvalidArgument { op, what });
                }
                w.expect_f32(op)
            }
            Weight::Packed(w) => expect_shapes(op, &[w.n(), w.k()], &[n_experts * n, k]),
        }
    }
}

impl Tape {
    /// The weighted sum of what the experts of a token make of it:
    /// `y[t] = sum_e weight[t, e] * down_e(silu(gate_e(x[t])) * up_e(x[t]))`.
    ///
    /// - `x`: `[T, D]`; `experts`: gate and up `[E, F, D]`, down `[E, D, F]`; returns `[T, D]`.
    /// - Products are of the tape's precision; the sum over experts is `f32`, in ascending order of
    ///   their ids. A row of the result depends on no other token.
    /// - Experts without a token are not read.
    /// - Gradients: to `x`, to the weights of the routes, and to the experts; none of packed ones, as
    ///   in [`crate::ops::matmul::linear_each`].
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::ShapeMismatch`] or [`Error::DTypeMismatch`];
    /// [`Error::InvalidArgument`] if some experts are packed and others are not, or were packed for
    /// another precision.
    ///
    /// Source: Shazeer et al. 2017, eq. 1 (arXiv 1701.06538); the experts are those of
    /// Shazeer 2020, eq. 6 (arXiv 2002.05202).
    pub fn experts(&mut self, x: &Var, routes: &Routes, experts: [&Weight<'_>; 3]) -> Result<Var> {
        let (op, precision) = ("experts", self.precision());
        let [gate, up, down] = experts;
        let sizes = Sizes::of(op, x.value(), routes, down)?;
        let (d, f) = (sizes.d, sizes.f);
        for (weight, shape) in [(gate, [f, d]), (up, [f, d]), (down, [d, f])] {
            sizes.expect(weight, shape, precision)?;
        }
        expect_operand(x.value(), op, precision)?;
        let tensors: Vec<Var> = experts.iter().filter_map(|weight| tensor(weight)).collect();
        if !matches!(tensors.len(), 0 | 3) {
            let what = "of the experts' weights all are packed or none is";
            return Err(Error::InvalidArgument { op, what });
        }
        let inputs: Vec<&Var> = [x, &routes.weights].into_iter().chain(&tensors).collect();
        let is_kept = self.is_recording() && !tensors.is_empty() && needs_grad(&inputs);
        let rows = routes.ids.numel();
        let empty = |shape: &[usize]| Tensor::empty(self.device(), DType::F32, shape);
        let mut hidden = match is_kept {
            true => vec![empty(&[rows, f])?, empty(&[rows, f])?],
            false => Vec::new(),
        };
        let mut y = empty(x.value().shape())?;
        self.device().backend().experts(ExpertsArgs {
            x: x.value(),
            ids: &routes.ids,
            weights: routes.weights.value(),
            n_experts: sizes.n_experts,
            experts: experts.map(|weight| match weight {
                Weight::Tensor(w) => ExpertWeights::Tensor(w.value()),
                Weight::Packed(w) => ExpertWeights::Packed(w),
            }),
            hidden: match &mut hidden[..] {
                [gate, up] => Some([gate, up]),
                _ => None,
            },
            y: &mut y,
            precision,
        })?;
        if !is_kept {
            return Ok(Var::constant(y));
        }
        let (x_in, routes, experts) = (x.clone(), routes.clone(), tensors.clone());
        Ok(self.push(y, &inputs, move |dy, sink| {
            backward(&x_in, &routes, &experts, &hidden, dy, precision, sink)
        }))
    }
}

fn tensor(weight: &Weight<'_>) -> Option<Var> {
    match weight {
        Weight::Tensor(w) => Some(w.clone()),
        Weight::Packed(_) => None,
    }
}

fn needs_grad(inputs: &[&Var]) -> bool {
    inputs.iter().any(|input| input.needs_grad())
}

/// Gives the gradients of [`Tape::experts`] to those that ask for one.
fn backward(
    x: &Var,
    routes: &Routes,
    experts: &[Var],
    hidden: &[Tensor],
    dy: &Tensor,
    precision: Precision,
    sink: &mut GradSink<'_>,
) -> Result<()> {
    let ([gate, up, down], [gate_out, up_out]) = (experts, hidden) else {
        unreachable!("three weights and two products were kept")
    };
    let device = dy.device();
    let empty = |shape: &[usize]| Tensor::empty(device, DType::F32, shape);
    let mut dx = match x.needs_grad() {
        true => Some(empty(x.value().shape())?),
        false => None,
    };
    let mut dweights = empty(routes.ids.shape())?;
    let shape = gate_out.shape();
    let (mut dgate, mut dup, mut weighted) = (empty(shape)?, empty(shape)?, empty(shape)?);
    device.backend().experts_backward(ExpertsBackwardArgs {
        ids: &routes.ids,
        weights: routes.weights.value(),
        experts: [gate.value(), up.value(), down.value()],
        hidden: [gate_out, up_out],
        dy,
        dx: dx.as_mut(),
        dweights: &mut dweights,
        dhidden: [&mut dgate, &mut dup],
        weighted: &mut weighted,
        precision,
    })?;
    let of_x = ExpertRows::OfTokens(x.value());
    for (weight, dy, x) in [
        (gate, ExpertRows::Grouped(&dgate), of_x),
        (up, ExpertRows::Grouped(&dup), of_x),
        (
            down,
            ExpertRows::OfTokens(dy),
            ExpertRows::Grouped(&weighted),
        ),
    ] {
        add_expert_gradient(sink, weight, &routes.ids, [dy, x], precision)?;
    }
    sink.add(&routes.weights, dweights)?;
    match dx {
        Some(dx) => sink.add(x, dx),
        None => Ok(()),
    }
}

/// Adds to the gradient of one weight of all experts, in place where there is one already.
fn add_expert_gradient(
    sink: &mut GradSink<'_>,
    weight: &Var,
    ids: &Tensor,
    [dy, x]: [ExpertRows<'_>; 2],
    precision: Precision,
) -> Result<()> {
    if !weight.needs_grad() {
        return Ok(());
    }
    let backend = ids.device().backend();
    if let Some(dw) = sink.sum(weight)? {
        return backend.expert_gradient(ExpertGradientArgs {
            ids,
            dy,
            x,
            dw,
            precision,
        });
    }
    let mut dw = Tensor::zeros(ids.device(), DType::F32, weight.value().shape())?;
    backend.expert_gradient(ExpertGradientArgs {
        ids,
        dy,
        x,
        dw: &mut dw,
        precision,
    })?;
    sink.add(weight, dw)
}
