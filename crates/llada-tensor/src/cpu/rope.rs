//! Rotary position embedding.

use super::context::Context;
use super::simd::{Element, Kernel, Simd};
use super::workers::rows_per_task;
use crate::backend::RopeArgs;
use crate::ops::rope::RopeTable;
use crate::{DType, Result, Tensor};

struct Rotate<'a, Y> {
    x: &'a [f32],
    width: usize,
    cos: &'a [f32],
    sin: &'a [f32],
    half: usize,
    head_dim: usize,
    positions: &'a [u32],
    sign: f32,
    y: &'a mut [Y],
}

impl<Y: Element> Kernel for Rotate<'_, Y> {
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
                for at in (0..rest.len()).step_by(S::LANES) {
                    Y::store(s, &mut passed[at..], s.load(&rest[at..], 0.0));
                }
                let ((xa, xb), (ya, yb)) = (x.split_at(half), y.split_at_mut(half));
                for at in (0..half).step_by(S::LANES) {
                    let (a, b) = (s.load(&xa[at..], 0.0), s.load(&xb[at..], 0.0));
                    let c = s.load(&cos[at..], 0.0);
                    let n = s.mul(sign, s.load(&sin[at..], 0.0));
                    Y::store(s, &mut ya[at..], s.sub(s.mul(a, c), s.mul(b, n)));
                    Y::store(s, &mut yb[at..], s.add(s.mul(b, c), s.mul(a, n)));
                }
            }
        }
    }
}

/// See [`crate::backend::Backend::rope`].
pub(crate) fn rope(cx: Context<'_>, args: RopeArgs<'_>) -> Result<()> {
    let RopeArgs {
        x,
        table,
        positions,
        inverse,
        y,
    } = args;
    match y.dtype() {
        DType::F32 => rotate(cx, x, table, (positions, inverse), y.f32s_mut()?),
        DType::Bf16 => rotate(cx, x, table, (positions, inverse), y.bf16s_mut()?),
    }
}

fn rotate<Y: Element>(
    cx: Context<'_>,
    x: &Tensor,
    table: &RopeTable,
    (positions, inverse): (&[u32], bool),
    y: &mut [Y],
) -> Result<()> {
    let (width, half) = (x.shape()[1], table.cos.shape()[1]);
    let (x, cos, sin) = (x.f32s()?, table.cos.f32s()?, table.sin.f32s()?);
    if width == 0 {
        return Ok(());
    }
    let rows = rows_per_task(width);
    let sign = if inverse { -1.0 } else { 1.0 };
    cx.workers.for_each_chunk(y, rows * width, |i, y| {
        let x = &x[i * rows * width..][..y.len()];
        let positions = &positions[i * rows..];
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
