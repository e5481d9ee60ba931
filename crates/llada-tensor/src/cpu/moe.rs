//! Mixture of experts: the choice, and the experts.

mod experts;
mod groups;
mod route;

use std::sync::Arc;

use super::context::Context;
use super::{matmul, quantized};
use crate::backend::{FillCodes, FillRows, PackedWeight};
use crate::{Precision, Result};

pub(crate) use experts::{expert_gradient, experts, experts_backward};
pub(crate) use route::{route, route_backward};

/// See [`crate::backend::Backend::pack_experts`].
pub(crate) fn pack_experts(
    cx: Context<'_>,
    shape: [usize; 3],
    precision: Precision,
    fill: FillRows<'_>,
) -> Result<Arc<dyn PackedWeight>> {
    matmul::pack_stack(cx, shape, precision, fill)
}

/// See [`crate::backend::Backend::pack_expert_codes`].
pub(crate) fn pack_expert_codes(
    cx: Context<'_>,
    shape: [usize; 3],
    precision: Precision,
    fill: FillCodes<'_>,
) -> Result<Arc<dyn PackedWeight>> {
    quantized::pack(cx, shape, precision, quantized::Source::Codes(fill))
}
