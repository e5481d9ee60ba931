//! Root-mean-square normalization.

use super::context::Context;
use super::simd::{Element, Kernel, Simd};
use super::workers::{Shared, rows_per_task};
use crate::backend::{RmsNormArgs, RmsNormBackwardArgs};
use crate::{DType, Result, Tensor};

struct Forward<'a, Y> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    y: &'a mut [Y],
    rstd: &'a mut [f32],
}

impl<Y: Element> Kernel for Forward<'_, Y> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let d = self.weight.len();
        let rows = self
            .x
            .chunks_exact(d)
            .zip(self.y.chunks_exact_mut(d))
            .zip(self.rstd);
        for ((x, y), rstd) in rows {
            let mut squares = s.splat(0.0);
            for at in (0..d).step_by(S::LANES) {
                let v = s.load(&x[at..], 0.0);
                squares = s.fma(v, v, squares);
            }
            #[expect(clippy::cast_precision_loss, reason = "a model width fits")]
            let mean = s.sum(squares) / d as f32;
            *rstd = 1.0 / (mean + self.eps).sqrt();
            let scale = s.splat(*rstd);
            for at in (0..d).step_by(S::LANES) {
                let v = s.mul(s.load(&x[at..], 0.0), scale);
                let v = s.mul(v, s.load(&self.weight[at..], 0.0));
                Y::store(s, &mut y[at..], v);
            }
        }
    }
}

/// See [`crate::backend::Backend::rms_norm`].
pub(crate) fn rms_norm(cx: Context<'_>, args: RmsNormArgs<'_>) -> Result<()> {
    let RmsNormArgs {
        x,
        weight,
        eps,
        y,
        rstd,
    } = args;
    let (inputs, rstd) = ((x.f32s()?, weight.f32s()?, eps), rstd.f32s_mut()?);
    match y.dtype() {
        DType::F32 => forward(cx, inputs, y.f32s_mut()?, rstd),
        DType::Bf16 => forward(cx, inputs, y.bf16s_mut()?, rstd),
    }
    Ok(())
}

fn forward<Y: Element>(
    cx: Context<'_>,
    (x, weight, eps): (&[f32], &[f32], f32),
    y: &mut [Y],
    rstd: &mut [f32],
) {
    let d = weight.len();
    if d == 0 {
        return;
    }
    let (rows, rstd) = (rows_per_task(d), Shared::new(rstd));
    cx.workers.for_each_chunk(y, rows * d, |i, y| {
        let n = y.len() / d;
        // SAFETY: every task has its own rows.
        #[expect(unsafe_code, reason = "a second output is split like the first")]
        let rstd = unsafe { rstd.range(i * rows, n) };
        let x = &x[i * rows * d..][..n * d];
        cx.level.run(Forward {
            x,
            weight,
            eps,
            y,
            rstd,
        });
    });
}

/// With `n = x rstd`: `dx = rstd (dy w - n mean(dy w n))`, `dweight = sum_r dy n`.
struct Backward<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    rstd: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
    dweight: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let d = self.weight.len();
        let inputs = self
            .x
            .chunks_exact(d)
            .zip(self.dy.chunks_exact(d))
            .zip(self.rstd);
        for (((x, dy), &rstd), dx) in inputs.zip(self.dx.chunks_exact_mut(d)) {
            let mut dot = s.splat(0.0);
            let scale = s.splat(rstd);
            for at in (0..d).step_by(S::LANES) {
                let n = s.mul(s.load(&x[at..], 0.0), scale);
                let g = s.load(&dy[at..], 0.0);
                dot = s.fma(s.mul(g, s.load(&self.weight[at..], 0.0)), n, dot);
                let sum = s.fma(g, n, s.load(&self.dweight[at..], 0.0));
                s.store(&mut self.dweight[at..], sum);
            }
            #[expect(clippy::cast_precision_loss, reason = "a model width fits")]
            let mean = s.splat(s.sum(dot) / d as f32);
            for at in (0..d).step_by(S::LANES) {
                let n = s.mul(s.load(&x[at..], 0.0), scale);
                let g = s.mul(s.load(&dy[at..], 0.0), s.load(&self.weight[at..], 0.0));
                s.store(&mut dx[at..], s.mul(scale, s.sub(g, s.mul(n, mean))));
            }
        }
    }
}

/// Rows of one partial sum of the weight's gradient: fixed, so that the sum does not depend on
/// the number of threads.
const PARTIAL_ROWS: usize = 64;

/// See [`crate::backend::Backend::rms_norm_backward`].
pub(crate) fn rms_norm_backward(cx: Context<'_>, args: RmsNormBackwardArgs<'_>) -> Result<()> {
    let (x, weight) = (args.x.f32s()?, args.weight.f32s()?);
    let (rstd, dy) = (args.rstd.f32s()?, args.dy.f32s()?);
    let d = weight.len();
    if d == 0 || x.is_empty() {
        return Ok(());
    }
    let n_partials = rstd.len().div_ceil(PARTIAL_ROWS);
    let mut partials = Tensor::zeros(args.dweight.device(), DType::F32, &[n_partials, d])?;
    let (dx, shared) = (args.dx.f32s_mut()?, Shared::new(partials.f32s_mut()?));
    cx.workers.for_each_chunk(dx, PARTIAL_ROWS * d, |i, dx| {
        let (at, len) = (i * PARTIAL_ROWS * d, dx.len());
        // SAFETY: every task has its own partial sum.
        #[expect(unsafe_code, reason = "a second output is split like the first")]
        let dweight = unsafe { shared.range(i * d, d) };
        let rstd = &rstd[i * PARTIAL_ROWS..][..len / d];
        let (x, dy) = (&x[at..at + len], &dy[at..at + len]);
        cx.level.run(Backward {
            x,
            weight,
            rstd,
            dy,
            dx,
            dweight,
        });
    });
    super::add::column_sum(cx, &partials, args.dweight)
}
