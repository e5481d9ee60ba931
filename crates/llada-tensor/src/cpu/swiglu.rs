//! SwiGLU activation.

use super::context::Context;
use super::simd::{Kernel, Simd};
use super::workers::Shared;
use crate::Result;
use crate::backend::{SwigluArgs, SwigluBackwardArgs};

const CHUNK: usize = 16_384;

pub(super) struct Forward<'a> {
    pub(super) gate: &'a [f32],
    pub(super) up: &'a [f32],
    pub(super) y: &'a mut [f32],
}

#[inline(always)]
fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let e = s.exp(s.sub(s.splat(0.0), x));
    s.div(s.splat(1.0), s.add(s.splat(1.0), e))
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for at in (0..self.y.len()).step_by(S::LANES) {
            let gate = s.load(&self.gate[at..], 0.0);
            let silu = s.mul(gate, sigmoid(s, gate));
            s.store(&mut self.y[at..], s.mul(silu, s.load(&self.up[at..], 0.0)));
        }
    }
}

/// See [`crate::backend::Backend::swiglu`].
pub(crate) fn swiglu(cx: Context<'_>, args: SwigluArgs<'_>) -> Result<()> {
    let (gate, up, y) = (args.gate.f32s()?, args.up.f32s()?, args.y.f32s_mut()?);
    cx.workers.for_each_chunk(y, CHUNK, |i, y| {
        let (at, len) = (i * CHUNK, y.len());
        cx.level.run(Forward {
            gate: &gate[at..at + len],
            up: &up[at..at + len],
            y,
        });
    });
    Ok(())
}

/// With `s = sigmoid(gate)`: `dup = dy gate s`, `dgate = dy up s (1 + gate (1 - s))`.
pub(super) struct Backward<'a> {
    pub(super) gate: &'a [f32],
    pub(super) up: &'a [f32],
    pub(super) dy: &'a [f32],
    pub(super) dgate: &'a mut [f32],
    pub(super) dup: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let one = s.splat(1.0);
        for at in (0..self.dup.len()).step_by(S::LANES) {
            let gate = s.load(&self.gate[at..], 0.0);
            let (up, dy) = (s.load(&self.up[at..], 0.0), s.load(&self.dy[at..], 0.0));
            let sig = sigmoid(s, gate);
            s.store(&mut self.dup[at..], s.mul(dy, s.mul(gate, sig)));
            let slope = s.mul(sig, s.fma(gate, s.sub(one, sig), one));
            s.store(&mut self.dgate[at..], s.mul(s.mul(dy, up), slope));
        }
    }
}

/// See [`crate::backend::Backend::swiglu_backward`].
pub(crate) fn swiglu_backward(cx: Context<'_>, args: SwigluBackwardArgs<'_>) -> Result<()> {
    let (gate, up, dy) = (args.gate.f32s()?, args.up.f32s()?, args.dy.f32s()?);
    let (dgate, dup) = (Shared::new(args.dgate.f32s_mut()?), args.dup.f32s_mut()?);
    cx.workers.for_each_chunk(dup, CHUNK, |i, dup| {
        let (at, len) = (i * CHUNK, dup.len());
        // SAFETY: every task has its own chunk.
        #[expect(unsafe_code, reason = "a second output is split like the first")]
        let dgate = unsafe { dgate.range(at, len) };
        let (gate, up, dy) = (&gate[at..at + len], &up[at..at + len], &dy[at..at + len]);
        cx.level.run(Backward {
            gate,
            up,
            dy,
            dgate,
            dup,
        });
    });
    Ok(())
}
