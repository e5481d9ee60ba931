//! Layers of a network: ops of the [`Tape`] in a row.
//!
//! Between the ops of a layer values have the form in which the device is fastest (see
//! [`crate::ops::matmul::operand`] and [`crate::backend::Backend::attention_dtype`]); what goes in
//! and what comes out is `f32`, but for the output of attention on a tape that records.

use std::sync::Arc;

use crate::backend::{AttentionShape, PackedWeight};
use crate::ops::matmul::linear_each;
use crate::ops::moe::{Router, Routes};
use crate::ops::rope::RopeTable;
use crate::{DType, Error, Precision, Result, Tape, Tensor, Var};

/// Root-mean-square normalization.
#[derive(Debug, Clone)]
pub struct Norm {
    /// `[D]`
    pub weight: Var,
    /// `[D]`
    pub bias: Option<Var>,
    /// Added to the mean square.
    pub eps: f32,
}

/// A linear layer `y = x wᵀ + bias`, plus what its adapter makes of `x`.
#[derive(Debug, Clone)]
pub struct Linear<'a> {
    /// `[N, K]`
    pub weight: Weight<'a>,
    /// `[N]`
    pub bias: Option<Var>,
    /// Of the weight.
    pub adapter: Option<Adapter>,
}

/// The weight `[N, K]` of a linear layer, or `[E, N, K]` of one of each expert.
#[derive(Debug, Clone)]
pub enum Weight<'a> {
    /// A value of the tape.
    Tensor(Var),
    /// In the backend's layout, without a gradient.
    Packed(&'a Arc<dyn PackedWeight>),
}

/// A low-rank adapter: adds `scale * (x aᵀ) bᵀ`.
///
/// Source: Hu et al. 2021 (arXiv 2106.09685).
#[derive(Debug, Clone)]
pub struct Adapter {
    /// `[rank, K]`
    pub a: Var,
    /// `[N, rank]`
    pub b: Var,
    /// Factor on the product.
    pub scale: f32,
}

/// A mixture of experts, in the place of a gated network.
#[derive(Debug, Clone)]
pub struct Moe<'a> {
    /// Of the router, `[E, D]`; if it is packed, in [`Precision::F32`].
    pub gate: Weight<'a>,
    /// Of the router, `[E]`.
    pub bias: Option<Tensor>,
    /// How experts are chosen.
    pub router: Router,
    /// Boundaries `[R + 1]` of the runs of [`crate::ops::moe::RouterRule::Capacity`].
    pub runs: &'a [usize],
    /// Gate and up `[E, F, D]`, down `[E, D, F]`.
    pub experts: [Weight<'a>; 3],
    /// Gate, up and down of an expert that every token takes, with weight one.
    pub shared: Option<[&'a Linear<'a>; 3]>,
}

impl Tape {
    /// `x: [R, D]`, normalized over the last axis: `[R, D]`.
    ///
    /// # Errors
    /// As [`Self::rms_norm`].
    pub fn norm(&mut self, x: &Var, norm: &Norm) -> Result<Var> {
        let y = self.rms_norm(x, &norm.weight, norm.eps)?;
        match &norm.bias {
            Some(bias) => self.add(&y, bias),
            None => Ok(y),
        }
    }

    /// As [`Self::norm`], for products alone.
    fn norm_operand(&mut self, x: &Var, norm: &Norm) -> Result<Var> {
        if norm.bias.is_some() {
            return self.norm(x, norm);
        }
        let dtype = self.operand_dtype(norm.weight.value().numel());
        self.rms_norm_to(x, &norm.weight, norm.eps, dtype)
    }

    /// One linear layer: `x: [T, K]` gives `[T, N]`.
    ///
    /// # Errors
    /// As [`crate::ops::matmul::matmul`].
    pub fn linear_layer(&mut self, x: &Var, layer: &Linear<'_>) -> Result<Var> {
        let [y] = self.linear_layers(x, [layer], DType::F32)?;
        Ok(y)
    }

    /// Linear layers of one normalized input: `x: [T, K]` gives a `[T, N]` for each layer.
    ///
    /// # Errors
    /// As [`Self::norm`] and [`Self::linear_layer`]; [`Error::InvalidArgument`] if some weights are
    /// packed and others are not.
    pub fn norm_linear<const N: usize>(
        &mut self,
        x: &Var,
        norm: &Norm,
        layers: [&Linear<'_>; N],
    ) -> Result<[Var; N]> {
        let x = self.norm_operand(x, norm)?;
        self.linear_layers(&x, layers, DType::F32)
    }

    /// A gated network of two layers, over the last axis of a normalized input:
    /// `y = down(silu(gate(h)) * up(h))` with `h = norm(x)`.
    ///
    /// - `x`: `[T, D]`; weights of `gate` and `up`: `[F, D]`, of `down`: `[D, F]`; returns `[T, D]`.
    ///
    /// # Errors
    /// As [`Self::norm_linear`].
    ///
    /// Source: Shazeer 2020, eq. 6 (arXiv 2002.05202).
    pub fn swiglu_mlp(
        &mut self,
        x: &Var,
        norm: &Norm,
        [gate, up, down]: [&Linear<'_>; 3],
    ) -> Result<Var> {
        let h = self.norm_operand(x, norm)?;
        self.swiglu_layers(&h, [gate, up, down])
    }

    /// [`Self::swiglu_mlp`] of an input that is normalized already.
    fn swiglu_layers(&mut self, h: &Var, [gate, up, down]: [&Linear<'_>; 3]) -> Result<Var> {
        let is_product = |layer: &Linear<'_>| {
            let is_trained = matches!(&layer.weight, Weight::Tensor(w) if w.needs_grad());
            is_trained && layer.bias.is_none() && layer.adapter.is_none()
        };
        let dtype = match is_product(gate) && is_product(up) {
            true => self.device().backend().operand_dtype(self.precision()),
            false => DType::F32,
        };
        let [gate, up] = self.linear_layers(h, [gate, up], dtype)?; // [T, F]
        let dtype = match (gate.value().dtype(), gate.value().shape()) {
            (DType::F32, &[_, width]) => self.operand_dtype(width),
            (dtype, _) => dtype,
        };
        let h = self.swiglu_to(&gate, &up, dtype)?;
        self.linear_layer(&h, down)
    }

    /// A mixture of experts over the last axis of a normalized input: with `h = norm(x)`, the sum of
    /// [`Self::experts`] of `h` and of the shared expert, and the routes that were taken.
    ///
    /// - `x`: `[T, D]`; returns `[T, D]`.
    /// - The product of the router is `f32` whatever the tape's precision.
    ///
    /// # Errors
    /// As [`Self::norm`], [`Self::route`], [`Self::experts`] and [`Self::swiglu_mlp`].
    ///
    /// Source: the published code of LLaDA-MoE and of LLaDA2.0.
    pub fn moe_mlp(&mut self, x: &Var, norm: &Norm, moe: &Moe<'_>) -> Result<(Var, Routes)> {
        let h = self.norm(x, norm)?;
        let logits = match &moe.gate {
            Weight::Packed(gate) => {
                let [logits] = linear_each(h.value(), [gate], Precision::F32)?;
                Var::constant(logits)
            }
            Weight::Tensor(gate) => self.linear_in(&h, gate, Precision::F32, DType::F32)?,
        };
        let routes = self.route(&logits, moe.bias.as_ref(), &moe.router, moe.runs)?;
        let h = self.operand(&h)?;
        let mut y = self.experts(&h, &routes, moe.experts.each_ref())?;
        if let Some(layers) = moe.shared {
            let shared = self.swiglu_layers(&h, layers)?;
            y = self.add(&y, &shared)?;
        }
        Ok((y, routes))
    }

    /// Attention of queries and keys that are rotated by their positions first: [`Self::rope`],
    /// then [`Self::attention`].
    ///
    /// - `q`: `[T, H * E]`; `k`, `v`: `[T, K * E]`; `positions`: `[T]`; returns `[T, H * E]`.
    ///
    /// # Errors
    /// Those of both ops.
    pub fn rope_attention(
        &mut self,
        [q, k, v]: [&Var; 3],
        table: &RopeTable,
        positions: &[u32],
        shape: AttentionShape<'_>,
    ) -> Result<Var> {
        let dtype = self.attention_dtype(2 * table.cos.shape()[1]);
        let q = self.rope_to(q, table, positions, dtype)?;
        let k = self.rope_to(k, table, positions, dtype)?;
        self.attention(&q, &k, v, shape)
    }

    /// Linear layers of one input, which is prepared once. `dtype` is that of the outputs of layers
    /// without bias and adapter.
    fn linear_layers<const N: usize>(
        &mut self,
        x: &Var,
        layers: [&Linear<'_>; N],
        dtype: DType,
    ) -> Result<[Var; N]> {
        let mut outputs = Vec::with_capacity(N);
        let packed = layers.iter().filter_map(|layer| match layer.weight {
            Weight::Packed(weight) => Some(weight),
            Weight::Tensor(_) => None,
        });
        if let Ok(weights) = packed.collect::<Vec<_>>().try_into() {
            let products: [_; N] = linear_each(x.value(), weights, self.precision())?;
            for (y, layer) in products.into_iter().zip(layers) {
                outputs.push(self.finish_linear(x, Var::constant(y), layer)?);
            }
        } else {
            let x = &self.operand(x)?;
            for layer in layers {
                let Weight::Tensor(weight) = &layer.weight else {
                    let (op, what) = ("linear", "of layers of one input all are packed or none is");
                    return Err(Error::InvalidArgument { op, what });
                };
                let y = self.linear_to(x, weight, dtype)?;
                outputs.push(self.finish_linear(x, y, layer)?);
            }
        }
        Ok(outputs.try_into().expect("one output for each layer"))
    }

    /// Adds the bias to the product of a linear layer, and what the adapter makes of its input.
    fn finish_linear(&mut self, x: &Var, mut y: Var, layer: &Linear<'_>) -> Result<Var> {
        if let Some(bias) = &layer.bias {
            y = self.add(&y, bias)?;
        }
        if let Some(Adapter { a, b, scale }) = &layer.adapter {
            let z = self.linear(x, a, None)?; // [T, rank]
            let z = self.linear(&z, b, None)?;
            y = self.add_scaled(&y, *scale, &z)?;
        }
        Ok(y)
    }
}
