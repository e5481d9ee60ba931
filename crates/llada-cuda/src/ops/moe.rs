//! See `/kernels/moe.cu`.

mod experts;
mod groups;

use std::sync::Arc;

use llada_kernels::args::{
    LLADA_ROUTE_CAPACITY, LLADA_ROUTE_GROUPS, LLADA_ROUTE_SOFTMAX, LladaRouteArgs,
    LladaRouteBackwardArgs, LladaRouter,
};
use llada_tensor::backend::{
    FillCodes, FillRows, PackedWeight, RouteArgs, RouteBackwardArgs, Router, RouterRule,
};
use llada_tensor::{Error, Precision, Result};

use crate::context::Context;
use crate::launch::{moe as plan, narrow};
use crate::ops::matmul;

pub(crate) use experts::{expert_gradient, experts, experts_backward};

const IMAGE: &str = "moe";

/// See [`llada_tensor::backend::Backend::pack_experts`].
pub(crate) fn pack_experts(
    cx: &Context,
    shape: [usize; 3],
    precision: Precision,
    fill: FillRows<'_>,
) -> Result<Arc<dyn PackedWeight>> {
    matmul::pack_stack(cx, shape, precision, fill)
}

/// See [`llada_tensor::backend::Backend::pack_expert_codes`].
pub(crate) fn pack_expert_codes(
    cx: &Context,
    shape: [usize; 3],
    precision: Precision,
    fill: FillCodes<'_>,
) -> Result<Arc<dyn PackedWeight>> {
    matmul::pack_code_stack(cx, shape, precision, fill)
}

/// A rule as kernels see it.
fn router(router: Router) -> Result<LladaRouter> {
    let op = "route";
    let mut args = LladaRouter {
        n_experts: narrow(op, router.n_experts)?,
        k: narrow(op, router.k)?,
        ..LladaRouter::default()
    };
    let rule = match router.rule {
        RouterRule::Softmax => LLADA_ROUTE_SOFTMAX,
        RouterRule::Groups {
            n_group,
            topk_group,
            scale,
        } => {
            args.n_group = narrow(op, n_group)?;
            args.topk_group = narrow(op, topk_group)?;
            args.scale = scale;
            LLADA_ROUTE_GROUPS
        }
        RouterRule::Capacity { capacity, scale } => {
            args.capacity = narrow(op, capacity.min(router.n_experts))?;
            args.scale = scale;
            LLADA_ROUTE_CAPACITY
        }
    };
    args.rule = rule.cast_signed();
    Ok(args)
}

/// See [`llada_tensor::backend::Backend::route`].
pub(crate) fn route(cx: &Context, args: RouteArgs<'_>) -> Result<()> {
    let op = "route";
    let [tokens, n_experts] = args.logits.matrix_shape(op)?;
    let n_runs = args.runs.len().saturating_sub(1);
    let bound = |&at: &usize| {
        let what = "a boundary of runs is 2^32 or more";
        u32::try_from(at).map_err(|_| Error::InvalidArgument { op, what })
    };
    let runs = args.runs.iter().map(bound).collect::<Result<Vec<_>>>()?;
    let (runs, allowed) = (cx.upload(&runs)?, cx.scratch(n_runs * n_experts)?);
    let bias = args.bias.map(|bias| cx.f32s(op, bias)).transpose()?;
    let kernel_args = LladaRouteArgs {
        logits: cx.f32s(op, args.logits)?,
        bias: bias.unwrap_or(0),
        runs: runs.pointer(),
        allowed: allowed.pointer(),
        ids: cx.f32s_mut(op, args.ids)?,
        weights: cx.f32s_mut(op, args.weights)?,
        tokens: narrow(op, tokens)?,
        n_runs: narrow(op, n_runs)?,
        router: router(args.router)?,
    };
    if n_runs > 0 {
        let plan = plan::route(n_runs, n_experts)?;
        cx.launch(IMAGE, "llada_route_allow_fwd_f32", plan, &kernel_args)?;
    }
    let plan = plan::route(tokens, n_experts)?;
    cx.launch(IMAGE, "llada_route_fwd_f32", plan, &kernel_args)
}

/// See [`llada_tensor::backend::Backend::route_backward`].
pub(crate) fn route_backward(cx: &Context, args: RouteBackwardArgs<'_>) -> Result<()> {
    let op = "route_backward";
    let [tokens, n_experts] = args.logits.matrix_shape(op)?;
    let kernel_args = LladaRouteBackwardArgs {
        logits: cx.f32s(op, args.logits)?,
        ids: cx.f32s(op, args.ids)?,
        dweights: cx.f32s(op, args.dweights)?,
        dlogits: cx.f32s_mut(op, args.dlogits)?,
        tokens: narrow(op, tokens)?,
        padding: 0,
        router: router(args.router)?,
    };
    let plan = plan::route(tokens, n_experts)?;
    cx.launch(IMAGE, "llada_route_bwd_f32", plan, &kernel_args)
}
