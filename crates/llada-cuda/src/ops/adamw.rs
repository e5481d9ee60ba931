//! See `/kernels/adamw.cu` and `/kernels/global_norm.cu`.

use llada_kernels::args::{LladaAdamWArgs, LladaGlobalNormArgs, LladaGlobalNormTotalArgs};
use llada_tensor::backend::{AdamWArgs, DeviceMemory as _};
use llada_tensor::{Result, Tensor};

use crate::context::Context;
use crate::launch::adamw as plan;
use crate::launch::elementwise::count;

/// See [`llada_tensor::backend::Backend::adamw`].
pub(crate) fn adamw(cx: &Context, args: AdamWArgs<'_>) -> Result<()> {
    let (op, n) = ("adamw", args.gradient.numel());
    #[expect(clippy::cast_precision_loss, reason = "the power is 0 long before")]
    let correction = |beta: f32| 1.0 - f64::from(beta).powf(args.step as f64);
    #[expect(clippy::cast_possible_truncation, reason = "factors of an f32 update")]
    let kernel_args = LladaAdamWArgs {
        parameter: cx.f32s_mut(op, args.parameter)?,
        gradient: cx.f32s(op, args.gradient)?,
        first_moment: cx.f32s_mut(op, args.first_moment)?,
        second_moment: cx.f32s_mut(op, args.second_moment)?,
        n: count(op, n)?,
        beta1: args.beta1,
        beta2: args.beta2,
        gradient_scale: args.gradient_scale,
        keep: (1.0 - f64::from(args.learning_rate) * f64::from(args.weight_decay)) as f32,
        rate: (f64::from(args.learning_rate) / correction(args.beta1)) as f32,
        second_correction: (1.0 / correction(args.beta2).sqrt()) as f32,
        eps: args.eps,
        padding: 0.0,
    };
    cx.launch(op, "llada_adamw_fwd_f32", plan::adamw(n)?, &kernel_args)
}

/// See [`llada_tensor::backend::Backend::sums_of_squares`]: the host waits once for all of them.
pub(crate) fn sums_of_squares(cx: &Context, tensors: &[&Tensor]) -> Result<Vec<f64>> {
    let (op, image) = ("sum_of_squares", "global_norm");
    let mut sums = vec![0.0; tensors.len()];
    // Most have fewer partial sums: the others are zeros, which change nothing.
    let per_tensor = plan::MAX_PARTIALS * size_of::<f64>();
    let mut partials = cx.scratch(tensors.len() * per_tensor)?;
    partials.clear(0, tensors.len() * per_tensor)?;
    for (at, x) in tensors.iter().enumerate() {
        let n = x.numel();
        let args = LladaGlobalNormArgs {
            x: cx.f32s(op, x)?,
            partials: partials.pointer() + (at * per_tensor) as u64,
            n: count(op, n)?,
        };
        let plan = plan::sum_of_squares(n)?;
        cx.launch(image, "llada_global_norm_fwd_f32", plan, &args)?;
    }
    let totals = cx.scratch(size_of_val(&sums[..]))?;
    let args = LladaGlobalNormTotalArgs {
        partials: partials.pointer(),
        totals: totals.pointer(),
        n: plan::MAX_PARTIALS as i64,
    };
    let entry = "llada_global_norm_total_fwd_f64";
    cx.launch(image, entry, plan::totals(tensors.len())?, &args)?;
    cx.download(&totals, &mut sums)?;
    Ok(sums)
}
