//! Rotary position embedding.

use super::context::Context;
use super::simd::{Kernel, Simd};
use super::workers::rows_per_task;
use crate::Result;
use crate::backend::RopeArgs;

struct Rotate<'a> {
    x: &'a [f32],
    width: usize,
    cos: &'a [f32],
    sin: &'a [f32],
    half: usize,
    head_dim: usize,
    positions: &'a [u32],
    sign: f32,
    y: &'a mut [f32],
}

impl Kernel for Rotate<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let half = self.half;
        let sign = s.splat(self.sign);
        let rows = self
            .x
            .chunks_exact(self.width)
            .zip(self.y.chunks_exact_mut(self.width));
        for ((x, y), &position) in rows.zip(self.positions) {
            let cos = &self.cos[position as usize * half..][..half];
            let sin = &self.sin[position as usize * half..][..half];
            let heads = x.chunks_exact(self.head_dim);
            for (x, y) in heads.zip(y.chunks_exact_mut(self.head_dim)) {
                let ((x, rest), (y, passed)) = (x.split_at(2 * half), y.split_at_mut(2 * half));
                passed.copy_from_slice(rest);
                let ((xa, xb), (ya, yb)) = (x.split_at(half), y.split_at_mut(half));
                for at in (0..half).step_by(S::LANES) {
                    let (a, b) = (s.load(&xa[at..], 0.0), s.load(&xb[at..], 0.0));
                    let c = s.load(&cos[at..], 0.0);
                    let n = s.mul(sign, s.load(&sin[at..], 0.0));
                    s.store(&mut ya[at..], s.sub(s.mul(a, c), s.mul(b, n)));
                    s.store(&mut yb[at..], s.add(s.mul(b, c), s.mul(a, n)));
                }
            }
        }
    }
}

/// See [`crate::backend::Backend::rope`].
pub(crate) fn rope(cx: Context<'_>, args: RopeArgs<'_>) -> Result<()> {
    let table = args.table;
    let (width, half) = (args.x.shape()[1], table.cos.shape()[1]);
    let (x, cos, sin) = (args.x.f32s()?, table.cos.f32s()?, table.sin.f32s()?);
    if width == 0 {
        return Ok(());
    }
    let rows = rows_per_task(width);
    let sign = if args.inverse { -1.0 } else { 1.0 };
    let y = args.y.f32s_mut()?;
    cx.workers.for_each_chunk(y, rows * width, |i, y| {
        let x = &x[i * rows * width..][..y.len()];
        let positions = &args.positions[i * rows..];
        cx.level.run(Rotate {
            x,
            width,
            cos,
            sin,
            half,
            head_dim: table.head_dim,
            positions,
            sign,
            y,
        });
    });
    Ok(())
}
