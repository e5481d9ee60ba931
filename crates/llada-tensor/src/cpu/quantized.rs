//! Products with weights of small integers, see [`crate::quantize`].
//!
//! A weight lies in panels of 32 columns of 8-bit codes, one layout for every level, or of 4-bit
//! codes that are widened to 8 bits one panel at a time. The rows of the other operand are
//! rounded to 8 bits with a scale each; both are rotated first, see [`crate::quantize::rotate`]. The sums are exact, and become `f32` only at the end:
//! results are the same at every level, for any number of threads, and for any other rows.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use super::matmul::Context;
use super::panels::Matrix;
#[cfg(target_arch = "x86_64")]
use super::simd::amx;
use super::simd::int8::{self, BLOCK, Int8Kernel, OFFSET, STEP, STEP_BYTES, WIDTH, right_place};
use super::simd::{Kernel, Simd};
use super::tasks::TaskGrid;
use super::workers::Shared;
use crate::backend::{FillRows, PackedWeight};
use crate::quantize::{
    INT4_GROUP, ROTATION, int4_row_inline, int8_row_inline, low_byte, rotate, symmetric_scale,
};
use crate::storage::Buffer;
use crate::{CpuLevel, Error, Precision, Result};

/// Steps per block of k: 16 KiB of a right panel, half of a first-level cache.
const BLOCK_STEPS: usize = 8;
/// Left panels of a task: 256 rows.
const LEFT_PANELS: usize = 8;
/// Values of k whose products of bytes, 255 x 127 at most, fit a sum of 32 bits.
const MAX_K: usize = 1 << 16;
/// Bytes of the multipliers of a step: two groups of 32 values for 32 columns.
const STEP_MULTIPLIERS: usize = STEP / INT4_GROUP * WIDTH;

/// A weight of integers in panels.
#[derive(Debug)]
pub(super) struct QuantizedWeight {
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
        self.n
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

/// See [`crate::backend::Backend::pack`].
pub(super) fn pack(
    cx: Context<'_>,
    [n, k]: [usize; 2],
    precision: Precision,
    fill: FillRows<'_>,
) -> Result<Arc<dyn PackedWeight>> {
    if k > MAX_K {
        let what = "a row of integers is too long for sums of 32 bits";
        return Err(Error::InvalidArgument { op: "pack", what });
    }
    let is_int4 = precision == Precision::Int4;
    let (panels, steps) = (n.div_ceil(WIDTH), k.div_ceil(STEP));
    let panel_bytes = steps * STEP_BYTES / if is_int4 { 2 } else { 1 };
    let multiplier_bytes = if is_int4 { steps * STEP_MULTIPLIERS } else { 0 };
    let mut weight = QuantizedWeight {
        n,
        k,
        is_int4,
        codes: cx.pool.take(panels * panel_bytes),
        multipliers: cx.pool.take(panels * multiplier_bytes),
        scales: cx.pool.take(panels * WIDTH * 4),
        offsets: cx.pool.take(panels * WIDTH * 4),
    };
    let codes = Shared::new(weight.codes.bytes_mut());
    let multipliers = Shared::new(weight.multipliers.bytes_mut());
    let scales = Shared::new(weight.scales.f32s_mut());
    let offsets: &mut [i32] = bytemuck::cast_slice_mut(weight.offsets.bytes_mut());
    let offsets = Shared::new(offsets);
    cx.workers.for_each(panels, |panel| {
        let first = panel * WIDTH;
        let rows = first..(first + WIDTH).min(n);
        // Recycled: fresh memory would be cleared for every panel.
        let mut values = cx.pool.take(rows.len() * k * 4);
        fill(rows, values.f32s_mut());
        // SAFETY: the ranges of different panels do not overlap.
        #[expect(unsafe_code, reason = "panels are written in parallel")]
        let out = unsafe {
            PanelOut {
                codes: codes.range(panel * panel_bytes, panel_bytes),
                multipliers: multipliers.range(panel * multiplier_bytes, multiplier_bytes),
                scales: scales.range(first, WIDTH),
                offsets: offsets.range(first, WIDTH),
            }
        };
        let values = values.f32s();
        cx.level.run(PackPanel {
            values,
            k,
            is_int4,
            out,
        });
    });
    Ok(Arc::new(weight))
}

/// Where a panel of a weight goes.
struct PanelOut<'a> {
    codes: &'a mut [u8],
    multipliers: &'a mut [u8],
    scales: &'a mut [f32],
    offsets: &'a mut [i32],
}

/// Quantises up to 32 rows of `k` values.
struct PackPanel<'a> {
    values: &'a [f32],
    k: usize,
    is_int4: bool,
    out: PanelOut<'a>,
}

impl Kernel for PackPanel<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (k, out) = (self.k.next_multiple_of(STEP), self.out);
        let mut codes = vec![0_i8; k];
        let mut multipliers = vec![1_i8; k / INT4_GROUP];
        let mut rotated = vec![0.0_f32; k];
        if self.is_int4 {
            // The code of a value that is not there.
            out.codes.fill(0x88);
            out.multipliers.fill(1);
        } else {
            out.codes.fill(0);
        }
        out.scales.fill(0.0);
        out.offsets.fill(0);
        for (column, row) in self.values.chunks_exact(self.k.max(1)).enumerate() {
            rotated[..self.k].copy_from_slice(row);
            rotated[self.k..].fill(0.0);
            rotate_with(s, &mut rotated);
            let row = &rotated[..];
            let mut sum = 0_i32;
            if self.is_int4 {
                out.scales[column] = int4_row_inline(row, &mut codes, &mut multipliers);
                for (g, &m) in multipliers.iter().enumerate() {
                    out.multipliers[g * WIDTH + column] = m.cast_unsigned();
                }
                for (at, &code) in codes.iter().enumerate() {
                    let place = right_place(column, at % STEP);
                    let byte =
                        &mut out.codes[at / STEP * STEP_BYTES / 2 + place % (STEP_BYTES / 2)];
                    let nibble = (code + 8).cast_unsigned();
                    *byte = match place < STEP_BYTES / 2 {
                        true => *byte & 0xf0 | nibble,
                        false => *byte & 0x0f | nibble << 4,
                    };
                    sum += i32::from(code) * i32::from(multipliers[at / INT4_GROUP]);
                }
            } else {
                out.scales[column] = int8_row_inline(row, &mut codes);
                for (at, &code) in codes.iter().enumerate() {
                    let place = at / STEP * STEP_BYTES + right_place(column, at % STEP);
                    out.codes[place] = code.cast_unsigned();
                    sum += i32::from(code);
                }
            }
            out.offsets[column] = OFFSET * sum;
        }
    }
}

/// [`crate::quantize::rotate`] with vectors: the same sums.
#[inline(always)]
fn rotate_with<S: Simd>(s: S, values: &mut [f32]) {
    if S::LANES == 1 {
        return rotate(values);
    }
    // Room for the narrowest vectors.
    let mut x = [s.splat(0.0); ROTATION / 8];
    let n = ROTATION / S::LANES;
    for block in values.as_chunks_mut::<ROTATION>().0 {
        for (x, values) in x.iter_mut().zip(block.chunks_exact(S::LANES)) {
            *x = s.load(values, 0.0);
        }
        let mut half = n / 2;
        while half > 0 {
            for i in 0..n {
                if i & half == 0 {
                    (x[i], x[i + half]) = (s.add(x[i], x[i + half]), s.sub(x[i], x[i + half]));
                }
            }
            half /= 2;
        }
        for x in &mut x[..n] {
            if S::LANES > 8 {
                *x = butterfly::<S, 8>(s, *x);
            }
            *x = butterfly::<S, 4>(s, *x);
            *x = butterfly::<S, 2>(s, *x);
            *x = butterfly::<S, 1>(s, *x);
        }
        for (x, values) in x.iter().zip(block.chunks_exact_mut(S::LANES)) {
            s.store(values, s.mul(*x, s.splat(0.125)));
        }
    }
}

/// Lane `i` becomes the sum with lane `i ^ DISTANCE`, or for the upper of both the difference.
#[inline(always)]
fn butterfly<S: Simd, const DISTANCE: usize>(s: S, x: S::V) -> S::V {
    const { assert!(DISTANCE < 16) }
    let mut signs = [1.0; 16];
    for (i, sign) in signs.iter_mut().enumerate() {
        if i & DISTANCE != 0 {
            *sign = -1.0;
        }
    }
    // The product is exact, fused or not.
    s.fma(x, s.load(&signs, 0.0), s.exchange::<DISTANCE>(x))
}

/// Widens a panel of 4-bit codes: `(code - 8) * multiplier`.
struct Widen<'a> {
    codes: &'a [u8],
    multipliers: &'a [u8],
    out: &'a mut [i8],
}

impl Kernel for Widen<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        /// A row of a tile: 16 columns of 4 values.
        const ROW: usize = 64;
        let codes = self.codes.as_chunks::<{ STEP_BYTES / 2 }>().0;
        let multipliers = self.multipliers.as_chunks::<STEP_MULTIPLIERS>().0;
        let outs = self.out.as_chunks_mut::<STEP_BYTES>().0;
        for ((codes, multipliers), out) in codes.iter().zip(multipliers).zip(outs) {
            let (left, right) = out.split_at_mut(STEP_BYTES / 2);
            let rows = left.as_chunks_mut::<ROW>().0.iter_mut();
            let rows = rows.zip(right.as_chunks_mut::<ROW>().0);
            let mut each = [[0_i8; ROW]; 2];
            for (r, (codes, (left, right))) in
                codes.as_chunks::<ROW>().0.iter().zip(rows).enumerate()
            {
                // A group is eight rows of four values.
                if r % 8 == 0 {
                    let of_group = &multipliers[r / 8 * WIDTH..][..WIDTH];
                    for (half, each) in each.iter_mut().enumerate() {
                        for (i, m) in each.iter_mut().enumerate() {
                            *m = of_group[half * 16 + i / 4].cast_signed();
                        }
                    }
                }
                for i in 0..ROW {
                    left[i] = ((codes[i] & 15).cast_signed() - 8).wrapping_mul(each[0][i]);
                    right[i] = ((codes[i] >> 4).cast_signed() - 8).wrapping_mul(each[1][i]);
                }
            }
        }
    }
}

/// The rows of a left operand, rounded to 8 bits.
#[derive(Debug)]
pub(super) struct Left {
    panels: Buffer,
    /// `[M]`
    scales: Buffer,
}

/// Rounds the `m` rows of `a` to 8 bits, in panels.
pub(super) fn quantize_rows(cx: Context<'_>, a: Matrix<'_>, [m, k]: [usize; 2]) -> Left {
    const ROWS_PER_TASK: usize = 8;
    let panel_bytes = k.div_ceil(STEP) * STEP_BYTES;
    let mut left = Left {
        panels: cx.pool.take(m.div_ceil(WIDTH) * panel_bytes),
        scales: cx.pool.take(m * 4),
    };
    let panels = Shared::new(left.panels.bytes_mut());
    let scales = Shared::new(left.scales.f32s_mut());
    cx.workers.for_each(m.div_ceil(ROWS_PER_TASK), |task| {
        let first = task * ROWS_PER_TASK;
        let mut rotated = vec![0.0; k.next_multiple_of(STEP)];
        for row in first..(first + ROWS_PER_TASK).min(m) {
            let start = row / WIDTH * panel_bytes + row % WIDTH * STEP;
            // The row's pieces are a step of the panel apart; other rows lie between.
            // SAFETY: pieces of different rows do not overlap, and only this task has this row.
            #[expect(unsafe_code, reason = "rows are written in parallel")]
            let (out, scale) = unsafe {
                let out = |step: usize| panels.range(start + step * STEP_BYTES, STEP);
                (out, scales.range(row, 1))
            };
            let rotated = &mut rotated[..];
            scale[0] = cx.level.run(QuantizeRow {
                a,
                row,
                k,
                rotated,
                out,
            });
        }
    });
    left
}

struct QuantizeRow<'a, F> {
    a: Matrix<'a>,
    row: usize,
    k: usize,
    /// Room for the rotated row.
    rotated: &'a mut [f32],
    /// The bytes of one step.
    out: F,
}

impl<'b, F: Fn(usize) -> &'b mut [u8]> Kernel for QuantizeRow<'_, F> {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let data = &self.a.data[self.row * self.a.row_stride..];
        let values = &mut *self.rotated;
        match self.a.column_stride {
            1 => values[..self.k].copy_from_slice(&data[..self.k]),
            stride => {
                for (at, x) in values[..self.k].iter_mut().enumerate() {
                    *x = data[at * stride];
                }
            }
        }
        values[self.k..].fill(0.0);
        rotate_with(s, values);
        let (scale, inverse) = symmetric_scale(values);
        for (step, values) in values.as_chunks::<STEP>().0.iter().enumerate() {
            for (out, &x) in (self.out)(step).iter_mut().zip(values) {
                *out = low_byte(x * inverse) ^ 0x80;
            }
        }
        scale
    }
}

/// `c (+)= a wᵀ` for `m` rows and the columns of the weight from `start` on, a multiple
/// of 32.
pub(super) fn gemm(
    cx: Context<'_>,
    left: &Left,
    weight: &QuantizedWeight,
    start: usize,
    [m, n]: [usize; 2],
    c: &mut [f32],
    accumulate: bool,
) {
    let grid = TaskGrid::new(
        cx.workers.threads(),
        [m.div_ceil(WIDTH), n.div_ceil(WIDTH)],
        [LEFT_PANELS, 512 / WIDTH],
    );
    let kernel = Int8Kernel::of(cx.level);
    let c = Shared::new(c);
    cx.workers.for_each(grid.n_tasks(), |at| {
        let (a_range, b_range) = grid.task(at);
        let task = Task {
            kernel,
            level: cx.level,
            left,
            weight,
            a_range,
            b_range,
            first_panel: start / WIDTH,
            size: [m, n],
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
    a_range: Range<usize>,
    /// Panels of the weight, counted from `first_panel` on.
    b_range: Range<usize>,
    first_panel: usize,
    size: [usize; 2],
    accumulate: bool,
    c: Shared<'a, f32>,
}

impl Task<'_> {
    fn run(self) {
        let steps = self.weight.steps();
        let panel_bytes = steps * STEP_BYTES;
        let [m, n] = self.size;
        let mut sums = vec![[0_i32; BLOCK]; self.a_range.len()];
        let mut wide = vec![0_i8; if self.weight.is_int4 { panel_bytes } else { 0 }];
        let products = Products::new(self.kernel);
        let left = self.left.panels.bytes();
        for j in self.b_range.clone() {
            let panel = self.first_panel + j;
            let b = self.panel(panel, &mut wide);
            for at in (0..panel_bytes).step_by(BLOCK_STEPS * STEP_BYTES) {
                let block = at..(at + BLOCK_STEPS * STEP_BYTES).min(panel_bytes);
                for (i, sums) in self.a_range.clone().zip(&mut sums) {
                    let rows = (m - i * WIDTH).min(WIDTH);
                    let a = &left[i * panel_bytes..][block.clone()];
                    products.block(a, &b[block.clone()], rows, sums, at > 0);
                }
            }
            for (i, sums) in self.a_range.clone().zip(&sums) {
                let rows = (m - i * WIDTH).min(WIDTH);
                self.level.run(Finish {
                    sums,
                    offsets: bytemuck::cast_slice(self.weight.offsets.bytes()),
                    scales: self.weight.scales.f32s(),
                    first: panel * WIDTH,
                    row_scales: &self.left.scales.f32s()[i * WIDTH..][..rows],
                    columns: (n - j * WIDTH).min(WIDTH),
                    accumulate: self.accumulate,
                    c: self.c,
                    start: i * WIDTH * n + j * WIDTH,
                    ldc: n,
                });
            }
        }
    }

    /// The 8-bit codes of a panel.
    fn panel<'a>(&'a self, panel: usize, wide: &'a mut [i8]) -> &'a [i8] {
        let steps = self.weight.steps();
        let codes = self.weight.codes.bytes();
        if !self.weight.is_int4 {
            let len = steps * STEP_BYTES;
            return bytemuck::cast_slice(&codes[panel * len..][..len]);
        }
        let (len, multipliers) = (steps * STEP_BYTES / 2, steps * STEP_MULTIPLIERS);
        self.level.run(Widen {
            codes: &codes[panel * len..][..len],
            multipliers: &self.weight.multipliers.bytes()[panel * multipliers..][..multipliers],
            out: wide,
        });
        wide
    }
}

/// A kernel, with its tiles if it needs them.
struct Products {
    kernel: Int8Kernel,
    #[cfg(target_arch = "x86_64")]
    tiles: Option<amx::Tiles>,
}

impl Products {
    #[expect(unsafe_code, reason = "AMX tiles")]
    fn new(kernel: Int8Kernel) -> Self {
        Self {
            kernel,
            // SAFETY: the kernel is only chosen at a level with AMX, which detection has allowed.
            #[cfg(target_arch = "x86_64")]
            tiles: (kernel == Int8Kernel::Amx).then(|| unsafe { amx::Tiles::configure() }),
        }
    }

    /// See [`int8::block_scalar`].
    #[expect(unsafe_code, reason = "instructions that were detected")]
    fn block(&self, a: &[u8], b: &[i8], rows: usize, c: &mut [i32; BLOCK], accumulate: bool) {
        match self.kernel {
            Int8Kernel::Scalar => int8::block_scalar(a, b, rows, c, accumulate),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Int8Kernel::of` gives only kernels that were detected.
            Int8Kernel::Avx2 => unsafe { int8::block_avx2(a, b, rows, c, accumulate) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Int8Kernel::Vnni => unsafe { int8::block_vnni(a, b, rows, c, accumulate) },
            #[cfg(target_arch = "x86_64")]
            Int8Kernel::Amx => {
                assert!(
                    a.len() == b.len() && !a.is_empty(),
                    "panels of the same steps"
                );
                let tiles = self.tiles.as_ref().expect("configured for this kernel");
                let (a, b, steps) = (a.as_ptr(), b.as_ptr(), a.len() / STEP_BYTES);
                // SAFETY: the panels have as many steps, and the block has all sums.
                unsafe { tiles.block_int8(a, b, steps, c.as_mut_ptr(), accumulate) };
            }
        }
    }
}

/// Turns sums of integers into values: `c (+)= (sum - offset) * scale * row_scale`.
struct Finish<'a> {
    sums: &'a [i32; BLOCK],
    offsets: &'a [i32],
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
        let offsets = self.offsets[self.first..].first_chunk::<WIDTH>();
        let (Some(scales), Some(offsets)) = (scales, offsets) else {
            unreachable!("scales are padded to whole panels")
        };
        let sums = self.sums.as_chunks::<WIDTH>().0;
        for (r, (sums, &row_scale)) in sums.iter().zip(self.row_scales).enumerate() {
            let mut y = [0.0; WIDTH];
            for i in 0..WIDTH {
                y[i] = (sums[i] - offsets[i]) as f32 * (scales[i] * row_scale);
            }
            // SAFETY: blocks of different tasks share no element, and rows of one neither.
            #[expect(unsafe_code, reason = "disjoint blocks of the output")]
            let c = unsafe { self.c.range(self.start + r * self.ldc, self.columns) };
            match (self.accumulate, c.first_chunk_mut::<WIDTH>()) {
                (false, Some(c)) => *c = y,
                (true, Some(c)) => {
                    for i in 0..WIDTH {
                        c[i] += y[i];
                    }
                }
                (false, None) => c.copy_from_slice(&y[..self.columns]),
                (true, None) => {
                    for (c, y) in c.iter_mut().zip(y) {
                        *c += y;
                    }
                }
            }
        }
    }
}

/// See [`crate::backend::Backend::gemm_peak`].
pub(super) fn gemm_peak(cx: Context<'_>, rounds: usize) -> u64 {
    /// Steps that stay in the first-level cache.
    const STEPS: usize = 4;
    let kernel = Int8Kernel::of(cx.level);
    // Neither zeros nor ones: processors may be faster on those.
    let a: Vec<u8> = (0..STEPS * STEP_BYTES)
        .map(|i| (i * 37 % 251) as u8)
        .collect();
    let b: Vec<i8> = a
        .iter()
        .map(|&x| x.wrapping_mul(91).cast_signed())
        .collect();
    let threads = cx.workers.threads();
    cx.workers.for_each(threads, |_| {
        let products = Products::new(kernel);
        let mut sums = [0; BLOCK];
        for _ in 0..rounds {
            products.block(&a, &b, WIDTH, &mut sums, false);
        }
        std::hint::black_box(&sums);
    });
    (threads * rounds * 2 * BLOCK * STEPS * STEP) as u64
}
