//! Weights of integers: from values, or from codes that a checkpoint holds.

use std::sync::Arc;

use super::super::context::Context;
use super::super::panels::panel_rows;
use super::super::simd::int8::{OFFSET, STEP, STEP_BYTES, STEP_MULTIPLIERS, WIDTH, right_place};
use super::super::simd::{Kernel, Simd};
use super::super::workers::Shared;
use super::QuantizedWeight;
use crate::backend::{FillCodes, FillRows, PackedWeight};
use crate::quantize::{INT4_GROUP, ROTATION, RowCodes, groups, int4_row, int8_row, padded, rotate};
use crate::{Error, Precision, Result};

/// Values of k whose products of bytes, 255 x 127 at most, fit a sum of 32 bits.
const MAX_K: usize = 1 << 16;

/// Where a weight comes from.
#[derive(Clone, Copy)]
pub(in super::super) enum Source<'a> {
    Values(FillRows<'a>),
    Codes(FillCodes<'a>),
}

/// See [`crate::backend::Backend::pack`] and [`crate::backend::Backend::pack_codes`]; the shape is
/// `[experts, N, K]`.
pub(in super::super) fn pack(
    cx: Context<'_>,
    [experts, n, k]: [usize; 3],
    precision: Precision,
    source: Source<'_>,
) -> Result<Arc<dyn PackedWeight>> {
    if k > MAX_K {
        let what = "a row of integers is too long for sums of 32 bits";
        return Err(Error::InvalidArgument { op: "pack", what });
    }
    let is_int4 = precision == Precision::Int4;
    let rows = panel_rows(WIDTH, (0..experts).map(|_| n));
    let (panels, steps) = (rows.len(), k.div_ceil(STEP));
    let panel_bytes = steps * STEP_BYTES / if is_int4 { 2 } else { 1 };
    let multiplier_bytes = if is_int4 { steps * STEP_MULTIPLIERS } else { 0 };
    let mut weight = QuantizedWeight {
        experts,
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
    let groups = groups(precision, k);
    cx.workers.for_each(panels, |panel| {
        let (first, rows) = (panel * WIDTH, rows[panel].clone());
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
        out.scales.fill(0.0);
        let mut panel_codes = vec![0_i8; rows.len() * padded(k)];
        let mut panel_multipliers = vec![1_i8; rows.len() * groups];
        let row_codes = RowCodes {
            codes: &mut panel_codes,
            multipliers: &mut panel_multipliers,
            scales: &mut out.scales[..rows.len()],
        };
        match source {
            Source::Codes(fill) => fill(rows, row_codes),
            Source::Values(fill) => {
                // Recycled: fresh memory would be cleared for every panel.
                let mut values = cx.pool.take(rows.len() * k * 4);
                fill(rows, values.f32s_mut());
                cx.level.run(Quantize {
                    values: values.f32s(),
                    k,
                    is_int4,
                    out: row_codes,
                });
            }
        }
        lay_out(&panel_codes, &panel_multipliers, padded(k), is_int4, out);
    });
    Ok(Arc::new(weight))
}

/// See [`crate::backend::Backend::quantize_rows`].
pub(in super::super) fn quantize_rows(
    cx: Context<'_>,
    precision: Precision,
    values: &[f32],
    k: usize,
    out: RowCodes<'_>,
) {
    const ROWS_PER_TASK: usize = 8;
    let is_int4 = precision == Precision::Int4;
    let groups = groups(precision, k);
    let n = out.scales.len();
    let codes = Shared::new(out.codes);
    let multipliers = Shared::new(out.multipliers);
    let scales = Shared::new(out.scales);
    cx.workers.for_each(n.div_ceil(ROWS_PER_TASK), |task| {
        let first = task * ROWS_PER_TASK;
        let rows = ROWS_PER_TASK.min(n - first);
        // SAFETY: the ranges of different tasks do not overlap.
        #[expect(unsafe_code, reason = "rows are written in parallel")]
        let out = unsafe {
            RowCodes {
                codes: codes.range(first * padded(k), rows * padded(k)),
                multipliers: multipliers.range(first * groups, rows * groups),
                scales: scales.range(first, rows),
            }
        };
        cx.level.run(Quantize {
            values: &values[first * k..(first + rows) * k],
            k,
            is_int4,
            out,
        });
    });
}

/// Rotates and quantises rows of `k` values.
struct Quantize<'a> {
    values: &'a [f32],
    k: usize,
    is_int4: bool,
    out: RowCodes<'a>,
}

impl Kernel for Quantize<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (k, out) = (padded(self.k), self.out);
        let mut rotated = vec![0.0_f32; k];
        for (at, scale) in out.scales.iter_mut().enumerate() {
            rotated[..self.k].copy_from_slice(&self.values[at * self.k..][..self.k]);
            rotated[self.k..].fill(0.0);
            rotate_with(s, &mut rotated);
            let codes = &mut out.codes[at * k..][..k];
            *scale = if self.is_int4 {
                let groups = k / INT4_GROUP;
                let multipliers = &mut out.multipliers[at * groups..][..groups];
                int4_row(&rotated, codes, multipliers)
            } else {
                int8_row(&rotated, codes)
            };
        }
    }
}

/// Where a panel of a weight goes.
struct PanelOut<'a> {
    codes: &'a mut [u8],
    multipliers: &'a mut [u8],
    scales: &'a mut [f32],
    offsets: &'a mut [i32],
}

/// Puts the codes of up to 32 rows of `k` in their places.
fn lay_out(codes: &[i8], multipliers: &[i8], k: usize, is_int4: bool, out: PanelOut<'_>) {
    // The code of a value that is not there.
    out.codes.fill(if is_int4 { 0x88 } else { 0 });
    out.multipliers.fill(1);
    out.offsets.fill(0);
    let groups = k / INT4_GROUP;
    for (column, codes) in codes.chunks_exact(k.max(1)).enumerate() {
        let mut sum = 0_i32;
        if is_int4 {
            let multipliers = &multipliers[column * groups..][..groups];
            for (g, &m) in multipliers.iter().enumerate() {
                out.multipliers[g * WIDTH + column] = m.cast_unsigned();
            }
            for (at, &code) in codes.iter().enumerate() {
                let place = right_place(column, at % STEP);
                let byte = &mut out.codes[at / STEP * STEP_BYTES / 2 + place % (STEP_BYTES / 2)];
                let nibble = (code + 8).cast_unsigned();
                *byte = match place < STEP_BYTES / 2 {
                    true => *byte & 0xf0 | nibble,
                    false => *byte & 0x0f | nibble << 4,
                };
                sum += i32::from(code) * i32::from(multipliers[at / INT4_GROUP]);
            }
        } else {
            for (at, &code) in codes.iter().enumerate() {
                let place = at / STEP * STEP_BYTES + right_place(column, at % STEP);
                out.codes[place] = code.cast_unsigned();
                sum += i32::from(code);
            }
        }
        out.offsets[column] = OFFSET * sum;
    }
}

/// [`crate::quantize::rotate`] with vectors: the same sums.
#[inline(always)]
pub(super) fn rotate_with<S: Simd>(s: S, values: &mut [f32]) {
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
