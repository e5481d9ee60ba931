//! See `/kernels/swiglu.cu`.

use llada_tensor::Result;
use llada_tensor::backend::{SwigluArgs, SwigluBackwardArgs};

use crate::context::Context;
use crate::ops::missing;

/// See [`llada_tensor::backend::Backend::swiglu`].
pub(crate) fn swiglu(cx: &Context, _args: SwigluArgs<'_>) -> Result<()> {
    missing(cx, "swiglu")
}

/// See [`llada_tensor::backend::Backend::swiglu_backward`].
pub(crate) fn swiglu_backward(cx: &Context, _args: SwigluBackwardArgs<'_>) -> Result<()> {
    missing(cx, "swiglu_backward")
}
