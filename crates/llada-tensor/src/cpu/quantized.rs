//! Products with weights of small integers, see [`crate::quantize`].
//!
//! A weight lies in panels of 32 columns of 8-bit codes, one layout for every level, or of 4-bit
//! codes, which AVX2 multiplies as they are; other levels widen them to 8 bits one panel at a time.
//! The rows of the other operand are rounded to 8 bits with a scale each; both are rotated first, see
//! [`crate::quantize::rotate`]. The sums are exact, and become `f32` only at the end:
//! results are the same at every level, for any number of threads, and for any other rows.

mod pack;
mod widen;

use std::any::Any;
use std::ops::Range;

use super::context::Context;
use super::panels::{Matrix, panel_rows};
#[cfg(target_arch = "x86_64")]
use super::simd::amx;
use super::simd::int8::{
    self, Ahead, BLOCK, Int8Kernel, STEP, STEP_BYTES, STEP_MULTIPLIERS, WIDTH,
};
use super::simd::{Kernel, Simd};
use super::tasks::{Part, TaskGrid};
use super::workers::Shared;
use crate::CpuLevel;
use crate::backend::PackedWeight;
use crate::quantize::{low_byte, symmetric_scale};
use crate::storage::{Buffer, Scratch};
use pack::rotate_with;
pub(super) use pack::{Source, pack, quantize_rows};
use widen::Widen;

/// Rows of a left panel, columns of a panel of the weight.
pub(super) const PANEL: usize = WIDTH;
/// Steps per block of k: 16 KiB of a right panel, half of a first-level cache.
const BLOCK_STEPS: usize = 8;
/// Left panels of a task: 256 rows.
const LEFT_PANELS: usize = 8;

/// A weight of integers in panels, or the weights of several experts, each of which begins a panel.
#[derive(Debug)]
pub(super) struct QuantizedWeight {
    pub(super) experts: usize,
    /// Rows of an expert.
    n: usize,
    k: usize,
    /// 4 bits instead of 8.
    is_int4: bool,
    /// Codes: `[panel][step]`, 2 KiB a step in the layout of [`int8`]; of 4-bit codes 1 KiB, where
    /// byte `i` holds the codes of bytes `i` (low bits) and `1024 + i` of the wide layout, plus 8.
    codes: Buffer,
    /// Of 4-bit codes: `[panel][step][group][column]`.
    multipliers: Buffer,
    /// `[column]`, padded to whole panels, as the next.
    scales: Buffer,
    /// `[column]`: what 128 added to each value of the left operand adds to a sum.
    offsets: Buffer,
}

impl PackedWeight for QuantizedWeight {
    fn n(&self) -> usize {
        self.experts * self.n
    }
    fn k(&self) -> usize {
        self.k
    }
    fn bytes(&self) -> usize {
        [&self.codes, &self.multipliers, &self.scales, &self.offsets]
            .iter()
            .map(|buffer| buffer.bytes().len())
            .sum()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl QuantizedWeight {
    fn steps(&self) -> usize {
        self.k.div_ceil(STEP)
    }
}

/// The rows of a left operand, rounded to 8 bits.
#[derive(Debug)]
pub(super) struct Left {
    panels: Buffer,
    /// `[panel][row]`
    scales: Buffer,
    panel_bytes: usize,
}

impl Left {
    /// Rounds the `m` rows of `a` to 8 bits, in panels.
    pub(super) fn new(cx: Context<'_>, a: Matrix<'_>, [m, k]: [usize; 2]) -> Self {
        Self::of_rows(cx, &panel_rows(WIDTH, [m]), k, |row, out| {
            a.copy_row(row, out);
        })
    }

    /// Rounds rows of `k` values, which `fill` writes, to 8 bits, in panels of the given rows.
    pub(super) fn of_rows(
        cx: Context<'_>,
        panels: &[Range<usize>],
        k: usize,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Self {
        let mut left = Self::empty(cx, panels.len(), k.div_ceil(STEP) * STEP_BYTES);
        let out = left.out();
        for_each_run(cx, panels, |place, rows| {
            let mut values = Scratch::new(k.next_multiple_of(STEP));
            for (place, row) in (place..).zip(rows) {
                fill(row, &mut values[..k]);
                values[k..].fill(0.0);
                // SAFETY: only this task has this row.
                #[expect(unsafe_code, reason = "rows are written in parallel")]
                let (piece, scale) = unsafe { (|step| out.piece(place, step), out.scale(place)) };
                let values = &mut values[..];
                *scale = cx.level.run(QuantizeRow { values, piece });
            }
        });
        left
    }

    /// An operand whose row `i` is row `rows[i]` of this one, in panels of the given `i`.
    pub(super) fn gather(&self, cx: Context<'_>, panels: &[Range<usize>], rows: &[usize]) -> Self {
        let (codes, scales) = (self.panels.bytes(), self.scales.f32s());
        let mut left = Self::empty(cx, panels.len(), self.panel_bytes);
        let out = left.out();
        for_each_run(cx, panels, |place, run| {
            for (place, &from) in (place..).zip(&rows[run]) {
                let start = from / WIDTH * self.panel_bytes + from % WIDTH * STEP;
                // SAFETY: only this task has this row.
                #[expect(unsafe_code, reason = "rows are written in parallel")]
                let (piece, scale) = unsafe { (|step| out.piece(place, step), out.scale(place)) };
                *scale = scales[from];
                for step in 0..self.panel_bytes / STEP_BYTES {
                    piece(step).copy_from_slice(&codes[start + step * STEP_BYTES..][..STEP]);
                }
            }
        });
        left
    }

    fn empty(cx: Context<'_>, panels: usize, panel_bytes: usize) -> Self {
        Self {
            panels: cx.pool.take(panels * panel_bytes),
            scales: cx.pool.take(panels * WIDTH * 4),
            panel_bytes,
        }
    }

    fn out(&mut self) -> LeftOut<'_> {
        LeftOut {
            panels: Shared::new(self.panels.bytes_mut()),
            scales: Shared::new(self.scales.f32s_mut()),
            panel_bytes: self.panel_bytes,
        }
    }
}

/// Runs `task` on all rows, some of one panel at a time: the place of the first one among the rows of
/// all panels, and which they are.
fn for_each_run(
    cx: Context<'_>,
    panels: &[Range<usize>],
    task: impl Fn(usize, Range<usize>) + Sync,
) {
    const ROWS_PER_TASK: usize = 8;
    let runs_of = |(panel, rows): (usize, &Range<usize>)| {
        let Range { start, end } = *rows;
        let run = move |at: usize| {
            let place = panel * WIDTH + at - start;
            (place, at..(at + ROWS_PER_TASK).min(end))
        };
        (start..end).step_by(ROWS_PER_TASK).map(run)
    };
    let runs: Vec<_> = panels.iter().enumerate().flat_map(runs_of).collect();
    cx.workers.for_each(runs.len(), |at| {
        let (place, rows) = runs[at].clone();
        task(place, rows);
    });
}

/// A left operand that is written. A row's pieces are a step of the panel apart; other rows lie between.
struct LeftOut<'a> {
    panels: Shared<'a, u8>,
    scales: Shared<'a, f32>,
    panel_bytes: usize,
}

#[expect(unsafe_code, reason = "rows are written in parallel")]
impl<'a> LeftOut<'a> {
    /// The bytes of one step of a row.
    ///
    /// # Safety
    /// Only the caller uses the row.
    unsafe fn piece(&self, place: usize, step: usize) -> &'a mut [u8] {
        let start = place / WIDTH * self.panel_bytes + place % WIDTH * STEP;
        // SAFETY: pieces of different rows do not overlap; the row by the caller's promise.
        unsafe { self.panels.range(start + step * STEP_BYTES, STEP) }
    }

    /// # Safety
    /// As [`Self::piece`].
    unsafe fn scale(&self, place: usize) -> &'a mut f32 {
        // SAFETY: as above.
        unsafe { &mut self.scales.range(place, 1)[0] }
    }
}

struct QuantizeRow<'a, F> {
    /// The row, which is rotated in place.
    values: &'a mut [f32],
    /// The bytes of one step.
    piece: F,
}

impl<'b, F: Fn(usize) -> &'b mut [u8]> Kernel for QuantizeRow<'_, F> {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let values = self.values;
        rotate_with(s, values);
        let (scale, inverse) = symmetric_scale(values);
        for (step, values) in values.as_chunks::<STEP>().0.iter().enumerate() {
            for (out, &x) in (self.piece)(step).iter_mut().zip(values) {
                *out = low_byte(x * inverse) ^ 0x80;
            }
        }
        scale
    }
}

/// `c (+)= a wᵀ` for each part of the product; `n` columns.
pub(super) fn gemm(
    cx: Context<'_>,
    left: &Left,
    weight: &QuantizedWeight,
    (parts, n): (&[Part], usize),
    c: &mut [f32],
    accumulate: bool,
) {
    let (panel, chunks) = ([WIDTH; 2], [LEFT_PANELS, 512 / WIDTH]);
    let grid = TaskGrid::new(cx.workers.threads(), parts, n, panel, chunks);
    let kernel = Int8Kernel::of(cx.level);
    let c = Shared::new(c);
    cx.workers.for_each(grid.n_tasks(), |at| {
        let (part, a_range, b_range) = grid.task(at);
        let task = Task {
            kernel,
            level: cx.level,
            left,
            weight,
            part,
            a_range,
            b_range,
            n,
            accumulate,
            c,
        };
        task.run();
    });
}

/// One task: some left panels by some panels of the weight, over all of k.
struct Task<'a> {
    kernel: Int8Kernel,
    level: CpuLevel,
    left: &'a Left,
    weight: &'a QuantizedWeight,
    part: Part,
    /// Left panels, counted from those of the part on.
    a_range: Range<usize>,
    /// Panels of the weight, likewise.
    b_range: Range<usize>,
    /// Columns of the output.
    n: usize,
    accumulate: bool,
    c: Shared<'a, f32>,
}

impl Task<'_> {
    fn run(self) {
        let steps = self.weight.steps();
        let panel_bytes = steps * STEP_BYTES;
        let Part {
            left_panel,
            m,
            right_panel,
            first_row,
        } = self.part;
        let n = self.n;
        let mut products = Products::new(self.kernel);
        let takes_int4 = self.weight.is_int4 && products.takes_int4();
        let is_widened = self.weight.is_int4 && !takes_int4;
        let block_bytes = match products.takes_all_of_k() && !is_widened {
            true => panel_bytes,
            false => panel_bytes.min(BLOCK_STEPS * STEP_BYTES),
        };
        let mut wide = Scratch::new(if is_widened { block_bytes } else { 0 });
        let mut sums = Scratch::<[i32; BLOCK]>::new(self.a_range.len());
        let left = self.left.panels.bytes();
        let offsets = bytemuck::cast_slice(self.weight.offsets.bytes());
        let keeps_offset = takes_int4 || products.keeps_offset();
        for j in self.b_range.clone() {
            let panel = right_panel + j;
            for at in (0..panel_bytes).step_by(block_bytes.max(1)) {
                let block = at..(at + block_bytes).min(panel_bytes);
                let b = match takes_int4 {
                    true => &[][..],
                    false => self.wide_codes(panel, &block, &mut wide),
                };
                for (place, (i, sums)) in self.a_range.clone().zip(sums.iter_mut()).enumerate() {
                    let rows = (m - i * WIDTH).min(WIDTH);
                    let a = &left[(left_panel + i) * panel_bytes..][block.clone()];
                    if takes_int4 {
                        let right = self.codes(panel, &block);
                        products.block_int4(a, right, rows, sums, at > 0);
                    } else {
                        let mut ahead = self.ahead(panel, block.end);
                        // Kernels of vectors fetch it all each time, which costs them less.
                        if products.takes_all_of_k() {
                            let place = (place, self.a_range.len());
                            ahead = ahead.share(place, b.len() / STEP_BYTES);
                        }
                        products.block(a, b, rows, sums, (at > 0, ahead));
                    }
                    if block.end < panel_bytes {
                        continue;
                    }
                    let first_scale = (left_panel + i) * WIDTH;
                    self.level.run(Finish {
                        sums,
                        offsets: keeps_offset.then_some(offsets),
                        scales: self.weight.scales.f32s(),
                        first: panel * WIDTH,
                        row_scales: &self.left.scales.f32s()[first_scale..][..rows],
                        columns: (n - j * WIDTH).min(WIDTH),
                        accumulate: self.accumulate,
                        c: self.c,
                        start: (first_row + i * WIDTH) * n + j * WIDTH,
                        ldc: n,
                    });
                }
            }
        }
    }

    /// What is read after the block of k that ends at byte `end` of a panel of 8-bit codes.
    fn ahead(&self, panel: usize, end: usize) -> Ahead {
        let at = panel * self.weight.steps() * STEP_BYTES + end;
        let (at, step_bytes) = match self.weight.is_int4 {
            true => (at / 2, STEP_BYTES / 2),
            false => (at, STEP_BYTES),
        };
        let data = self.weight.codes.bytes().as_ptr().wrapping_add(at);
        Ahead { data, step_bytes }
    }

    /// 4-bit codes and multipliers of a panel, for a range of bytes of 8-bit codes.
    fn codes(&self, panel: usize, block: &Range<usize>) -> (&[u8], &[u8]) {
        let start = panel * self.weight.steps() * STEP_BYTES + block.start;
        let codes = &self.weight.codes.bytes()[start / 2..][..block.len() / 2];
        let of_steps = |bytes: usize| bytes / STEP_BYTES * STEP_MULTIPLIERS;
        let multipliers = &self.weight.multipliers.bytes()[of_steps(start)..];
        (codes, &multipliers[..of_steps(block.len())])
    }

    /// The 8-bit codes of a range of bytes of a panel.
    fn wide_codes<'a>(
        &'a self,
        panel: usize,
        block: &Range<usize>,
        wide: &'a mut [i8],
    ) -> &'a [i8] {
        if !self.weight.is_int4 {
            let start = panel * self.weight.steps() * STEP_BYTES + block.start;
            return bytemuck::cast_slice(&self.weight.codes.bytes()[start..][..block.len()]);
        }
        let (codes, multipliers) = self.codes(panel, block);
        let out = &mut wide[..block.len()];
        self.level.run(Widen {
            codes,
            multipliers,
            out,
        });
        out
    }
}

/// A kernel, with its tiles or its scratch if it needs them.
struct Products {
    kernel: Int8Kernel,
    /// Of [`Int8Kernel::Avx2`].
    #[cfg(target_arch = "x86_64")]
    rows_of_a: Vec<u8>,
    #[cfg(target_arch = "x86_64")]
    tiles: Option<amx::Tiles>,
}

impl Products {
    #[expect(unsafe_code, reason = "AMX tiles")]
    fn new(kernel: Int8Kernel) -> Self {
        Self {
            kernel,
            #[cfg(target_arch = "x86_64")]
            rows_of_a: Vec::new(),
            // SAFETY: the kernel is only chosen at a level with AMX, which detection has allowed.
            #[cfg(target_arch = "x86_64")]
            tiles: (kernel == Int8Kernel::Amx).then(|| unsafe { amx::Tiles::configure() }),
        }
    }

    /// Whether 4-bit codes are multiplied as they are, by [`Self::block_int4`].
    fn takes_int4(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.kernel == Int8Kernel::Avx2;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Whether [`Self::block`] multiplies the left operand with its offset.
    fn keeps_offset(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.kernel != Int8Kernel::Avx2;
        #[cfg(not(target_arch = "x86_64"))]
        true
    }

    /// Whether a block is best all of k: tiles keep sums only within a block, and have no use for a
    /// right operand in the first-level cache.
    fn takes_all_of_k(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.kernel == Int8Kernel::Amx;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// See [`int8::avx2::block_int4`].
    #[expect(unsafe_code, reason = "instructions that were detected")]
    fn block_int4(
        &self,
        a: &[u8],
        right: (&[u8], &[u8]),
        rows: usize,
        c: &mut [i32; BLOCK],
        accumulate: bool,
    ) {
        match self.kernel {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Int8Kernel::of` gives only kernels that were detected.
            Int8Kernel::Avx2 => unsafe { int8::avx2::block_int4(a, right, rows, c, accumulate) },
            _ => unreachable!("`takes_int4` says so"),
        }
    }

    /// See [`int8::block_scalar`].
    #[expect(unsafe_code, reason = "instructions that were detected")]
    fn block(
        &mut self,
        a: &[u8],
        b: &[i8],
        rows: usize,
        c: &mut [i32; BLOCK],
        (accumulate, ahead): (bool, Ahead),
    ) {
        match self.kernel {
            Int8Kernel::Scalar => int8::block_scalar(a, b, rows, c, accumulate),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Int8Kernel::of` gives only kernels that were detected.
            Int8Kernel::Avx2 => unsafe {
                int8::avx2::block(a, b, rows, c, accumulate, ahead, &mut self.rows_of_a);
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Int8Kernel::Vnni => unsafe { int8::block_vnni(a, b, rows, c, accumulate, ahead) },
            #[cfg(target_arch = "x86_64")]
            Int8Kernel::Amx => {
                assert!(
                    a.len() == b.len() && !a.is_empty(),
                    "panels of the same steps"
                );
                let tiles = self.tiles.as_ref().expect("configured for this kernel");
                let (a, b, steps) = (a.as_ptr(), b.as_ptr(), a.len() / STEP_BYTES);
                // SAFETY: the panels have as many steps, and the block has all sums.
                unsafe { tiles.block_int8(a, b, steps, c.as_mut_ptr(), (accumulate, ahead)) };
            }
        }
    }
}

/// Turns sums of integers into values: `c (+)= (sum - offset) * scale * row_scale`.
struct Finish<'a> {
    sums: &'a [i32; BLOCK],
    /// `None`: the sums have none.
    offsets: Option<&'a [i32]>,
    scales: &'a [f32],
    /// First column of the weight's panel.
    first: usize,
    row_scales: &'a [f32],
    columns: usize,
    accumulate: bool,
    c: Shared<'a, f32>,
    start: usize,
    ldc: usize,
}

impl Kernel for Finish<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let scales = self.scales[self.first..].first_chunk::<WIDTH>();
        let offsets = match self.offsets {
            Some(offsets) => offsets[self.first..].first_chunk::<WIDTH>(),
            None => Some(&[0; WIDTH]),
        };
        let (Some(scales), Some(offsets)) = (scales, offsets) else {
            unreachable!("scales are padded to whole panels")
        };
        let sums = self.sums.as_chunks::<WIDTH>().0;
        for (r, (sums, &row_scale)) in sums.iter().zip(self.row_scales).enumerate() {
            let y = |i: usize| (sums[i] - offsets[i]) as f32 * (scales[i] * row_scale);
            // SAFETY: blocks of different tasks share no element, and rows of one neither.
            #[expect(unsafe_code, reason = "disjoint blocks of the output")]
            let c = unsafe { self.c.range(self.start + r * self.ldc, self.columns) };
            // A whole row apart, for loops without ends of their own.
            match (self.accumulate, c.first_chunk_mut::<WIDTH>()) {
                (false, Some(c)) => (0..WIDTH).for_each(|i| c[i] = y(i)),
                (true, Some(c)) => (0..WIDTH).for_each(|i| c[i] += y(i)),
                (false, None) => c.iter_mut().enumerate().for_each(|(i, c)| *c = y(i)),
                (true, None) => c.iter_mut().enumerate().for_each(|(i, c)| *c += y(i)),
            }
        }
    }
}

/// See [`crate::backend::Backend::gemm_peak`].
pub(super) fn gemm_peak(cx: Context<'_>, rounds: usize) -> u64 {
    let kernel = Int8Kernel::of(cx.level);
    // As many as stay in the first-level cache, which is larger where there are tiles: there the sums
    // of a block take as long to store as several products.
    let steps = match kernel {
        #[cfg(target_arch = "x86_64")]
        Int8Kernel::Amx => 10,
        _ => 4,
    };
    // Neither zeros nor ones: processors may be faster on those.
    let mut a = Scratch::<u8>::new(steps * STEP_BYTES);
    let mut b = Scratch::<i8>::new(steps * STEP_BYTES);
    for (i, (a, b)) in a.iter_mut().zip(b.iter_mut()).enumerate() {
        *a = (i * 37 % 251) as u8;
        *b = a.wrapping_mul(91).cast_signed();
    }
    let threads = cx.workers.threads();
    cx.workers.for_each(threads, |_| {
        let mut products = Products::new(kernel);
        let (data, step_bytes) = (a.as_ptr(), STEP_BYTES);
        let ahead = match products.takes_all_of_k() {
            true => Ahead::NONE,
            false => Ahead { data, step_bytes },
        };
        let mut sums = Scratch::<[i32; BLOCK]>::new(1);
        for _ in 0..rounds {
            products.block(&a, &b, WIDTH, &mut sums[0], (false, ahead));
        }
        std::hint::black_box(&sums);
    });
    (threads * rounds * 2 * BLOCK * steps * STEP) as u64
}
