//! See `/kernels/attention.cu`.

use llada_tensor::Result;
use llada_tensor::backend::{AttentionArgs, AttentionBackwardArgs};

use crate::context::Context;
use crate::ops::missing;

/// See [`llada_tensor::backend::Backend::attention`].
pub(crate) fn attention(cx: &Context, _args: AttentionArgs<'_>) -> Result<()> {
    missing(cx, "attention")
}

/// See [`llada_tensor::backend::Backend::attention_backward`].
pub(crate) fn attention_backward(cx: &Context, _args: AttentionBackwardArgs<'_>) -> Result<()> {
    missing(cx, "attention_backward")
}
