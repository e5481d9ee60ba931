//! SwiGLU activation.

use super::context::Context;
use super::simd::{Element, Kernel, Simd};
use super::workers::Shared;
use crate::backend::{SwigluArgs, SwigluBackwardArgs};
use crate::{DType, Error, Result, Tensor};

const CHUNK: usize = 16_384;

pub(super) struct Forward<'a, X, Y> {
    pub(super) gate: &'a [X],
    pub(super) up: &'a [X],
    pub(super) y: &'a mut [Y],
}

#[inline(always)]
fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let e = s.exp(s.sub(s.splat(0.0), x));
    s.div(s.splat(1.0), s.add(s.splat(1.0), e))
}

impl<X: Element, Y: Element> Kernel for Forward<'_, X, Y> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for at in (0..self.y.len()).step_by(S::LANES) {
            let gate = X::load(s, &self.gate[at..]);
            let silu = s.mul(gate, sigmoid(s, gate));
            Y::store(
                s,
                &mut self.y[at..],
                s.mul(silu, X::load(s, &self.up[at..])),
            );
        }
    }
}

/// See [`crate::backend::Backend::swiglu`].
pub(crate) fn swiglu(cx: Context<'_>, args: SwigluArgs<'_>) -> Result<()> {
    let SwigluArgs { gate, up, y } = args;
    match (gate.dtype(), y.dtype()) {
        (DType::F32, DType::F32) => forward(cx, [gate.f32s()?, up.f32s()?], y.f32s_mut()?),
        (DType::F32, DType::Bf16) => forward(cx, [gate.f32s()?, up.f32s()?], y.bf16s_mut()?),
        (DType::Bf16, DType::F32) => forward(cx, [gate.bf16s()?, up.bf16s()?], y.f32s_mut()?),
        (DType::Bf16, DType::Bf16) => {
            expect_gaps_of(gate, [up, y])?;
            forward(cx, [gate.bf16_rows()?, up.bf16_rows()?], y.bf16_rows_mut()?);
        }
    }
    Ok(())
}

fn forward<X: Element, Y: Element>(cx: Context<'_>, [gate, up]: [&[X]; 2], y: &mut [Y]) {
    cx.workers.for_each_chunk(y, CHUNK, |i, y| {
        let (at, len) = (i * CHUNK, y.len());
        cx.level.run(Forward {
            gate: &gate[at..at + len],
            up: &up[at..at + len],
            y,
        });
    });
}

/// An error unless all matrices have the gaps between rows that `x` has: gaps are computed like
/// elements, and never read.
fn expect_gaps_of<const N: usize>(x: &Tensor, others: [&Tensor; N]) -> Result<()> {
    match others.iter().find(|other| other.strides() != x.strides()) {
        None => Ok(()),
        Some(other) => Err(Error::NotContiguous {
            op: "swiglu",
            shape: other.shape().to_vec(),
        }),
    }
}

/// With `s = sigmoid(gate)`: `dup = dy gate s`, `dgate = dy up s (1 + gate (1 - s))`.
pub(super) struct Backward<'a, X> {
    pub(super) gate: &'a [X],
    pub(super) up: &'a [X],
    pub(super) dy: &'a [X],
    pub(super) dgate: &'a mut [X],
    pub(super) dup: &'a mut [X],
}

impl<X: Element> Kernel for Backward<'_, X> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let one = s.splat(1.0);
        for at in (0..self.dup.len()).step_by(S::LANES) {
            let gate = X::load(s, &self.gate[at..]);
            let (up, dy) = (X::load(s, &self.up[at..]), X::load(s, &self.dy[at..]));
            let sig = sigmoid(s, gate);
            X::store(s, &mut self.dup[at..], s.mul(dy, s.mul(gate, sig)));
            let slope = s.mul(sig, s.fma(gate, s.sub(one, sig), one));
            X::store(s, &mut self.dgate[at..], s.mul(s.mul(dy, up), slope));
        }
    }
}

/// See [`crate::backend::Backend::swiglu_backward`].
pub(crate) fn swiglu_backward(cx: Context<'_>, args: SwigluBackwardArgs<'_>) -> Result<()> {
    let SwigluBackwardArgs {
        gate,
        up,
        dy,
        dgate,
        dup,
    } = args;
    if gate.dtype() == DType::F32 {
        let inputs = [gate.f32s()?, up.f32s()?, dy.f32s()?];
        backward(cx, inputs, [dgate.f32s_mut()?, dup.f32s_mut()?]);
        return Ok(());
    }
    expect_gaps_of(gate, [up, dy, dgate, dup])?;
    let inputs = [gate.bf16_rows()?, up.bf16_rows()?, dy.bf16_rows()?];
    backward(cx, inputs, [dgate.bf16_rows_mut()?, dup.bf16_rows_mut()?]);
    Ok(())
}

fn backward<X: Element>(cx: Context<'_>, [gate, up, dy]: [&[X]; 3], [dgate, dup]: [&mut [X]; 2]) {
    let dgate = Shared::new(dgate);
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
}
