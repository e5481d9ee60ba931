//! See `/kernels/rope.cu`.

use llada_tensor::Result;
use llada_tensor::backend::RopeArgs;

use crate::context::Context;
use crate::ops::missing;

/// See [`llada_tensor::backend::Backend::rope`].
pub(crate) fn rope(cx: &Context, _args: RopeArgs<'_>) -> Result<()> {
    missing(cx, "rope")
}
