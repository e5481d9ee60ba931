//! Attention with operands of bf16, on the tiles of [`crate::cpu::simd::tiles`].
//!
//! The keys and values of each head are packed once, for all query heads that share them: keys as
//! columns of the scores, values as columns of the output. A task is 32 queries of one head. It
//! visits blocks of keys with an online softmax; scores, probabilities and sums are `f32`, and the
//! probabilities are rounded for the second product.

mod backward;

use super::super::context::Context;
use super::super::simd::int8::Ahead;
use super::super::simd::tiles::{self, Products, STEP, STEP_ELEMENTS, Side, WIDTH};
use super::super::simd::{Kernel, Simd};
use super::super::workers::Shared;
use super::{HeadRows, Place, mask_scores, padded_rows, places, scale_row, softmax_row};
use crate::Result;
use crate::backend::AttentionArgs;
use crate::storage::{Buffer, Scratch};

pub(super) use backward::backward_head;

/// Keys per block: their scores for 32 queries take 32 KiB.
const KEYS: usize = 256;

/// Sizes of one head of one sequence, in panels and steps.
#[derive(Clone, Copy)]
struct Sizes {
    /// Panels of 32 keys, steps of as many in the second product.
    keys: usize,
    /// Panels of 32 columns of the output, steps of as many in the first product.
    head: usize,
}

impl Sizes {
    fn of(place: &Place) -> Self {
        Self {
            keys: place.n_keys.div_ceil(WIDTH),
            head: place.head_dim.div_ceil(STEP),
        }
    }

    /// Elements of the keys, or of the values.
    fn elements(self) -> usize {
        self.keys * self.head * STEP_ELEMENTS
    }
}

/// The keys and values of all heads, packed.
struct Packed {
    keys: Buffer,
    values: Buffer,
    /// Where those of a sequence and a head begin, in elements.
    starts: Vec<usize>,
}

/// See [`crate::backend::Backend::attention`].
///
/// The caller has seen that the machine has AVX512-BF16, and AMX if `has_amx`.
pub(super) fn attention(cx: Context<'_>, has_amx: bool, args: AttentionArgs<'_>) -> Result<()> {
    let shape = args.shape;
    let (q, k, v) = (args.q.f32s()?, args.k.f32s()?, args.v.f32s()?);
    let head_dim = args.q.shape()[1] / shape.n_heads;
    let group = shape.n_heads / shape.n_kv_heads;
    let places: Vec<Place> = places(&shape, head_dim).collect();
    let packed = pack(cx, &places, shape.n_kv_heads, [k, v]);
    let (y, lse) = (
        Shared::new(args.y.f32s_mut()?),
        Shared::new(args.lse.f32s_mut()?),
    );
    let blocks = |place: &Place| place.len.div_ceil(WIDTH);
    let tasks: Vec<(usize, usize, usize)> = places
        .iter()
        .enumerate()
        .flat_map(|(at, place)| {
            let blocks = blocks(place);
            (0..shape.n_heads * blocks).map(move |i| (at, i / blocks, i % blocks))
        })
        .collect();
    cx.workers.for_each(tasks.len(), |task| {
        let (at, head, block) = tasks[task];
        let place = places[at];
        let start = packed.starts[at * shape.n_kv_heads + head / group];
        let part = start..start + Sizes::of(&place).elements();
        let keys = &bytemuck::cast_slice(packed.keys.bytes())[part.clone()];
        let values = &bytemuck::cast_slice(packed.values.bytes())[part];
        cx.level.run(QueryBlock {
            place,
            q: place.rows(q, shape.n_heads, head),
            keys,
            values,
            first: block * WIDTH,
            y,
            lse,
            n_heads: shape.n_heads,
            head,
            has_amx,
        });
    });
    Ok(())
}

fn pack(cx: Context<'_>, places: &[Place], n_kv_heads: usize, [k, v]: [&[f32]; 2]) -> Packed {
    let (mut starts, mut end) = (Vec::new(), 0);
    for place in places {
        for _ in 0..n_kv_heads {
            starts.push(end);
            end += Sizes::of(place).elements();
        }
    }
    let mut packed = Packed {
        keys: cx.pool.take(2 * end),
        values: cx.pool.take(2 * end),
        starts,
    };
    let keys = Shared::new(bytemuck::cast_slice_mut::<u8, u16>(packed.keys.bytes_mut()));
    let values = Shared::new(bytemuck::cast_slice_mut::<u8, u16>(
        packed.values.bytes_mut(),
    ));
    let starts = &packed.starts;
    cx.workers.for_each(2 * starts.len(), |task| {
        let (at, is_values) = (task / 2, task % 2 == 1);
        let place = places[at / n_kv_heads];
        if place.n_keys == 0 {
            return;
        }
        let sizes = Sizes::of(&place);
        let rows = |data| place.key_rows(data, n_kv_heads, at % n_kv_heads);
        let out = if is_values { values } else { keys };
        // SAFETY: heads of sequences do not overlap, and only this task has this one.
        #[expect(unsafe_code, reason = "heads are packed in parallel")]
        let out = unsafe { out.range(starts[at], sizes.elements()) };
        if is_values {
            for (panel, out) in out.chunks_exact_mut(sizes.keys * STEP_ELEMENTS).enumerate() {
                let columns = columns_of(rows(v), place.n_keys, panel * WIDTH);
                pack_panel(columns, Side::Right, out);
            }
        } else {
            for (panel, out) in out.chunks_exact_mut(sizes.head * STEP_ELEMENTS).enumerate() {
                pack_panel(
                    rows_of(rows(k), place.n_keys, panel * WIDTH),
                    Side::Right,
                    out,
                );
            }
        }
    });
    packed
}

/// 32 rows of a head as a panel: k runs over the head dimension.
fn rows_of(x: HeadRows<'_>, n: usize, first: usize) -> tiles::Source<'_> {
    tiles::Source {
        data: &x.data[(x.first + first) * x.width + x.column..],
        panel: (n - first).min(WIDTH),
        panel_stride: x.width,
        k: x.head_dim,
        k_stride: 1,
    }
}

/// 32 columns of a head as a panel: k runs over the rows.
fn columns_of(x: HeadRows<'_>, n: usize, first: usize) -> tiles::Source<'_> {
    tiles::Source {
        data: &x.data[x.first * x.width + x.column + first..],
        panel: (x.head_dim - first).min(WIDTH),
        panel_stride: 1,
        k: n,
        k_stride: x.width,
    }
}

fn pack_panel(source: tiles::Source<'_>, side: Side, out: &mut [u16]) {
    // SAFETY: the module is only used at levels with AVX512-BF16, which detection has allowed.
    #[expect(unsafe_code, reason = "AVX-512 packing")]
    unsafe {
        tiles::pack_panel(source, side, out);
    }
}

struct QueryBlock<'a> {
    place: Place,
    q: HeadRows<'a>,
    keys: &'a [u16],
    values: &'a [u16],
    /// First query.
    first: usize,
    y: Shared<'a, f32>,
    lse: Shared<'a, f32>,
    n_heads: usize,
    head: usize,
    has_amx: bool,
}

/// `c (+)= a b` for 32 rows by 32 columns, of which the first `rows` rows count.
#[inline(always)]
fn multiply(
    products: &Products,
    [a, b]: [&[u16]; 2],
    rows: usize,
    (c, ldc): (&mut [f32], usize),
    accumulate: bool,
) {
    assert!((WIDTH - 1) * ldc + WIDTH <= c.len(), "a block fits");
    // SAFETY: the assert covers all that a block reaches.
    #[expect(unsafe_code, reason = "the block product works on pointers")]
    unsafe {
        products.block(a, b, rows, c.as_mut_ptr(), ldc, (accumulate, Ahead::NONE));
    }
}

impl Kernel for QueryBlock<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let place = self.place;
        let n = (place.len - self.first).min(WIDTH);
        let sizes = Sizes::of(&place);
        let (key_panel, value_panel) = (sizes.head * STEP_ELEMENTS, sizes.keys * STEP_ELEMENTS);
        // SAFETY: the module is only used at levels that were detected, with AMX where it was.
        #[expect(unsafe_code, reason = "AVX-512 and AMX")]
        let products = unsafe { Products::new(self.has_amx) };
        let width = sizes.head * WIDTH;
        let queries = padded_rows(self.q, self.first, n, WIDTH, width, place.scale());
        let queries = pack_left(&queries, width, n, width);
        let ld = KEYS.min(sizes.keys * WIDTH);
        let mut scores = Scratch::new(WIDTH * ld);
        let mut out = Scratch::new(WIDTH * width);
        let mut state = [(f32::NEG_INFINITY, 0.0_f32); WIDTH];
        for k0 in (0..place.n_keys).step_by(KEYS) {
            if k0 >= place.seen(self.first + n - 1) {
                break;
            }
            let panels = (sizes.keys - k0 / WIDTH).min(KEYS / WIDTH);
            let m = panels * WIDTH;
            let keys = &self.keys[k0 / WIDTH * key_panel..];
            for (j, panel) in keys.chunks_exact(key_panel).enumerate().take(panels) {
                let c = (&mut scores[j * WIDTH..], ld);
                multiply(&products, [&queries, panel], n, c, false);
            }
            mask_scores(place, &mut scores, ld, (self.first, n), (k0, m));
            for (i, (max, sum)) in state.iter_mut().enumerate().take(n) {
                let row = &mut scores[i * ld..][..m];
                let (new_max, row_sum, correction) = softmax_row(s, row, *max);
                *sum = *sum * correction + row_sum;
                if new_max > *max {
                    scale_row(s, &mut out[i * width..][..width], correction);
                }
                *max = new_max;
            }
            let probabilities = pack_left(&scores, ld, n, m);
            let start = k0 / STEP * STEP_ELEMENTS;
            for (j, panel) in self.values.chunks_exact(value_panel).enumerate() {
                let panel = &panel[start..start + panels * STEP_ELEMENTS];
                let c = (&mut out[j * WIDTH..], width);
                multiply(&products, [&probabilities, panel], n, c, true);
            }
        }
        for (i, &(max, sum)) in state.iter().enumerate().take(n) {
            let row = &mut out[i * width..][..place.head_dim];
            // A query that sees no key has no output: zero, and a log-sum-exp of -inf.
            scale_row(s, row, if sum > 0.0 { 1.0 / sum } else { 0.0 });
            let at = place.first + self.first + i;
            let start = (at * self.n_heads + self.head) * place.head_dim;
            // SAFETY: this task alone has these queries of this head.
            #[expect(unsafe_code, reason = "heads are columns of the output")]
            unsafe {
                self.y.range(start, place.head_dim).copy_from_slice(row);
                self.lse.range(at * self.n_heads + self.head, 1)[0] = if sum > 0.0 {
                    max + sum.ln()
                } else {
                    f32::NEG_INFINITY
                };
            }
        }
    }
}

/// The first `n` of 32 rows of `k` values at a stride, as a left panel.
fn pack_left(rows: &[f32], stride: usize, n: usize, k: usize) -> Scratch<u16> {
    let mut out = Scratch::new(k.div_ceil(STEP) * STEP_ELEMENTS);
    let source = tiles::Source {
        data: rows,
        panel: n,
        panel_stride: stride,
        k,
        k_stride: 1,
    };
    pack_panel(source, Side::Left, &mut out);
    out
}
