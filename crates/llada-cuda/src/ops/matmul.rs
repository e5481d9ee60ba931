//! See `/kernels/matmul.cu`.

use std::sync::Arc;

use llada_tensor::backend::{FillRows, MatmulArgs, PackedWeight};
use llada_tensor::{Precision, Result, Tensor};

use crate::context::Context;
use crate::ops::missing;

/// See [`llada_tensor::backend::Backend::matmul`].
pub(crate) fn matmul(cx: &Context, _args: MatmulArgs<'_>) -> Result<()> {
    missing(cx, "matmul")
}

/// See [`llada_tensor::backend::Backend::matmul_each`].
pub(crate) fn matmul_each(
    cx: &Context,
    _a: &Tensor,
    _weights: &[&Arc<dyn PackedWeight>],
    _outputs: &mut [Tensor],
    _precision: Precision,
) -> Result<()> {
    missing(cx, "matmul_each")
}

/// See [`llada_tensor::backend::Backend::pack`].
pub(crate) fn pack(
    cx: &Context,
    _shape: [usize; 2],
    _precision: Precision,
    _fill: FillRows<'_>,
) -> Result<Arc<dyn PackedWeight>> {
    missing(cx, "pack")
}

/// See [`llada_tensor::backend::Backend::gemm_peak`].
pub(crate) fn gemm_peak(cx: &Context, _precision: Precision, _rounds: usize) -> Result<u64> {
    missing(cx, "gemm_peak")
}
