//! LM head with cross-entropy, in tiles over the vocabulary.

use super::context::Context;
use super::matmul::{PackedLeft, matmul_columns, matmul_into};
use super::simd::{Kernel, Simd};
use super::workers::Shared;
use crate::backend::{CrossEntropyArgs, CrossEntropyBackwardArgs, Rhs};
use crate::{DType, Precision, Result, Tensor};

/// Vocabulary entries per tile: whole panels at every level, and the same for every batch, so that
/// the sum of a row does not depend on the other rows.
const TILE: usize = 1024;

/// Hidden states and a head, which give logits in tiles.
pub(crate) struct Head<'a> {
    weight: Rhs<'a>,
    bias: Option<&'a Tensor>,
    hidden: &'a Tensor,
    left: PackedLeft,
}

impl<'a> Head<'a> {
    pub(crate) fn new(
        cx: Context<'_>,
        hidden: &'a Tensor,
        weight: Rhs<'a>,
        bias: Option<&'a Tensor>,
        precision: Precision,
    ) -> Result<Self> {
        Ok(Self {
            weight,
            bias,
            hidden,
            left: PackedLeft::new(cx, hidden, precision, [weight])?,
        })
    }

    /// Calls `visit(start, len, logits)` for one tile of the vocabulary after another; `logits`
    /// is `[rows, len]`.
    pub(crate) fn for_each_tile(
        &self,
        cx: Context<'_>,
        mut visit: impl FnMut(usize, usize, &mut Tensor) -> Result<()>,
    ) -> Result<()> {
        let (_, vocab_size) = self.weight.k_n().unwrap_or_default();
        for start in (0..vocab_size).step_by(TILE) {
            let len = TILE.min(vocab_size - start);
            visit(start, len, &mut self.tile(cx, start, len)?)?;
        }
        Ok(())
    }

    /// The logits of `len` vocabulary entries from `start` on, `[rows, len]`.
    pub(crate) fn tile(&self, cx: Context<'_>, start: usize, len: usize) -> Result<Tensor> {
        let shape = [self.hidden.shape()[0], len];
        let mut logits = Tensor::empty(self.hidden.device(), DType::F32, &shape)?;
        let (columns, out) = (start..start + len, logits.f32s_mut()?);
        matmul_columns(cx, &self.left, self.weight, columns, out)?;
        if let Some(bias) = self.bias {
            let bias = &bias.f32s()?[start..start + len];
            for row in logits.f32s_mut()?.chunks_exact_mut(len) {
                for (x, b) in row.iter_mut().zip(bias) {
                    *x += b;
                }
            }
        }
        Ok(logits)
    }
}

/// Takes a tile into the running maximum and sum: `sum = Σ e^(x - max)`.
struct OnlineSum<'a> {
    tile: &'a [f32],
    max: f32,
    sum: f32,
}

impl Kernel for OnlineSum<'_> {
    type Output = (f32, f32);
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> (f32, f32) {
        let mut max = s.splat(self.max);
        for at in (0..self.tile.len()).step_by(S::LANES) {
            max = s.max(max, s.load(&self.tile[at..], f32::NEG_INFINITY));
        }
        let max = s.max_lane(max);
        let (shift, mut sum) = (s.splat(max), s.splat(0.0));
        let whole = self.tile.len() / S::LANES * S::LANES;
        for at in (0..whole).step_by(S::LANES) {
            sum = s.add(sum, s.exp(s.sub(s.load(&self.tile[at..], 0.0), shift)));
        }
        let mut total = s.sum(sum);
        for x in &self.tile[whole..] {
            total += (x - max).exp();
        }
        (max, total + self.sum * (self.max - max).exp())
    }
}

/// See [`crate::backend::Backend::cross_entropy`].
pub(crate) fn cross_entropy(cx: Context<'_>, args: CrossEntropyArgs<'_>) -> Result<()> {
    let targets = args.targets;
    let mut running = vec![(f32::NEG_INFINITY, 0.0_f32, 0.0_f32); targets.len()];
    let head = Head::new(cx, args.hidden, args.head, args.bias, args.precision)?;
    head.for_each_tile(cx, |start, len, logits| {
        let logits = logits.f32s()?;
        cx.workers.for_each_chunk(&mut running, 16, |i, running| {
            for (r, running) in running.iter_mut().enumerate() {
                let row = i * 16 + r;
                let tile = &logits[row * len..(row + 1) * len];
                let (max, sum) = cx.level.run(OnlineSum {
                    tile,
                    max: running.0,
                    sum: running.1,
                });
                let target = (targets[row] as usize).checked_sub(start);
                let logit = target.and_then(|at| tile.get(at)).copied();
                *running = (max, sum, logit.unwrap_or(running.2));
            }
        });
        Ok(())
    })?;
    let (losses, lses) = (args.losses.f32s_mut()?, args.lse.f32s_mut()?);
    for ((loss, lse), (max, sum, logit)) in losses.iter_mut().zip(lses).zip(running) {
        *lse = max + sum.ln();
        *loss = *lse - logit;
    }
    Ok(())
}

/// `row[v] = dloss * (exp(row[v] - lse) - [v = target])`.
struct Slope<'a> {
    row: &'a mut [f32],
    lse: f32,
    dloss: f32,
    target: Option<usize>,
}

impl Kernel for Slope<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (shift, scale) = (s.splat(self.lse), s.splat(self.dloss));
        for at in (0..self.row.len()).step_by(S::LANES) {
            let p = s.exp(s.sub(s.load(&self.row[at..], 0.0), shift));
            s.store(&mut self.row[at..], s.mul(p, scale));
        }
        if let Some(x) = self.target.and_then(|at| self.row.get_mut(at)) {
            *x -= self.dloss;
        }
    }
}

/// See [`crate::backend::Backend::cross_entropy_backward`].
pub(crate) fn cross_entropy_backward(
    cx: Context<'_>,
    args: CrossEntropyBackwardArgs<'_>,
) -> Result<()> {
    let lse = args.lse.f32s()?;
    let weight = Rhs::Weight(args.head);
    let head = Head::new(cx, args.hidden, weight, args.bias, args.precision)?;
    let d = args.hidden.shape()[1];
    let mut accumulate = false;
    let dhidden = args.dhidden.f32s_mut()?;
    let dhead = args.dhead.map(Tensor::f32s_mut).transpose()?;
    let dhead = dhead.map(Shared::new);
    let mut dbias = args.dbias;
    head.for_each_tile(cx, |start, len, logits| {
        cx.workers
            .for_each_chunk(logits.f32s_mut()?, len * 16, |i, rows| {
                for (r, row) in rows.chunks_exact_mut(len).enumerate() {
                    let at = i * 16 + r;
                    let target = (args.targets[at] as usize).checked_sub(start);
                    cx.level.run(Slope {
                        row,
                        lse: lse[at],
                        dloss: args.dlosses[at],
                        target,
                    });
                }
            });
        let tile = args.head.narrow(0, start, len)?;
        let (b, precision) = (Rhs::Matrix(&tile), args.precision);
        matmul_into(cx, logits, b, dhidden, accumulate, precision)?;
        accumulate = true;
        if let Some(dhead) = &dhead {
            // SAFETY: tiles are visited one after the other and do not overlap.
            #[expect(unsafe_code, reason = "a part of the output is written per tile")]
            let dhead = unsafe { dhead.range(start * d, len * d) };
            let a = &logits.transpose(0, 1)?;
            matmul_into(cx, a, Rhs::Matrix(args.hidden), dhead, true, precision)?;
        }
        if let Some(dbias) = dbias.as_deref_mut() {
            let mut sum = Tensor::zeros(logits.device(), DType::F32, &[len])?;
            super::add::column_sum(cx, logits, &mut sum)?;
            let part = &mut dbias.f32s_mut()?[start..start + len];
            for (total, x) in part.iter_mut().zip(sum.f32s()?) {
                *total += x;
            }
        }
        Ok(())
    })
}
