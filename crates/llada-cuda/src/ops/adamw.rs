//! See `/kernels/adamw.cu`.

use llada_tensor::backend::AdamWArgs;
use llada_tensor::{Result, Tensor};

use crate::context::Context;
use crate::ops::missing;

/// See [`llada_tensor::backend::Backend::adamw`].
pub(crate) fn adamw(cx: &Context, _args: AdamWArgs<'_>) -> Result<()> {
    missing(cx, "adamw")
}

/// See [`llada_tensor::backend::Backend::sum_of_squares`].
pub(crate) fn sum_of_squares(cx: &Context, _x: &Tensor) -> Result<f64> {
    missing(cx, "sum_of_squares")
}
