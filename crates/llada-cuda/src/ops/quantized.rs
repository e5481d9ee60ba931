//! See `/kernels/quantized.cu`.

use std::sync::Arc;

use llada_tensor::backend::{FillCodes, PackedWeight, RowCodes};
use llada_tensor::{Precision, Result};

use crate::context::Context;
use crate::ops::missing;

/// See [`llada_tensor::backend::Backend::pack_codes`].
pub(crate) fn pack_codes(
    cx: &Context,
    _shape: [usize; 2],
    _precision: Precision,
    _fill: FillCodes<'_>,
) -> Result<Arc<dyn PackedWeight>> {
    missing(cx, "pack_codes")
}

/// See [`llada_tensor::backend::Backend::quantize_rows`].
pub(crate) fn quantize_rows(
    cx: &Context,
    _precision: Precision,
    _values: &[f32],
    _k: usize,
    _out: RowCodes<'_>,
) -> Result<()> {
    missing(cx, "quantize_rows")
}
