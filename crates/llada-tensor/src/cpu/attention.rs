//! Fused attention over ragged batches.
//!
//! A task is one head of one sequence (forward) or one key head with all its query heads
//! (backward). Its keys are copied transposed and its values as they are, padded to whole
//! register blocks; then blocks of queries visit blocks of keys, with an online softmax.
//! All products are register blocks of `f32`; where operands may be bf16, and the machine multiplies
//! those, [`tiles`] takes over.

#[cfg(target_arch = "x86_64")]
mod tiles;

use std::num::NonZeroUsize;
use std::ops::Range;

use super::context::Context;
#[cfg(target_arch = "x86_64")]
use super::panels::Kind;
use super::simd::block::{Lhs, block};
use super::simd::{Kernel, Simd};
use super::workers::Shared;
use crate::Result;
use crate::backend::{AttentionArgs, AttentionBackwardArgs, AttentionShape};
use crate::storage::Scratch;

/// Keys per block: whole register blocks, as columns and as rows, at every level.
const KEYS: usize = 96;
/// Register blocks of rows per block of queries.
const ROW_BLOCKS: usize = 4;
/// Queries per block at most: room for the state of their softmax.
const MAX_QUERIES: usize = 64;

/// One head of a matrix `[T, heads * E]`, for the rows of one sequence.
#[derive(Clone, Copy)]
struct HeadRows<'a> {
    data: &'a [f32],
    width: usize,
    column: usize,
    first: usize,
    head_dim: usize,
}

impl<'a> HeadRows<'a> {
    fn row(&self, at: usize) -> &'a [f32] {
        &self.data[(self.first + at) * self.width + self.column..][..self.head_dim]
    }
}

/// What one task works on.
#[derive(Clone, Copy)]
struct Place {
    /// Its queries.
    first: usize,
    len: usize,
    /// Its keys, which are those of the queries but for a window of them.
    first_key: usize,
    n_keys: usize,
    head_dim: usize,
    block_size: Option<NonZeroUsize>,
}

impl Place {
    fn rows<'a>(&self, data: &'a [f32], heads: usize, head: usize) -> HeadRows<'a> {
        let (width, column) = (heads * self.head_dim, head * self.head_dim);
        HeadRows {
            data,
            width,
            column,
            first: self.first,
            head_dim: self.head_dim,
        }
    }

    fn key_rows<'a>(&self, data: &'a [f32], heads: usize, head: usize) -> HeadRows<'a> {
        HeadRows {
            first: self.first_key,
            ..self.rows(data, heads, head)
        }
    }

    /// How many keys a query sees: the first ones.
    fn seen(&self, query: usize) -> usize {
        let up_to_block = |size: NonZeroUsize| (query / size + 1).saturating_mul(size.get());
        self.block_size
            .map_or(self.n_keys, |size| up_to_block(size).min(self.n_keys))
    }

    /// The first query that sees a key.
    #[cfg(target_arch = "x86_64")]
    fn first_to_see(&self, key: usize) -> usize {
        self.block_size.map_or(0, |size| key / size * size.get())
    }

    fn scale(&self) -> f32 {
        #[expect(clippy::cast_precision_loss, reason = "a head dimension fits")]
        let e = self.head_dim as f32;
        1.0 / e.sqrt()
    }
}

/// Sizes of the padded blocks.
#[derive(Clone, Copy)]
struct Sizes {
    /// Rows of a register block.
    block_rows: usize,
    /// Queries per block.
    queries: usize,
    /// Head dimension, padded to whole register blocks.
    head_dim: usize,
    /// Keys of the sequence, padded to whole blocks of keys.
    keys: usize,
}

impl Sizes {
    fn new<S: Simd>(len: usize, n_keys: usize, head_dim: usize) -> Self {
        const { assert!(ROW_BLOCKS * S::BLOCK_ROWS <= MAX_QUERIES) };
        let (block_rows, block_columns) = (S::BLOCK_ROWS, S::BLOCK_VECS * S::LANES);
        let n_queries = len.next_multiple_of(block_rows);
        Self {
            block_rows,
            queries: n_queries.min(ROW_BLOCKS * block_rows),
            head_dim: head_dim.next_multiple_of(block_columns),
            keys: n_keys.next_multiple_of(block_columns),
        }
    }

    fn query_blocks(&self, len: usize) -> impl Iterator<Item = (usize, usize)> {
        let step = self.queries;
        (0..len)
            .step_by(step)
            .map(move |start| (start, step.min(len - start)))
    }

    fn key_blocks(&self) -> impl Iterator<Item = (usize, usize)> {
        let keys = self.keys;
        (0..keys)
            .step_by(KEYS)
            .map(move |start| (start, KEYS.min(keys - start)))
    }
}

/// `[len, E]` rows copied to `[padded_len, padded E]`, zeros elsewhere.
fn padded_rows(
    x: HeadRows<'_>,
    start: usize,
    len: usize,
    rows: usize,
    width: usize,
    scale: f32,
) -> Scratch<f32> {
    let mut out = Scratch::new(rows * width);
    for (i, out) in out.chunks_exact_mut(width).enumerate().take(len) {
        for (out, &x) in out.iter_mut().zip(x.row(start + i)) {
            *out = x * scale;
        }
    }
    out
}

/// `[len, E]` rows copied to `[E, padded_len]`, zeros elsewhere.
fn transposed_rows(x: HeadRows<'_>, len: usize, padded_len: usize) -> Scratch<f32> {
    let mut out = Scratch::new(x.head_dim * padded_len);
    for i in 0..len {
        for (e, &x) in x.row(i).iter().enumerate() {
            out[e * padded_len + i] = x;
        }
    }
    out
}

/// `c (+)= a b` for whole register blocks: `c[rows, columns]` at stride `ldc`.
#[inline(always)]
fn product<S: Simd>(
    s: S,
    (a, a_row, a_k): (&[f32], usize, usize),
    (b, ldb): (&[f32], usize),
    [rows, columns, k]: [usize; 3],
    (c, ldc): (&mut [f32], usize),
    accumulate: bool,
) {
    if rows == 0 || columns == 0 || k == 0 {
        return;
    }
    let (mr, nr) = (S::BLOCK_ROWS, S::BLOCK_VECS * S::LANES);
    assert!(rows % mr == 0 && columns % nr == 0, "whole register blocks");
    assert!(
        (rows - 1) * a_row + (k - 1) * a_k < a.len(),
        "left operand is inside"
    );
    assert!(
        (k - 1) * ldb + columns <= b.len(),
        "right operand is inside"
    );
    assert!((rows - 1) * ldc + columns <= c.len(), "output is inside");
    for j in (0..columns).step_by(nr) {
        for i in (0..rows).step_by(mr) {
            // SAFETY: the asserts above cover every element that a block reaches.
            #[expect(unsafe_code, reason = "the register block works on pointers")]
            unsafe {
                let data = a.as_ptr().add(i * a_row);
                let a = Lhs {
                    data,
                    row_stride: a_row,
                    k_stride: a_k,
                };
                let c = c.as_mut_ptr().add(i * ldc + j);
                block(
                    s,
                    [S::BLOCK_ROWS, k],
                    a,
                    b.as_ptr().add(j),
                    ldb,
                    c,
                    ldc,
                    accumulate,
                );
            }
        }
    }
}

/// Hides keys that a query must not see.
fn mask_scores(place: Place, scores: &mut [f32], ld: usize, q: (usize, usize), k: (usize, usize)) {
    for i in 0..q.1 {
        let row = &mut scores[i * ld..][..k.1];
        let seen = place.seen(q.0 + i);
        row[seen.saturating_sub(k.0).min(k.1)..].fill(f32::NEG_INFINITY);
    }
}

/// One row of the online softmax: `p = exp(p - max)`; returns `(max, sum, correction)`.
#[inline(always)]
fn softmax_row<S: Simd>(s: S, row: &mut [f32], max_before: f32) -> (f32, f32, f32) {
    let mut max = s.splat(max_before);
    for at in (0..row.len()).step_by(S::LANES) {
        max = s.max(max, s.load(&row[at..], f32::NEG_INFINITY));
    }
    let max = s.max_lane(max);
    if max == f32::NEG_INFINITY {
        row.fill(0.0);
        return (max, 0.0, 1.0);
    }
    let (shift, mut sum) = (s.splat(max), s.splat(0.0));
    for at in (0..row.len()).step_by(S::LANES) {
        let p = s.exp(s.sub(s.load(&row[at..], f32::NEG_INFINITY), shift));
        s.store(&mut row[at..], p);
        sum = s.add(sum, p);
    }
    (max, s.sum(sum), (max_before - max).exp())
}

struct ForwardHead<'a> {
    place: Place,
    q: HeadRows<'a>,
    k: HeadRows<'a>,
    v: HeadRows<'a>,
    y: Shared<'a, f32>,
    lse: Shared<'a, f32>,
    n_heads: usize,
    head: usize,
}

impl Kernel for ForwardHead<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (place, len) = (self.place, self.place.len);
        let sizes = Sizes::new::<S>(len, place.n_keys, place.head_dim);
        let (e, ld) = (sizes.head_dim, KEYS);
        let keys = transposed_rows(self.k, place.n_keys, sizes.keys);
        let values = padded_rows(self.v, 0, place.n_keys, sizes.keys, e, 1.0);
        let mut scores = Scratch::new(sizes.queries * ld);
        let mut out = Scratch::new(sizes.queries * e);
        for (q0, n) in sizes.query_blocks(len) {
            let rows = n.next_multiple_of(sizes.block_rows);
            let queries = padded_rows(self.q, q0, n, rows, place.head_dim, place.scale());
            let mut state = [(f32::NEG_INFINITY, 0.0_f32); MAX_QUERIES];
            out.fill(0.0);
            for (k0, m) in sizes.key_blocks() {
                if k0 >= place.seen(q0 + n - 1) {
                    break;
                }
                let a = (&queries[..], place.head_dim, 1);
                let shape = [rows, m, place.head_dim];
                product(
                    s,
                    a,
                    (&keys[k0..], sizes.keys),
                    shape,
                    (&mut scores, ld),
                    false,
                );
                mask_scores(place, &mut scores, ld, (q0, n), (k0, m));
                for (i, (max, sum)) in state.iter_mut().enumerate().take(n) {
                    let row = &mut scores[i * ld..][..m];
                    let (new_max, row_sum, correction) = softmax_row(s, row, *max);
                    *sum = *sum * correction + row_sum;
                    if new_max > *max {
                        scale_row(s, &mut out[i * e..][..e], correction);
                    }
                    *max = new_max;
                }
                scores[n * ld..].fill(0.0);
                let b = (&values[k0 * e..], e);
                product(
                    s,
                    (&scores[..], ld, 1),
                    b,
                    [rows, e, m],
                    (&mut out, e),
                    true,
                );
            }
            for (i, &(max, sum)) in state.iter().enumerate().take(n) {
                let row = &mut out[i * e..][..place.head_dim];
                // A query that sees no key has no output: zero, and a log-sum-exp of -inf.
                scale_row(s, row, if sum > 0.0 { 1.0 / sum } else { 0.0 });
                let at = place.first + q0 + i;
                let (width, column) = (self.n_heads * place.head_dim, self.head * place.head_dim);
                // SAFETY: this task alone has this head of this sequence.
                #[expect(unsafe_code, reason = "heads are columns of the output")]
                unsafe {
                    self.y
                        .range(at * width + column, place.head_dim)
                        .copy_from_slice(row);
                    self.lse.range(at * self.n_heads + self.head, 1)[0] = if sum > 0.0 {
                        max + sum.ln()
                    } else {
                        f32::NEG_INFINITY
                    };
                }
            }
        }
    }
}

#[inline(always)]
fn scale_row<S: Simd>(s: S, row: &mut [f32], factor: f32) {
    for at in (0..row.len()).step_by(S::LANES) {
        let x = s.mul(s.load(&row[at..], 0.0), s.splat(factor));
        s.store(&mut row[at..], x);
    }
}

fn places<'a>(shape: &'a AttentionShape<'a>, head_dim: usize) -> impl Iterator<Item = Place> + 'a {
    let sequences = shape.offsets.windows(2).zip(shape.of_keys().windows(2));
    sequences
        .filter(|(queries, _)| queries[0] < queries[1])
        .map(move |(queries, keys)| Place {
            first: queries[0],
            len: queries[1] - queries[0],
            first_key: keys[0],
            n_keys: keys[1] - keys[0],
            head_dim,
            block_size: shape.block_size,
        })
}

/// See [`crate::backend::Backend::attention`].
pub(crate) fn attention(cx: Context<'_>, args: AttentionArgs<'_>) -> Result<()> {
    #[cfg(target_arch = "x86_64")]
    if let Kind::Tiles { amx } = Kind::of(cx.level, args.precision) {
        return tiles::attention(cx, amx, args);
    }
    let shape = args.shape;
    let (q, k, v) = (args.q.f32s()?, args.k.f32s()?, args.v.f32s()?);
    let head_dim = args.q.shape()[1] / shape.n_heads;
    let group = shape.n_heads / shape.n_kv_heads;
    let (y, lse) = (
        Shared::new(args.y.f32s_mut()?),
        Shared::new(args.lse.f32s_mut()?),
    );
    let places: Vec<Place> = places(&shape, head_dim).collect();
    cx.workers.for_each(places.len() * shape.n_heads, |task| {
        let (place, head) = (places[task / shape.n_heads], task % shape.n_heads);
        cx.level.run(ForwardHead {
            place,
            q: place.rows(q, shape.n_heads, head),
            k: place.key_rows(k, shape.n_kv_heads, head / group),
            v: place.key_rows(v, shape.n_kv_heads, head / group),
            y,
            lse,
            n_heads: shape.n_heads,
            head,
        });
    });
    Ok(())
}

/// With `P = exp(S - lse)` and `D_i = dy_i . y_i`:
/// `dV = Pᵀ dY`, `dS = P (dY Vᵀ - D)`, `dQ = dS K / sqrt(E)`, `dK = dSᵀ Q / sqrt(E)`.
struct BackwardHead<'a> {
    place: Place,
    q: &'a [f32],
    y: &'a [f32],
    dy: &'a [f32],
    lse: &'a [f32],
    k: HeadRows<'a>,
    v: HeadRows<'a>,
    dq: Shared<'a, f32>,
    dk: Shared<'a, f32>,
    dv: Shared<'a, f32>,
    n_heads: usize,
    n_kv_heads: usize,
    kv_head: usize,
}

impl Kernel for BackwardHead<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (place, len) = (self.place, self.place.len);
        let sizes = Sizes::new::<S>(len, len, place.head_dim);
        let (e, ld) = (sizes.head_dim, KEYS);
        let key_rows = len.next_multiple_of(KEYS);
        let keys = padded_rows(self.k, 0, len, sizes.keys, e, 1.0);
        let keys_t = transposed_rows(self.k, len, sizes.keys);
        let values_t = transposed_rows(self.v, len, sizes.keys);
        let (mut dk, mut dv) = (Scratch::new(key_rows * e), Scratch::new(key_rows * e));
        let mut p = Scratch::new(sizes.queries * ld);
        let mut ds = Scratch::new(sizes.queries * ld);
        let mut dq = Scratch::new(sizes.queries * e);
        for head in self.heads() {
            let q = place.rows(self.q, self.n_heads, head);
            let y = place.rows(self.y, self.n_heads, head);
            let dy = place.rows(self.dy, self.n_heads, head);
            for (q0, n) in sizes.query_blocks(len) {
                let rows = n.next_multiple_of(sizes.block_rows);
                let queries = padded_rows(q, q0, n, rows, e, place.scale());
                let dys = padded_rows(dy, q0, n, rows, e, 1.0);
                dq.fill(0.0);
                for (k0, m) in sizes.key_blocks() {
                    if k0 >= place.seen(q0 + n - 1) {
                        break;
                    }
                    let shape = [rows, m, place.head_dim];
                    let b = (&keys_t[k0..], sizes.keys);
                    product(s, (&queries[..], e, 1), b, shape, (&mut p, ld), false);
                    mask_scores(place, &mut p, ld, (q0, n), (k0, m));
                    let b = (&values_t[k0..], sizes.keys);
                    product(s, (&dys[..], e, 1), b, shape, (&mut ds, ld), false);
                    p[n * ld..].fill(0.0);
                    ds[n * ld..].fill(0.0);
                    for i in 0..n {
                        let lse = self.lse[(place.first + q0 + i) * self.n_heads + head];
                        let delta = dot(s, y.row(q0 + i), dy.row(q0 + i));
                        let (p, ds) = (&mut p[i * ld..][..m], &mut ds[i * ld..][..m]);
                        probability_slopes(s, p, ds, lse, delta);
                    }
                    let b = (&keys[k0 * e..], e);
                    product(s, (&ds[..], ld, 1), b, [rows, e, m], (&mut dq, e), true);
                    // Transposed left operands: rows are keys, k runs over queries.
                    let key_rows = m.next_multiple_of(sizes.block_rows);
                    for i in 0..n {
                        p[i * ld + m..i * ld + key_rows].fill(0.0);
                        ds[i * ld + m..i * ld + key_rows].fill(0.0);
                    }
                    let shape = [key_rows, e, n];
                    let (dv, dk) = (&mut dv[k0 * e..], &mut dk[k0 * e..]);
                    product(s, (&p[..], 1, ld), (&dys[..], e), shape, (dv, e), true);
                    product(s, (&ds[..], 1, ld), (&queries[..], e), shape, (dk, e), true);
                }
                for i in 0..n {
                    let row = &mut dq[i * e..][..place.head_dim];
                    scale_row(s, row, place.scale());
                    self.write(self.dq, self.n_heads, head, q0 + i, row);
                }
            }
        }
        for i in 0..len {
            self.write(
                self.dk,
                self.n_kv_heads,
                self.kv_head,
                i,
                &dk[i * e..][..place.head_dim],
            );
            self.write(
                self.dv,
                self.n_kv_heads,
                self.kv_head,
                i,
                &dv[i * e..][..place.head_dim],
            );
        }
    }
}

impl<'a> BackwardHead<'a> {
    /// Its query heads.
    fn heads(&self) -> Range<usize> {
        let group = self.n_heads / self.n_kv_heads;
        self.kv_head * group..(self.kv_head + 1) * group
    }

    /// A row of a gradient.
    fn row_mut(&self, out: Shared<'a, f32>, heads: usize, head: usize, at: usize) -> &'a mut [f32] {
        let e = self.place.head_dim;
        let start = (self.place.first + at) * heads * e + head * e;
        // SAFETY: this task alone has this key head, and its query heads, of this sequence, and uses
        // one row at a time.
        #[expect(unsafe_code, reason = "heads are columns of the output")]
        unsafe {
            out.range(start, e)
        }
    }

    fn write(&self, out: Shared<'a, f32>, heads: usize, head: usize, at: usize, row: &[f32]) {
        self.row_mut(out, heads, head, at).copy_from_slice(row);
    }
}

#[inline(always)]
fn dot<S: Simd>(s: S, x: &[f32], y: &[f32]) -> f32 {
    let mut sum = s.splat(0.0);
    for at in (0..x.len()).step_by(S::LANES) {
        sum = s.fma(s.load(&x[at..], 0.0), s.load(&y[at..], 0.0), sum);
    }
    s.sum(sum)
}

/// `p = exp(p - lse)`, `ds = p (ds - delta)`.
#[inline(always)]
fn probability_slopes<S: Simd>(s: S, p: &mut [f32], ds: &mut [f32], lse: f32, delta: f32) {
    if lse == f32::NEG_INFINITY {
        p.fill(0.0);
        ds.fill(0.0);
        return;
    }
    let (shift, delta) = (s.splat(lse), s.splat(delta));
    for at in (0..p.len()).step_by(S::LANES) {
        let x = s.exp(s.sub(s.load(&p[at..], f32::NEG_INFINITY), shift));
        s.store(&mut p[at..], x);
        let slope = s.mul(x, s.sub(s.load(&ds[at..], 0.0), delta));
        s.store(&mut ds[at..], slope);
    }
}

/// See [`crate::backend::Backend::attention_backward`].
pub(crate) fn attention_backward(cx: Context<'_>, args: AttentionBackwardArgs<'_>) -> Result<()> {
    let shape = args.shape;
    let (q, k, v) = (args.q.f32s()?, args.k.f32s()?, args.v.f32s()?);
    let (y, lse, dy) = (args.y.f32s()?, args.lse.f32s()?, args.dy.f32s()?);
    let head_dim = args.q.shape()[1] / shape.n_heads;
    let (dq, dk, dv) = (
        Shared::new(args.dq.f32s_mut()?),
        Shared::new(args.dk.f32s_mut()?),
        Shared::new(args.dv.f32s_mut()?),
    );
    let places: Vec<Place> = places(&shape, head_dim).collect();
    let n_tasks = places.len() * shape.n_kv_heads;
    let task = |at: usize| {
        let (place, kv_head) = (places[at / shape.n_kv_heads], at % shape.n_kv_heads);
        BackwardHead {
            place,
            q,
            y,
            dy,
            lse,
            k: place.rows(k, shape.n_kv_heads, kv_head),
            v: place.rows(v, shape.n_kv_heads, kv_head),
            dq,
            dk,
            dv,
            n_heads: shape.n_heads,
            n_kv_heads: shape.n_kv_heads,
            kv_head,
        }
    };
    cx.workers.for_each(n_tasks, |at| {
        #[cfg(target_arch = "x86_64")]
        if let Kind::Tiles { amx: has_amx } = Kind::of(cx.level, args.precision) {
            let next = at + cx.workers.threads();
            let next = (next < n_tasks).then(|| task(next));
            return tiles::backward_head(cx, has_amx, task(at), next);
        }
        cx.level.run(task(at));
    });
    Ok(())
}
