//! See `/kernels/embedding.cu`.

use llada_tensor::{Result, Tensor};

use crate::context::Context;
use crate::ops::missing;

/// See [`llada_tensor::backend::Backend::embedding`].
pub(crate) fn embedding(
    cx: &Context,
    _table: &Tensor,
    _ids: &[u32],
    _y: &mut Tensor,
) -> Result<()> {
    missing(cx, "embedding")
}

/// See [`llada_tensor::backend::Backend::write_rows`].
pub(crate) fn write_rows(
    cx: &Context,
    _table: &mut Tensor,
    _first: usize,
    _x: &Tensor,
) -> Result<()> {
    missing(cx, "write_rows")
}

/// See [`llada_tensor::backend::Backend::embedding_backward`].
pub(crate) fn embedding_backward(
    cx: &Context,
    _dy: &Tensor,
    _ids: &[u32],
    _dtable: &mut Tensor,
) -> Result<()> {
    missing(cx, "embedding_backward")
}
