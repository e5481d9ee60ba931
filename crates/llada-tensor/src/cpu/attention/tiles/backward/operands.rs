//! What a task of the gradient of attention reads, packed in its memory, and what it fetches.

use super::super::super::super::simd::tiles::{self, STEP_ELEMENTS, Side, WIDTH};
use super::super::super::super::simd::{Simd, prefetch};
use super::super::super::{BackwardHead, HeadRows, Place};
use super::super::{KEYS, Sizes, columns_of, pack_panel, rows_of};
use super::{QUERIES, SQUARE_WIDTH};

/// Sizes of a task, in panels and steps.
#[derive(Clone, Copy)]
pub(super) struct BlockSizes {
    pub(super) keys: usize,
    head: usize,
    /// Of a block of queries, and of keys.
    pub(super) block_queries: usize,
    pub(super) block_keys: usize,
}

impl BlockSizes {
    pub(super) fn of(place: &Place) -> Self {
        let Sizes { keys, head } = Sizes::of(place);
        Self {
            keys,
            head,
            block_queries: place.len.min(QUERIES).div_ceil(WIDTH),
            block_keys: keys.min(KEYS / WIDTH),
        }
    }

    /// Columns of a gradient.
    pub(super) fn width(self) -> usize {
        self.head * WIDTH
    }

    /// What the task takes of its memory.
    pub(super) fn bytes(self) -> usize {
        let of_keys = 3 * self.keys * self.head;
        let of_queries = 4 * self.block_queries * self.head;
        let of_slopes = (2 + self.block_keys) * self.block_queries;
        let steps = of_keys + of_queries + of_slopes;
        // Gradients, the scaled queries and a square.
        let rows = (2 * self.keys + 2 * self.block_queries) * WIDTH;
        let values = rows * self.width() + WIDTH * SQUARE_WIDTH;
        2 * steps * STEP_ELEMENTS + 4 * values
    }
}

/// Memory of unspecified contents, which is handed out in whole cache lines.
pub(super) struct Memory<'a>(pub(super) &'a mut [u8]);

impl<'a> Memory<'a> {
    pub(super) fn take<T: bytemuck::Pod>(&mut self, n: usize) -> &'a mut [T] {
        let (part, rest) = std::mem::take(&mut self.0).split_at_mut(n * size_of::<T>());
        self.0 = rest;
        bytemuck::cast_slice_mut(part)
    }

    pub(super) fn panels(&mut self, panels: usize, steps: usize) -> Panels<'a> {
        let data = self.take(panels * steps * STEP_ELEMENTS);
        Panels { data, steps }
    }
}

/// Panels of as many steps each, one after the other.
pub(super) struct Panels<'a> {
    data: &'a mut [u16],
    pub(super) steps: usize,
}

impl Panels<'_> {
    /// The first `n` rows of a head as the panels, k running over the head dimension.
    pub(super) fn pack_rows(&mut self, x: HeadRows<'_>, n: usize, side: Side) {
        let panels = self.data.chunks_exact_mut(self.steps * STEP_ELEMENTS);
        for (panel, out) in panels.enumerate().take(n.div_ceil(WIDTH)) {
            pack_panel(rows_of(x, n, panel * WIDTH), side, out);
        }
    }

    /// The columns of a head as the panels, k running over its first `n` rows.
    pub(super) fn pack_columns(&mut self, x: HeadRows<'_>, n: usize) {
        let panels = self.data.chunks_exact_mut(self.steps * STEP_ELEMENTS);
        for (panel, out) in panels.enumerate() {
            pack_panel(columns_of(x, n, panel * WIDTH), Side::Right, out);
        }
    }

    pub(super) fn part(&self, panel: usize, first_step: usize, steps: usize) -> &[u16] {
        let start = (panel * self.steps + first_step) * STEP_ELEMENTS;
        &self.data[start..start + steps * STEP_ELEMENTS]
    }

    pub(super) fn step_mut(&mut self, panel: usize, step: usize) -> &mut [u16] {
        let start = (panel * self.steps + step) * STEP_ELEMENTS;
        &mut self.data[start..start + STEP_ELEMENTS]
    }
}

/// Keys and values of the task, as rows of scores, and keys as columns of the queries' gradient.
pub(super) struct Packed<'a> {
    pub(super) keys: Panels<'a>,
    pub(super) values: Panels<'a>,
    pub(super) key_columns: Panels<'a>,
}

impl<'a> Packed<'a> {
    pub(super) fn new(sizes: BlockSizes, memory: &mut Memory<'a>) -> Self {
        Self {
            keys: memory.panels(sizes.keys, sizes.head),
            values: memory.panels(sizes.keys, sizes.head),
            key_columns: memory.panels(sizes.head, sizes.keys),
        }
    }

    pub(super) fn load(&mut self, task: &BackwardHead<'_>) {
        let n = task.place.n_keys;
        self.keys.pack_rows(task.k, n, Side::Left);
        self.values.pack_rows(task.v, n, Side::Left);
        self.key_columns.pack_columns(task.k, n);
    }
}

/// A block of queries of one head, as columns of scores and as what sums over queries.
pub(super) struct Queries<'a> {
    pub(super) first: usize,
    pub(super) n: usize,
    pub(super) q: Panels<'a>,
    pub(super) dy: Panels<'a>,
    pub(super) q_columns: Panels<'a>,
    pub(super) dy_columns: Panels<'a>,
    /// Of each query; infinite for one that sees no key, so that its probabilities are zero.
    pub(super) lse: [f32; QUERIES],
    pub(super) delta: [f32; QUERIES],
    /// The queries, scaled as in the forward pass.
    scaled: &'a mut [f32],
}

impl<'a> Queries<'a> {
    pub(super) fn new(sizes: BlockSizes, memory: &mut Memory<'a>) -> Self {
        let panels = sizes.block_queries;
        Self {
            first: 0,
            n: 0,
            q: memory.panels(panels, sizes.head),
            dy: memory.panels(panels, sizes.head),
            q_columns: memory.panels(sizes.head, panels),
            dy_columns: memory.panels(sizes.head, panels),
            lse: [f32::INFINITY; QUERIES],
            delta: [0.0; QUERIES],
            scaled: memory.take(panels * WIDTH * sizes.width()),
        }
    }

    pub(super) fn panels(&self) -> usize {
        self.n.div_ceil(WIDTH)
    }

    /// The last query of a panel.
    pub(super) fn last_of(&self, panel: usize) -> usize {
        self.first + self.n.min((panel + 1) * WIDTH) - 1
    }

    #[inline(always)]
    pub(super) fn load<S: Simd>(
        &mut self,
        s: S,
        task: &BackwardHead<'_>,
        head: usize,
        first: usize,
    ) {
        let place = task.place;
        let e = place.head_dim;
        let n = QUERIES.min(place.len - first);
        (self.first, self.n) = (first, n);
        let of_block = |data| HeadRows {
            first: place.first + first,
            ..place.rows(data, task.n_heads, head)
        };
        let (q, y, dy) = (of_block(task.q), of_block(task.y), of_block(task.dy));
        for (i, row) in self.scaled.chunks_exact_mut(e).enumerate().take(n) {
            scale_into(s, q.row(i), place.scale(), row);
        }
        let scaled = HeadRows {
            data: self.scaled,
            width: e,
            column: 0,
            first: 0,
            head_dim: e,
        };
        self.q.pack_rows(scaled, n, Side::Right);
        self.q_columns.pack_columns(scaled, n);
        self.dy.pack_rows(dy, n, Side::Right);
        self.dy_columns.pack_columns(dy, n);
        self.lse.fill(f32::INFINITY);
        self.delta.fill(0.0);
        for i in 0..n {
            let lse = task.lse[(place.first + first + i) * task.n_heads + head];
            if lse > f32::NEG_INFINITY {
                self.lse[i] = lse;
            }
            // SAFETY: the module is only used at levels with AVX512-BF16.
            #[expect(unsafe_code, reason = "AVX-512 rounding")]
            let delta = unsafe { tiles::dot_rounded(dy.row(i), y.row(i)) };
            self.delta[i] = delta;
        }
    }
}

/// Rows that are read soon: they are far apart, no hardware prefetcher follows them.
#[derive(Default)]
pub(super) struct Ahead<'a> {
    parts: [Option<(HeadRows<'a>, usize)>; 5],
    part: usize,
    row: usize,
}

impl<'a> Ahead<'a> {
    /// Those of a block of queries.
    pub(super) fn block(task: &BackwardHead<'a>, head: usize, first: usize) -> Self {
        let place = task.place;
        let n = QUERIES.min(place.len - first);
        let part = |data| {
            let rows = HeadRows {
                first: place.first + first,
                ..place.rows(data, task.n_heads, head)
            };
            Some((rows, n))
        };
        Self {
            parts: [None, None, part(task.q), part(task.dy), part(task.y)],
            part: 0,
            row: 0,
        }
    }

    /// Those of the keys and of the first block of queries of a task.
    pub(super) fn task(task: &BackwardHead<'a>) -> Self {
        let mut ahead = Self::block(task, task.heads().start, 0);
        let n = task.place.n_keys.min(KEYS);
        ahead.parts[0] = Some((task.k, n));
        ahead.parts[1] = Some((task.v, n));
        ahead
    }

    /// Asks for the next `n` rows.
    pub(super) fn fetch(&mut self, n: usize) {
        for _ in 0..n {
            while let Some(part) = self.parts.get(self.part) {
                match part {
                    Some((rows, n)) if self.row < *n => {
                        prefetch(bytemuck::cast_slice(rows.row(self.row)));
                        self.row += 1;
                        break;
                    }
                    _ => (self.part, self.row) = (self.part + 1, 0),
                }
            }
        }
    }
}

/// `y = factor x`, for as many values as `y` has.
#[inline(always)]
pub(super) fn scale_into<S: Simd>(s: S, x: &[f32], factor: f32, y: &mut [f32]) {
    let x = &x[..y.len()];
    for at in (0..y.len()).step_by(S::LANES) {
        let scaled = s.mul(s.load(&x[at..], 0.0), s.splat(factor));
        s.store(&mut y[at..], scaled);
    }
}
