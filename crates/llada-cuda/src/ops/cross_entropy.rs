//! See `/kernels/cross_entropy.cu`.

use llada_tensor::Result;
use llada_tensor::backend::{CrossEntropyArgs, CrossEntropyBackwardArgs};

use crate::context::Context;
use crate::ops::missing;

/// See [`llada_tensor::backend::Backend::cross_entropy`].
pub(crate) fn cross_entropy(cx: &Context, _args: CrossEntropyArgs<'_>) -> Result<()> {
    missing(cx, "cross_entropy")
}

/// See [`llada_tensor::backend::Backend::cross_entropy_backward`].
pub(crate) fn cross_entropy_backward(
    cx: &Context,
    _args: CrossEntropyBackwardArgs<'_>,
) -> Result<()> {
    missing(cx, "cross_entropy_backward")
}
