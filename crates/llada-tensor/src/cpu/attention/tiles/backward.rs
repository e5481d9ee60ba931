//! The gradient of attention with operands of bf16, on the tiles of [`crate::cpu::simd::tiles`].
//!
//! A task is one key head with all its query heads. Its keys and values are packed once, the queries
//! and the gradients of their outputs once per block of queries.
//! Scores are computed transposed, keys as rows: then probabilities and slopes are left operands of
//! the sums over queries as they lie, only the sum over keys needs the slopes turned around, and
//! what belongs to a query, its log-sum-exp and its delta, lies along the vectors.
//! Scores, probabilities, slopes and all sums are `f32`.

mod operands;

use std::ops::Range;

use super::super::super::context::Context;
use super::super::super::simd::tiles::{self, Products, STEP, Side, WIDTH};
use super::super::super::simd::{Kernel, Simd, prefetch};
use super::super::super::workers::Shared;
use super::super::{BackwardHead, Place};
use super::{KEYS, multiply, pack_panel};
use operands::{Ahead, BlockSizes, Memory, Packed, Panels, Queries, scale_into};

/// Queries per block.
const QUERIES: usize = 128;
/// Rows that are fetched beside 32 queries and 32 keys: of 128 queries and as many keys, all rows of
/// the next task are.
const FETCHED_ROWS: usize = 40;
/// Distance of the rows of a square: scores, then the gradients of their probabilities.
const SQUARE_WIDTH: usize = 2 * WIDTH;

/// Runs one task, on the dot product of pairs or on AMX; `next` is what this thread may come to after.
pub(in super::super) fn backward_head(
    cx: Context<'_>,
    has_amx: bool,
    task: BackwardHead<'_>,
    next: Option<BackwardHead<'_>>,
) {
    let sizes = BlockSizes::of(&task.place);
    let mut memory = cx.pool.take(sizes.bytes());
    cx.level.run(OnTiles {
        task,
        next,
        sizes,
        has_amx,
        memory: Memory(memory.bytes_mut()),
    });
}

struct OnTiles<'a> {
    task: BackwardHead<'a>,
    next: Option<BackwardHead<'a>>,
    sizes: BlockSizes,
    has_amx: bool,
    memory: Memory<'a>,
}

/// Probabilities and slopes of a block of queries, packed.
struct Slopes<'a> {
    /// Of one panel of keys, k running over the queries.
    p: Panels<'a>,
    ds: Panels<'a>,
    /// Of panels of queries, k running over a block of keys.
    of_queries: Panels<'a>,
    /// Those of 32 keys and 32 queries before they are packed.
    square: &'a mut [f32],
}

impl<'a> Slopes<'a> {
    fn new(sizes: BlockSizes, memory: &mut Memory<'a>) -> Self {
        let panels = sizes.block_queries;
        Self {
            p: memory.panels(1, panels),
            ds: memory.panels(1, panels),
            of_queries: memory.panels(panels, sizes.block_keys),
            square: memory.take(WIDTH * SQUARE_WIDTH),
        }
    }

    /// Those of the keys from `key` on and a panel of queries: a step of the sums over queries, and
    /// step `step` of the sum over keys.
    #[inline(always)]
    fn compute<S: Simd>(
        &mut self,
        (s, products): (S, &Products),
        (packed, queries): (&Packed<'_>, &Queries<'_>),
        place: Place,
        [key, panel, step]: [usize; 3],
    ) {
        let (rows, steps) = (key / WIDTH, packed.keys.steps);
        let m = WIDTH.min(place.n_keys - key);
        let (k, v) = (&packed.keys, &packed.values);
        let operands = [k.part(rows, 0, steps), queries.q.part(panel, 0, steps)];
        multiply(products, operands, m, (self.square, SQUARE_WIDTH), false);
        let operands = [v.part(rows, 0, steps), queries.dy.part(panel, 0, steps)];
        let c = &mut self.square[WIDTH..];
        multiply(products, operands, m, (c, SQUARE_WIDTH), false);
        if place.block_size.is_some() {
            let query = queries.first + panel * WIDTH;
            for (i, row) in self.square.chunks_exact_mut(SQUARE_WIDTH).enumerate() {
                let hidden = place.first_to_see(key + i).saturating_sub(query);
                row[..hidden.min(WIDTH)].fill(f32::NEG_INFINITY);
            }
        }
        let of_panel = panel * WIDTH..(panel + 1) * WIDTH;
        let of_queries = [&queries.lse[of_panel.clone()], &queries.delta[of_panel]];
        let out = [self.p.step_mut(0, panel), self.ds.step_mut(0, panel)];
        // SAFETY: the module is only used at levels with AVX512-BF16.
        #[expect(unsafe_code, reason = "AVX-512 rounding")]
        unsafe {
            probabilities_and_slopes(s, self.square, m, of_queries, out);
        }
        let by_query = tiles::Source {
            data: &self.square[WIDTH..],
            panel: WIDTH,
            panel_stride: 1,
            k: m,
            k_stride: SQUARE_WIDTH,
        };
        let out = self.of_queries.step_mut(panel, step);
        pack_panel(by_query, Side::Left, out);
    }
}

/// `p = exp(p - lse)` and `ds = p (ds - delta)` for the first `m` keys of a square, rounded into steps
/// of left panels, the slopes also in place.
///
/// # Safety
/// The machine has AVX512-BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
#[expect(unsafe_code, reason = "AVX-512 rounding")]
unsafe fn probabilities_and_slopes<S: Simd>(
    s: S,
    square: &mut [f32],
    m: usize,
    [lse, delta]: [&[f32]; 2],
    [p_out, ds_out]: [&mut [u16]; 2],
) {
    p_out[m * STEP..].fill(0);
    ds_out[m * STEP..].fill(0);
    let outs = p_out
        .chunks_exact_mut(STEP)
        .zip(ds_out.chunks_exact_mut(STEP));
    let rows = square.chunks_exact_mut(SQUARE_WIDTH).take(m);
    for (row, (p_out, ds_out)) in rows.zip(outs) {
        let (p, ds) = row.split_at_mut(WIDTH);
        for at in (0..WIDTH).step_by(S::LANES) {
            let (lse, delta) = (s.load(&lse[at..], 0.0), s.load(&delta[at..], 0.0));
            let x = s.exp(s.sub(s.load(&p[at..], 0.0), lse));
            s.store(&mut p[at..], x);
            let slope = s.mul(x, s.sub(s.load(&ds[at..], 0.0), delta));
            s.store(&mut ds[at..], slope);
        }
        tiles::round_row(p, p_out);
        tiles::round_row(ds, ds_out);
    }
}

/// Gradients of one key head and of a block of queries, `width` columns each.
struct Gradients<'a> {
    dk: &'a mut [f32],
    dv: &'a mut [f32],
    dq: &'a mut [f32],
    width: usize,
}

impl<'a> Gradients<'a> {
    fn new(sizes: BlockSizes, memory: &mut Memory<'a>) -> Self {
        let width = sizes.width();
        Self {
            dk: memory.take(sizes.keys * WIDTH * width),
            dv: memory.take(sizes.keys * WIDTH * width),
            dq: memory.take(sizes.block_queries * WIDTH * width),
            width,
        }
    }

    /// Adds to those of the `m` keys of a panel, over the queries from panel `first` on.
    #[inline(always)]
    fn add_keys(
        &mut self,
        products: &Products,
        slopes: &Slopes<'_>,
        queries: &Queries<'_>,
        [key, m, first]: [usize; 3],
    ) {
        let n = queries.panels() - first;
        let [p, ds] = [slopes.p.part(0, first, n), slopes.ds.part(0, first, n)];
        for column in 0..self.width / WIDTH {
            let start = key * self.width + column * WIDTH;
            let operands = [p, queries.dy_columns.part(column, first, n)];
            let c = (&mut self.dv[start..], self.width);
            multiply(products, operands, m, c, true);
            let operands = [ds, queries.q_columns.part(column, first, n)];
            let c = (&mut self.dk[start..], self.width);
            multiply(products, operands, m, c, true);
        }
    }

    /// Adds to those of the queries, over the block of keys from `first_key` on.
    #[inline(always)]
    fn add_queries(
        &mut self,
        products: &Products,
        slopes: &Slopes<'_>,
        (packed, place): (&Packed<'_>, Place),
        queries: &Queries<'_>,
        first_key: usize,
    ) {
        for panel in 0..queries.panels() {
            let seen = place.seen(queries.last_of(panel));
            let steps = seen.saturating_sub(first_key).min(KEYS).div_ceil(STEP);
            if steps == 0 {
                continue;
            }
            let rows = WIDTH.min(queries.n - panel * WIDTH);
            for column in 0..self.width / WIDTH {
                let b = packed.key_columns.part(column, first_key / STEP, steps);
                let operands = [slopes.of_queries.part(panel, 0, steps), b];
                let c = &mut self.dq[panel * WIDTH * self.width + column * WIDTH..];
                multiply(products, operands, rows, (c, self.width), true);
            }
        }
    }
}

impl Kernel for OnTiles<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (task, sizes, mut memory) = (self.task, self.sizes, self.memory);
        let (place, len) = (task.place, task.place.len);
        // SAFETY: the module is only used at levels that were detected, with AMX where it was.
        #[expect(unsafe_code, reason = "AVX-512 and AMX")]
        let products = unsafe { Products::new(self.has_amx) };
        let mut work = Work {
            products,
            packed: Packed::new(sizes, &mut memory),
            queries: Queries::new(sizes, &mut memory),
            slopes: Slopes::new(sizes, &mut memory),
            sums: Gradients::new(sizes, &mut memory),
        };
        work.packed.load(&task);
        work.sums.dk.fill(0.0);
        work.sums.dv.fill(0.0);
        let heads = task.heads();
        for head in heads.clone() {
            for first in (0..len).step_by(QUERIES) {
                work.queries.load(s, &task, head, first);
                let next = [(head, first + QUERIES), (head + 1, 0)];
                let next = next
                    .into_iter()
                    .find(|&(head, first)| head < heads.end && first < len);
                let ahead = match (next, &self.next) {
                    (Some((head, first)), _) => Ahead::block(&task, head, first),
                    (None, Some(next)) => Ahead::task(next),
                    (None, None) => Ahead::default(),
                };
                work.block(s, &task, head, (next.is_none(), ahead));
                for i in 0..work.queries.n {
                    let dq = &work.sums.dq[i * sizes.width()..];
                    let out = task.row_mut(task.dq, task.n_heads, head, first + i);
                    scale_into(s, dq, place.scale(), out);
                }
            }
        }
        for i in 0..len {
            for (out, sum) in [(task.dk, &work.sums.dk), (task.dv, &work.sums.dv)] {
                let out = task.row_mut(out, task.n_kv_heads, task.kv_head, i);
                scale_into(s, &sum[i * sizes.width()..], 1.0, out);
            }
        }
    }
}

/// All that a task works with.
struct Work<'a> {
    products: Products,
    packed: Packed<'a>,
    queries: Queries<'a>,
    slopes: Slopes<'a>,
    sums: Gradients<'a>,
}

impl Work<'_> {
    /// The gradients of a block of queries, added to those of the keys. Beside it, what comes next is
    /// fetched, and what is written after the block, after the last one the gradients of the keys.
    #[inline(always)]
    fn block<S: Simd>(
        &mut self,
        s: S,
        task: &BackwardHead<'_>,
        head: usize,
        (is_last, mut ahead): (bool, Ahead<'_>),
    ) {
        let Self {
            products,
            packed,
            queries,
            slopes,
            sums,
        } = self;
        let place = task.place;
        sums.dq.fill(0.0);
        let (first, end) = (queries.first, queries.first + queries.n);
        let seen = place.seen(end - 1);
        for first_key in (0..seen).step_by(KEYS) {
            for key in (first_key..seen.min(first_key + KEYS)).step_by(WIDTH) {
                let step = (key - first_key) / STEP;
                let first_panel = place.first_to_see(key).saturating_sub(first) / WIDTH;
                for panel in first_panel..queries.panels() {
                    ahead.fetch(FETCHED_ROWS);
                    let operands = (&*packed, &*queries);
                    slopes.compute((s, products), operands, place, [key, panel, step]);
                }
                let m = WIDTH.min(place.n_keys - key);
                if key == 0 {
                    fetch_gradient(task, task.dq, (task.n_heads, head), first..end);
                }
                if is_last {
                    let heads = (task.n_kv_heads, task.kv_head);
                    fetch_gradient(task, task.dk, heads, key..key + m);
                    fetch_gradient(task, task.dv, heads, key..key + m);
                }
                sums.add_keys(products, slopes, queries, [key, m, first_panel]);
            }
            sums.add_queries(products, slopes, (packed, place), queries, first_key);
        }
    }
}

/// Asks for rows of a gradient that are written soon.
fn fetch_gradient<'a>(
    task: &BackwardHead<'a>,
    gradient: Shared<'a, f32>,
    (heads, head): (usize, usize),
    rows: Range<usize>,
) {
    for at in rows {
        prefetch(bytemuck::cast_slice(
            task.row_mut(gradient, heads, head, at),
        ));
    }
}
