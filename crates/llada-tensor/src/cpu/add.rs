//! Addition and column sums.

use super::context::Context;
use super::simd::{Kernel, Simd};
use super::workers::rows_per_task;
use crate::{Result, Tensor};

const CHUNK: usize = 32_768;

struct Add<'a> {
    x: &'a [f32],
    z: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Add<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for at in (0..self.y.len()).step_by(S::LANES) {
            let sum = s.add(s.load(&self.x[at..], 0.0), s.load(&self.z[at..], 0.0));
            s.store(&mut self.y[at..], sum);
        }
    }
}

struct AddInto<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for AddInto<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for at in (0..self.y.len()).step_by(S::LANES) {
            let sum = s.add(s.load(&self.y[at..], 0.0), s.load(&self.x[at..], 0.0));
            s.store(&mut self.y[at..], sum);
        }
    }
}

/// See [`crate::backend::Backend::add`].
pub(crate) fn add(cx: Context<'_>, x: &Tensor, z: &Tensor, y: &mut Tensor) -> Result<()> {
    let (x, z, y) = (x.f32s()?, z.f32s()?, y.f32s_mut()?);
    if x.len() == z.len() {
        cx.workers.for_each_chunk(y, CHUNK, |i, y| {
            let at = i * CHUNK;
            let (x, z) = (&x[at..at + y.len()], &z[at..at + y.len()]);
            cx.level.run(Add { x, z, y });
        });
        return Ok(());
    }
    let d = z.len();
    let rows = rows_per_task(d);
    cx.workers.for_each_chunk(y, rows * d, |i, y| {
        let at = i * rows * d;
        let x = &x[at..at + y.len()];
        for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
            cx.level.run(Add { x, z, y });
        }
    });
    Ok(())
}

/// See [`crate::backend::Backend::add_into`].
pub(crate) fn add_into(cx: Context<'_>, x: &Tensor, y: &mut Tensor) -> Result<()> {
    let (x, y) = (x.f32s()?, y.f32s_mut()?);
    cx.workers.for_each_chunk(y, CHUNK, |i, y| {
        let x = &x[i * CHUNK..i * CHUNK + y.len()];
        cx.level.run(AddInto { x, y });
    });
    Ok(())
}

struct Axpby<'a> {
    a: f32,
    x: &'a [f32],
    b: f32,
    y: &'a mut [f32],
}

impl Kernel for Axpby<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (a, b) = (s.splat(self.a), s.splat(self.b));
        let read = self.b != 0.0;
        for at in (0..self.y.len()).step_by(S::LANES) {
            let ax = s.mul(a, s.load(&self.x[at..], 0.0));
            let sum = match read {
                true => s.fma(b, s.load(&self.y[at..], 0.0), ax),
                false => ax,
            };
            s.store(&mut self.y[at..], sum);
        }
    }
}

/// See [`crate::backend::Backend::axpby`].
pub(crate) fn axpby(cx: Context<'_>, a: f32, x: &Tensor, b: f32, y: &mut Tensor) -> Result<()> {
    let (x, y) = (x.f32s()?, y.f32s_mut()?);
    cx.workers.for_each_chunk(y, CHUNK, |i, y| {
        let x = &x[i * CHUNK..i * CHUNK + y.len()];
        cx.level.run(Axpby { a, x, b, y });
    });
    Ok(())
}

/// See [`crate::backend::Backend::column_sum`]. Each task owns some columns and goes down all
/// rows in order.
pub(crate) fn column_sum(cx: Context<'_>, x: &Tensor, y: &mut Tensor) -> Result<()> {
    const COLUMNS: usize = 128;
    let (x, y) = (x.f32s()?, y.f32s_mut()?);
    let d = y.len();
    cx.workers.for_each_chunk(y, COLUMNS, |i, y| {
        for row in x.chunks_exact(d) {
            let x = &row[i * COLUMNS..i * COLUMNS + y.len()];
            cx.level.run(AddInto { x, y });
        }
    });
    Ok(())
}
