//! AdamW and the global norm.

use super::context::Context;
use super::simd::{Kernel, Simd};
use super::workers::Shared;
use crate::backend::AdamWArgs;
use crate::{Result, Tensor};

const CHUNK: usize = 32_768;

/// The factors of one update.
#[derive(Clone, Copy)]
struct Factors {
    beta1: f32,
    beta2: f32,
    gradient_scale: f32,
    /// `1 - learning_rate * weight_decay`.
    keep: f32,
    /// `learning_rate / (1 - beta1^step)`.
    rate: f32,
    /// `1 / sqrt(1 - beta2^step)`.
    second_correction: f32,
    eps: f32,
}

struct Update<'a> {
    factors: Factors,
    parameter: &'a mut [f32],
    gradient: &'a [f32],
    first_moment: &'a mut [f32],
    second_moment: &'a mut [f32],
}

impl Kernel for Update<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let f = self.factors;
        let (beta1, rest1) = (s.splat(f.beta1), s.splat(1.0 - f.beta1));
        let (beta2, rest2) = (s.splat(f.beta2), s.splat(1.0 - f.beta2));
        let (scale, keep, rate) = (s.splat(f.gradient_scale), s.splat(f.keep), s.splat(f.rate));
        let (correction, eps) = (s.splat(f.second_correction), s.splat(f.eps));
        for at in (0..self.parameter.len()).step_by(S::LANES) {
            let g = s.mul(scale, s.load(&self.gradient[at..], 0.0));
            let m = s.fma(
                rest1,
                g,
                s.mul(beta1, s.load(&self.first_moment[at..], 0.0)),
            );
            let square = s.mul(rest2, s.mul(g, g));
            let v = s.fma(beta2, s.load(&self.second_moment[at..], 0.0), square);
            s.store(&mut self.first_moment[at..], m);
            s.store(&mut self.second_moment[at..], v);
            let p = s.mul(keep, s.load(&self.parameter[at..], 0.0));
            let step = s.div(m, s.fma(s.sqrt(v), correction, eps));
            s.store(&mut self.parameter[at..], s.sub(p, s.mul(rate, step)));
        }
    }
}

/// See [`crate::backend::Backend::adamw`].
pub(crate) fn adamw(cx: Context<'_>, args: AdamWArgs<'_>) -> Result<()> {
    #[expect(clippy::cast_precision_loss, reason = "the power is 0 long before")]
    let correction = |beta: f32| 1.0 - f64::from(beta).powf(args.step as f64);
    #[expect(clippy::cast_possible_truncation, reason = "factors of an f32 update")]
    let factors = Factors {
        beta1: args.beta1,
        beta2: args.beta2,
        gradient_scale: args.gradient_scale,
        keep: (1.0 - f64::from(args.learning_rate) * f64::from(args.weight_decay)) as f32,
        rate: (f64::from(args.learning_rate) / correction(args.beta1)) as f32,
        second_correction: (1.0 / correction(args.beta2).sqrt()) as f32,
        eps: args.eps,
    };
    let (parameter, gradient) = (args.parameter.f32s_mut()?, args.gradient.f32s()?);
    let first = Shared::new(args.first_moment.f32s_mut()?);
    let second = Shared::new(args.second_moment.f32s_mut()?);
    cx.workers.for_each_chunk(parameter, CHUNK, |i, parameter| {
        let (at, len) = (i * CHUNK, parameter.len());
        // SAFETY: every task has its own chunk.
        #[expect(unsafe_code, reason = "three outputs are split alike")]
        let (first_moment, second_moment) =
            unsafe { (first.range(at, len), second.range(at, len)) };
        let gradient = &gradient[at..at + len];
        cx.level.run(Update {
            factors,
            parameter,
            gradient,
            first_moment,
            second_moment,
        });
    });
    Ok(())
}

struct SumOfSquares<'a>(&'a [f32]);

impl Kernel for SumOfSquares<'_> {
    type Output = f64;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        const RUN: usize = 1024;
        let mut total = 0.0;
        for run in self.0.chunks(RUN) {
            let mut sum = s.splat(0.0);
            for at in (0..run.len()).step_by(S::LANES) {
                let x = s.load(&run[at..], 0.0);
                sum = s.fma(x, x, sum);
            }
            total += f64::from(s.sum(sum));
        }
        total
    }
}

/// See [`crate::backend::Backend::sums_of_squares`]. Runs of 1,024 elements are summed in `f32`,
/// the runs in `f64` in a fixed order.
pub(crate) fn sums_of_squares(cx: Context<'_>, tensors: &[&Tensor]) -> Result<Vec<f64>> {
    tensors.iter().map(|x| sum_of_squares(cx, x)).collect()
}

fn sum_of_squares(cx: Context<'_>, x: &Tensor) -> Result<f64> {
    let x = x.f32s()?;
    let mut partials = vec![0.0; x.len().div_ceil(CHUNK)];
    cx.workers.for_each_chunk(&mut partials, 1, |i, partial| {
        let end = x.len().min((i + 1) * CHUNK);
        partial[0] = cx.level.run(SumOfSquares(&x[i * CHUNK..end]));
    });
    Ok(partials.iter().sum())
}
