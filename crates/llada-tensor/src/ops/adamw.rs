//! AdamW with decoupled weight decay.

use super::Cost;
use crate::error::expect_shapes;
use crate::{Error, Result, Tensor};

/// Arguments of [`crate::backend::Backend::adamw`].
///
/// `g = gradient_scale * gradient`, `m = beta1 m + (1 - beta1) g`,
/// `v = beta2 v + (1 - beta2) g^2`,
/// `p = p (1 - lr weight_decay) - lr (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps)`.
///
/// Source: Loshchilov and Hutter 2019, algorithm 2 (arXiv 1711.05101), as `torch.optim.AdamW`.
#[derive(Debug)]
pub struct AdamWArgs<'a> {
    /// Parameter, updated in place.
    pub parameter: &'a mut Tensor,
    /// Gradient.
    pub gradient: &'a Tensor,
    /// Running mean `m`, updated in place.
    pub first_moment: &'a mut Tensor,
    /// Running mean of squares `v`, updated in place.
    pub second_moment: &'a mut Tensor,
    /// Learning rate.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Factor on the gradient (clipping).
    pub gradient_scale: f32,
    /// Number of this update, from 1 on.
    pub step: u64,
}

/// Checks shapes and updates one parameter.
///
/// # Errors
/// [`Error::ShapeMismatch`]; [`Error::InvalidArgument`] if `step` is 0.
pub fn adamw(args: AdamWArgs<'_>) -> Result<()> {
    let op = "adamw";
    let shape = args.parameter.shape();
    for other in [args.gradient, &*args.first_moment, &*args.second_moment] {
        expect_shapes(op, shape, other.shape())?;
    }
    if args.step == 0 {
        return Err(Error::InvalidArgument {
            op,
            what: "updates are counted from 1",
        });
    }
    let device = args.gradient.device().clone();
    device.backend().adamw(args)
}

/// Work of one update of `numel` elements.
#[must_use]
pub fn cost(numel: usize) -> Cost {
    Cost::elementwise(numel, 14, 28)
}

/// Euclidean norm of all tensors together, accumulated in `f64`.
///
/// # Errors
/// If a tensor is in an unsupported layout.
pub fn global_norm(tensors: &[Tensor]) -> Result<f64> {
    let Some(first) = tensors.first() else {
        return Ok(0.0);
    };
    let tensors: Vec<&Tensor> = tensors.iter().collect();
    let sums = first.device().backend().sums_of_squares(&tensors)?;
    Ok(sums.into_iter().sum::<f64>().sqrt())
}
