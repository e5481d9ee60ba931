//! The left operand of a product with [`super::integers::IntegerBlocks`]: 8 bits with a scale for each
//! 32 values.

use super::integers::SMALLEST_GROUP;
use crate::cpu::context::Context;
use crate::cpu::simd::int8::blocks::{LEFT_GROUP, PADDING};
use crate::cpu::simd::{Kernel, Simd};
use crate::cpu::workers::Shared;
use crate::quantize::{low_byte, symmetric_scale};
use crate::storage::Buffer;

/// The rows of a left operand, rounded to 8 bits.
///
/// Values behind the last row are read by kernels of 16 rows, whose sums of them nobody takes.
#[derive(Debug)]
pub(in crate::cpu) struct Left {
    shape: Shape,
    /// `[row][k]`, [`Shape::stride`] bytes apart.
    codes: Buffer,
    /// `[k / 32][row]`
    scales: Buffer,
    /// `[k / 32][row]`: the sum of a group, times its scale.
    sums: Buffer,
    /// `[k / 16][row]`: the same of halves.
    half_sums: Buffer,
    /// `[k / 32][row]`, and `[k / 16][row]` of halves: the sum of a group.
    integers: Buffer,
    half_integers: Buffer,
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    rows: usize,
    k: usize,
}

impl Shape {
    /// Bytes between rows of codes: an odd number of lines, so that rows do not meet in the same few
    /// places of a cache.
    fn stride(self) -> usize {
        const LINE: usize = 64;
        (self.k.div_ceil(LINE) | 1) * LINE
    }
}

/// Rows of a task: their scales of a group are a line of memory.
const ROWS_PER_TASK: usize = 16;

impl Left {
    /// Rounds `rows` rows of `k` values, which `fill` writes.
    pub(in crate::cpu) fn new(
        cx: Context<'_>,
        [rows, k]: [usize; 2],
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Self {
        let shape = Shape { rows, k };
        let mut left = Self::empty(cx, shape);
        let out = left.out();
        cx.workers.for_each(rows.div_ceil(ROWS_PER_TASK), |task| {
            let mut values = vec![0.0; k];
            let mut rounded = Rounded::new(k);
            for row in task * ROWS_PER_TASK..((task + 1) * ROWS_PER_TASK).min(rows) {
                fill(row, &mut values);
                let values = &values[..];
                let out_of_row = &mut rounded;
                cx.level.run(RoundRow { values, out_of_row });
                // SAFETY: only this task has this row.
                #[expect(unsafe_code, reason = "rows are written in parallel")]
                unsafe {
                    out.write(row, &rounded);
                };
            }
        });
        left
    }

    /// An operand whose row `i` is row `rows[i]` of this one.
    pub(in crate::cpu) fn gather(&self, cx: Context<'_>, rows: &[usize]) -> Self {
        let shape = Shape {
            rows: rows.len(),
            k: self.shape.k,
        };
        let mut left = Self::empty(cx, shape);
        let out = left.out();
        let n_tasks = rows.len().div_ceil(ROWS_PER_TASK);
        cx.workers.for_each(n_tasks, |task| {
            let mut of_row = Rounded::new(shape.k);
            let first = task * ROWS_PER_TASK;
            let rows = rows[first..].iter().take(ROWS_PER_TASK);
            for (at, &row) in (first..).zip(rows) {
                self.read(row, &mut of_row);
                // SAFETY: only this task has this row.
                #[expect(unsafe_code, reason = "rows are written in parallel")]
                unsafe {
                    out.write(at, &of_row);
                };
            }
        });
        left
    }

    fn empty(cx: Context<'_>, shape: Shape) -> Self {
        let Shape { rows, k } = shape;
        let of_groups = |group: usize| cx.pool.take((k / group * rows + PADDING) * 4);
        Self {
            shape,
            codes: cx.pool.take((rows + PADDING) * shape.stride()),
            scales: of_groups(LEFT_GROUP),
            sums: of_groups(LEFT_GROUP),
            half_sums: of_groups(SMALLEST_GROUP),
            integers: of_groups(LEFT_GROUP),
            half_integers: of_groups(SMALLEST_GROUP),
        }
    }

    fn read(&self, row: usize, out: &mut Rounded) {
        let Shape { rows, k } = self.shape;
        let codes = &self.codes.bytes()[row * self.shape.stride()..][..k];
        out.codes.copy_from_slice(codes);
        copy_groups(&self.scales.f32s()[row..], rows, &mut out.scales);
        copy_groups(&self.sums.f32s()[row..], rows, &mut out.sums);
        copy_groups(&self.half_sums.f32s()[row..], rows, &mut out.half_sums);
        copy_groups(&integers(&self.integers)[row..], rows, &mut out.integers);
        copy_groups(
            &integers(&self.half_integers)[row..],
            rows,
            &mut out.half_integers,
        );
    }

    /// The rows from `row` on, over k from `start` on, with the sums of groups of 16 or 32.
    pub(super) fn rows(&self, [row, start]: [usize; 2], group: usize) -> LeftRows<'_> {
        let Shape { rows, .. } = self.shape;
        let from = |group: usize| start / group * rows + row;
        let (sums, of_group) = match group {
            SMALLEST_GROUP => (&self.half_sums, &self.half_integers),
            _ => (&self.sums, &self.integers),
        };
        let stride = self.shape.stride();
        let codes: &[i8] = bytemuck::cast_slice(self.codes.bytes());
        LeftRows {
            codes: (&codes[row * stride + start..], stride),
            scales: (&self.scales.f32s()[from(LEFT_GROUP)..], rows),
            sums: (&sums.f32s()[from(group)..], rows),
            integers: (&integers(of_group)[from(group)..], rows),
        }
    }

    fn out(&mut self) -> LeftOut<'_> {
        LeftOut {
            shape: self.shape,
            codes: Shared::new(self.codes.bytes_mut()),
            scales: Shared::new(self.scales.f32s_mut()),
            sums: Shared::new(self.sums.f32s_mut()),
            half_sums: Shared::new(self.half_sums.f32s_mut()),
            integers: Shared::new(bytemuck::cast_slice_mut(self.integers.bytes_mut())),
            half_integers: Shared::new(bytemuck::cast_slice_mut(self.half_integers.bytes_mut())),
        }
    }
}

fn integers(buffer: &Buffer) -> &[i32] {
    bytemuck::cast_slice(buffer.bytes())
}

/// Every value at a stride.
fn copy_groups<T: Copy>(from: &[T], stride: usize, out: &mut [T]) {
    for (out, &value) in out.iter_mut().zip(from.iter().step_by(stride)) {
        *out = value;
    }
}

/// Rows of a left operand, each part with its stride: see [`Operands`].
///
/// [`Operands`]: crate::cpu::simd::int8::blocks::Operands
pub(super) struct LeftRows<'a> {
    pub(super) codes: (&'a [i8], usize),
    pub(super) scales: (&'a [f32], usize),
    pub(super) sums: (&'a [f32], usize),
    pub(super) integers: (&'a [i32], usize),
}

/// A left operand that is written.
struct LeftOut<'a> {
    shape: Shape,
    codes: Shared<'a, u8>,
    scales: Shared<'a, f32>,
    sums: Shared<'a, f32>,
    half_sums: Shared<'a, f32>,
    integers: Shared<'a, i32>,
    half_integers: Shared<'a, i32>,
}

/// A row.
struct Rounded {
    codes: Vec<u8>,
    scales: Vec<f32>,
    sums: Vec<f32>,
    half_sums: Vec<f32>,
    integers: Vec<i32>,
    half_integers: Vec<i32>,
}

impl Rounded {
    fn new(k: usize) -> Self {
        Self {
            codes: vec![0; k],
            scales: vec![0.0; k / LEFT_GROUP],
            sums: vec![0.0; k / LEFT_GROUP],
            half_sums: vec![0.0; k / SMALLEST_GROUP],
            integers: vec![0; k / LEFT_GROUP],
            half_integers: vec![0; k / SMALLEST_GROUP],
        }
    }
}

impl LeftOut<'_> {
    /// # Safety
    /// Only the caller uses the row.
    #[expect(unsafe_code, reason = "rows are written in parallel")]
    unsafe fn write(&self, row: usize, of_row: &Rounded) {
        let Shape { rows, k } = self.shape;
        // SAFETY: different rows do not overlap; the row by the caller's promise.
        unsafe {
            write_groups(&self.scales, [row, rows], &of_row.scales);
            write_groups(&self.sums, [row, rows], &of_row.sums);
            write_groups(&self.half_sums, [row, rows], &of_row.half_sums);
            write_groups(&self.integers, [row, rows], &of_row.integers);
            write_groups(&self.half_integers, [row, rows], &of_row.half_integers);
            let codes = self.codes.range(row * self.shape.stride(), k);
            codes.copy_from_slice(&of_row.codes);
        }
    }
}

/// # Safety
/// Only the caller uses the places `first`, `first + stride` and so on.
#[expect(unsafe_code, reason = "rows are written in parallel")]
unsafe fn write_groups<T: Copy>(out: &Shared<'_, T>, [first, stride]: [usize; 2], values: &[T]) {
    for (group, &value) in values.iter().enumerate() {
        // SAFETY: by the caller's promise.
        unsafe { out.range(group * stride + first, 1)[0] = value };
    }
}

struct RoundRow<'a> {
    values: &'a [f32],
    out_of_row: &'a mut Rounded,
}

impl Kernel for RoundRow<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Rounded {
            codes,
            scales,
            sums,
            half_sums,
            integers,
            half_integers,
        } = self.out_of_row;
        let groups = self.values.as_chunks::<LEFT_GROUP>().0.iter();
        let of_groups = codes.as_chunks_mut::<LEFT_GROUP>().0.iter_mut();
        let out = of_groups
            .zip(&mut *scales)
            .zip(integers.iter_mut().zip(sums));
        for (values, ((codes, out_scale), (integer, sum))) in groups.zip(out) {
            let (scale, inverse) = symmetric_scale(values);
            *out_scale = scale;
            for (code, &x) in codes.iter_mut().zip(values) {
                *code = low_byte(x * inverse);
            }
            *integer = codes.iter().map(|&x| i32::from(x.cast_signed())).sum();
            *sum = *integer as f32 * scale;
        }
        let (halves, _) = codes.as_chunks::<SMALLEST_GROUP>();
        let out = half_integers.iter_mut().zip(half_sums);
        for (at, (half, (integer, sum))) in halves.iter().zip(out).enumerate() {
            *integer = half.iter().map(|&x| i32::from(x.cast_signed())).sum();
            *sum = *integer as f32 * scales[at / 2];
        }
    }
}
