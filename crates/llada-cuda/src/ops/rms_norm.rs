//! See `/kernels/rms_norm.cu`.

use llada_tensor::Result;
use llada_tensor::backend::{RmsNormArgs, RmsNormBackwardArgs};

use crate::context::Context;
use crate::ops::missing;

/// See [`llada_tensor::backend::Backend::rms_norm`].
pub(crate) fn rms_norm(cx: &Context, _args: RmsNormArgs<'_>) -> Result<()> {
    missing(cx, "rms_norm")
}

/// See [`llada_tensor::backend::Backend::rms_norm_backward`].
pub(crate) fn rms_norm_backward(cx: &Context, _args: RmsNormBackwardArgs<'_>) -> Result<()> {
    missing(cx, "rms_norm_backward")
}
