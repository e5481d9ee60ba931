//! See `/kernels/add.cu`.

use llada_tensor::{Result, Tensor};

use crate::context::Context;
use crate::ops::missing;

/// See [`llada_tensor::backend::Backend::add`].
pub(crate) fn add(cx: &Context, _x: &Tensor, _z: &Tensor, _y: &mut Tensor) -> Result<()> {
    missing(cx, "add")
}

/// See [`llada_tensor::backend::Backend::add_into`].
pub(crate) fn add_into(cx: &Context, _x: &Tensor, _y: &mut Tensor) -> Result<()> {
    missing(cx, "add_into")
}

/// See [`llada_tensor::backend::Backend::axpby`].
pub(crate) fn axpby(cx: &Context, _a: f32, _x: &Tensor, _b: f32, _y: &mut Tensor) -> Result<()> {
    missing(cx, "axpby")
}

/// See [`llada_tensor::backend::Backend::column_sum`].
pub(crate) fn column_sum(cx: &Context, _x: &Tensor, _y: &mut Tensor) -> Result<()> {
    missing(cx, "column_sum")
}
