//! See `/kernels/adamw.cu` and `/kernels/global_norm.cu`.

use llada_kernels::args::{LladaAdamWArgs, LladaGlobalNormArgs, LladaGlobalNormTotalArgs};
use llada_tensor::backend::{AdamWArgs, DeviceMemory as _};
use llada_tensor::{Result, Tensor};

use crate::context::Context;
use crate::launch::adamw as plan;
use crate::launch::elementwise::count;

/// See [`llada_tensor::backend::Backend::adamw`].
pub(crate) fn adamw(cx: &Context, args: AdamWArgs<'_>) -> Result<()> {
    let AdamWArgs {
        parameter,
        gradient,
        first_moment,
        second_moment,
        ..
    } = args;
    let (op, n) = ("adamw", gradient.numel());
    #[expect(clippy::cast_precision_loss, reason = "the power is 0 long before")]
    let correction = |beta: f32| 1.0 - f64::from(beta).powf(args.step as f64);
    #[expect(clippy::cast_possible_truncation, reason = "factors of an f32 update")]
    let kernel_args = LladaAdamWArgs {
        parameter: cx.f32s_mut(op, parameter)?,
        gradient: cx.f32s(op, gradient)?,
        first_moment: cx.f32s_mut(op, first_moment)?,
        second_moment: cx.f32s_mut(op, second_moment)?,
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
    cx.launch(
        "adamw",
        "llada_adamw_fwd_f32",
        plan::adamw(n)?,
        &kernel_args,
    )
}

/// See [`llada_tensor::backend::Backend::sums_of_squares`]: the host waits once for all of them.
pub(crate) fn sums_of_squares(cx: &Context, tensors: &[&Tensor]) -> Result<Vec<f64>> {
    let mut sums = vec![0.0; tensors.len()];
    if tensors.is_empty() {
        return Ok(sums);
    }
    let bytes = size_of_val(&sums[..]);
    let mut totals = cx.scratch(bytes)?;
    totals.clear(0, bytes)?;
    for (at, x) in tensors.iter().enumerate() {
        let total = totals.pointer() + (at * size_of::<f64>()) as u64;
        sum_of_squares(cx, x, total)?;
    }
    cx.download(&totals, &mut sums)?;
    Ok(sums)
}

/// Puts the sum of a tensor that has elements at the address `total`.
fn sum_of_squares(cx: &Context, x: &Tensor, total: u64) -> Result<()> {
    let (op, image, n) = ("sum_of_squares", "global_norm", x.numel());
    let x = cx.f32s(op, x)?;
    if n == 0 {
        return Ok(());
    }
    let plan = plan::sum_of_squares(n)?;
    let n_partials = plan.grid[0];
    let partials = cx.scratch(n_partials as usize * size_of::<f64>())?;
    let args = LladaGlobalNormArgs {
        x,
        partials: partials.pointer(),
        n: count(op, n)?,
    };
    cx.launch(image, "llada_global_norm_fwd_f32", plan, &args)?;
    let args = LladaGlobalNormTotalArgs {
        partials: partials.pointer(),
        total,
        n: n_partials.into(),
    };
    let entry = "llada_global_norm_total_fwd_f64";
    cx.launch(image, entry, plan::total()?, &args)
}
