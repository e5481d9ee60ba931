//! Weights as small integers with scales: what the packed formats of [`Precision::Int8`] and
//! [`Precision::Int4`] hold, one row (output feature) at a time.
//!
//! No scale changes inside a row's 8-bit codes, so that a product is one sum of integers: the
//! groups of the 4-bit format differ by a small integer factor, and `code * multiplier` is again
//! an 8-bit code.

use std::ops::Range;
use std::sync::Arc;

use crate::backend::{FillCodes, PackedWeight};
use crate::error::expect_shapes;
use crate::{Device, Error, Precision, Result};

/// Values of a row that [`rotate`] mixes.
pub const ROTATION: usize = 64;

/// Values of a row that share a multiplier in [`int4_row`].
pub const INT4_GROUP: usize = 32;

/// Codes of some rows of a weight, rotated and padded to whole blocks of [`ROTATION`] values: of
/// `K` values come [`padded`]`(K)` codes.
#[derive(Debug)]
pub struct RowCodes<'a> {
    /// `[rows, padded(K)]`: 8-bit codes in `-127..=127` (-128 counts as -127), or 4-bit codes in
    /// `-8..=7`.
    pub codes: &'a mut [i8],
    /// `[rows, padded(K) / 32]` of 4-bit codes, in `-15..=15`; empty of 8-bit ones.
    pub multipliers: &'a mut [i8],
    /// `[rows]`.
    pub scales: &'a mut [f32],
}

/// Codes of a row of `k` values.
#[must_use]
pub fn padded(k: usize) -> usize {
    k.next_multiple_of(ROTATION)
}

/// Multipliers of a row of `k` values: none of 8-bit codes.
#[must_use]
pub fn groups(precision: Precision, k: usize) -> usize {
    match precision {
        Precision::Int4 => padded(k) / INT4_GROUP,
        _ => 0,
    }
}

/// The codes that packing makes of rows of `k` values, as many rows as `out` has scales.
///
/// # Errors
/// [`Error::InvalidArgument`] if `precision` has no codes, [`Error::ShapeMismatch`] if the lengths
/// do not fit.
pub fn quantize_rows(
    device: &Device,
    precision: Precision,
    values: &[f32],
    k: usize,
    out: RowCodes<'_>,
) -> Result<()> {
    let op = "quantize_rows";
    expect_codes(op, precision)?;
    let rows = out.scales.len();
    let got = [values.len(), out.codes.len(), out.multipliers.len()];
    let expected = [k, padded(k), groups(precision, k)].map(|x| rows * x);
    expect_shapes(op, &got, &expected)?;
    device.backend().quantize_rows(precision, values, k, out)
}

/// Packs a weight `[N, K]` whose codes are known.
///
/// # Errors
/// [`Error::InvalidArgument`] if `precision` has no codes or a row is too long.
pub fn pack_codes(
    device: &Device,
    shape: [usize; 2],
    precision: Precision,
    fill: FillCodes<'_>,
) -> Result<Arc<dyn PackedWeight>> {
    expect_codes("pack_codes", precision)?;
    let fill = |rows: Range<usize>, out: RowCodes<'_>| fill_in_range(fill, rows, out);
    device.backend().pack_codes(shape, precision, &fill)
}

/// Codes as kernels rely on them: the magnitude of -128 is no 8-bit code.
pub(crate) fn fill_in_range(fill: FillCodes<'_>, rows: Range<usize>, out: RowCodes<'_>) {
    let RowCodes {
        codes,
        multipliers,
        scales,
    } = out;
    let out = RowCodes {
        codes: &mut *codes,
        multipliers,
        scales,
    };
    fill(rows, out);
    for code in codes {
        *code = (*code).max(-127);
    }
}

pub(crate) fn expect_codes(op: &'static str, precision: Precision) -> Result<()> {
    let what = "only weights of integers have codes";
    let is_integer = precision.is_integer().then_some(());
    is_integer.ok_or(Error::InvalidArgument { op, what })
}

/// The values that the codes of one row stand for: `out[k]`, rotated back; `multipliers` is empty
/// of 8-bit codes.
///
/// # Panics
/// If there are fewer codes than [`padded`]`(out.len())`, or fewer multipliers than groups.
pub fn dequantize_row(codes: &[i8], multipliers: &[i8], scale: f32, out: &mut [f32]) {
    let mut block = [0.0; ROTATION];
    for (at, out) in out.chunks_mut(ROTATION).enumerate() {
        for (i, x) in block.iter_mut().enumerate() {
            let k = at * ROTATION + i;
            let multiplier = match multipliers {
                [] => 1,
                _ => multipliers[k / INT4_GROUP],
            };
            *x = f32::from(i16::from(codes[k]) * i16::from(multiplier)) * scale;
        }
        rotate(&mut block);
        out.copy_from_slice(&block[..out.len()]);
    }
}

/// Largest magnitude of an 8-bit code; -128 is not used.
pub(crate) const INT8_MAX: f32 = 127.0;
/// Largest multiplier: `-8 * 15` and `7 * 15` are 8-bit codes.
const MULTIPLIER_MAX: f32 = 15.0;

/// Rotates each [`ROTATION`] consecutive values by the Hadamard matrix `H / 8`, which is its own
/// inverse: products of two rotated rows are those of the rows.
///
/// One large value among small ones, as activations have them, is spread over its neighbors, so
/// that the scale of all need not be its own. Weights and the rows that are multiplied by them are
/// both rotated before they are quantised.
///
/// Source: Ashkboos et al. 2024 (arXiv 2404.00456), with small blocks.
///
/// # Panics
/// If the length is not a multiple of [`ROTATION`].
pub fn rotate(values: &mut [f32]) {
    let (blocks, rest) = values.as_chunks_mut::<ROTATION>();
    assert!(rest.is_empty(), "whole blocks are rotated");
    for x in blocks {
        // All levels add the same pairs in the same order: their results are the same bits.
        for half in [32, 16, 8, 4, 2, 1] {
            for i in (0..ROTATION).filter(|i| i & half == 0) {
                (x[i], x[i + half]) = (x[i] + x[i + half], x[i] - x[i + half]);
            }
        }
        for x in x {
            *x *= 0.125;
        }
    }
}

/// Quantises one row of a weight to 8 bits: `row[k] ≈ codes[k] * scale`, returns `scale`.
///
/// The largest magnitude becomes 127 and all others are rounded to the nearest code. A value that
/// is not finite makes the scale NaN.
///
/// # Panics
/// If `codes` is shorter than `row`.
#[must_use]
#[inline(always)]
pub fn int8_row(row: &[f32], codes: &mut [i8]) -> f32 {
    let (scale, inverse) = symmetric_scale(row);
    for (code, &x) in codes[..row.len()].iter_mut().zip(row) {
        *code = low_byte(x * inverse) as i8;
    }
    scale
}

/// `(scale, 1 / scale)` such that the largest magnitude becomes 127; `(NaN, 0)` if a value is not
/// finite and `(0, 0)` if all are zero.
#[inline(always)]
pub(crate) fn symmetric_scale(row: &[f32]) -> (f32, f32) {
    const LANES: usize = 32;
    let mut max = [0.0_f32; LANES];
    // Stays zero unless a value is infinite or NaN.
    let mut not_finite = [0.0_f32; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for ((max, bad), x) in max.iter_mut().zip(&mut not_finite).zip(chunk) {
            let x = x.abs();
            *max = if x > *max { x } else { *max };
            *bad += x * 0.0;
        }
    }
    for ((max, bad), x) in max.iter_mut().zip(&mut not_finite).zip(rest) {
        *max = x.abs().max(*max);
        *bad += x * 0.0;
    }
    let largest = max.iter().fold(0.0_f32, |a, &b| a.max(b));
    if not_finite.iter().sum::<f32>().is_nan() {
        return (f32::NAN, 0.0);
    }
    let inverse = INT8_MAX / largest;
    if largest == 0.0 || !inverse.is_finite() {
        return (0.0, 0.0);
    }
    (largest / INT8_MAX, inverse)
}

/// `1.5 * 2^23`: adding it rounds to an integer, ties to even, which is then in the low bits.
const ROUNDER: f32 = 12_582_912.0;

/// The low byte of the nearest integer, ties to even; for magnitudes below `2^22`.
#[inline(always)]
pub(crate) fn low_byte(x: f32) -> u8 {
    (x + ROUNDER).to_bits() as u8
}

#[inline(always)]
fn round(x: f32) -> f32 {
    (x + ROUNDER) - ROUNDER
}

/// Quantises one row of a weight to 4 bits in groups of [`INT4_GROUP`]:
/// `row[k] ≈ codes[k] * multipliers[k / 32] * scale`, returns `scale`.
///
/// Codes are in `-8..=7`, multipliers in `-15..=15`. Each group takes, of several scales, the one
/// with the least squared error after a least-squares fit; the multipliers then put them on the
/// row's grid, and a last fit over the row gives `scale`. A value that is not finite makes the
/// scale NaN.
///
/// # Panics
/// If `codes` is shorter than `row`, or `multipliers` than its groups.
#[must_use]
#[inline(always)]
pub fn int4_row(row: &[f32], codes: &mut [i8], multipliers: &mut [i8]) -> f32 {
    let groups = row.len().div_ceil(INT4_GROUP);
    let multipliers = &mut multipliers[..groups];
    let mut largest = 0.0_f32;
    let mut fits = vec![0.0_f32; groups];
    for (g, fit) in fits.iter_mut().enumerate() {
        *fit = group_scale(&group(row, g));
        largest = largest.max(fit.abs());
        if fit.is_nan() {
            codes[..row.len()].fill(0);
            multipliers.fill(1);
            return f32::NAN;
        }
    }
    let scale = largest / MULTIPLIER_MAX;
    if scale == 0.0 || !(1.0 / scale).is_finite() {
        codes[..row.len()].fill(0);
        multipliers.fill(1);
        return 0.0;
    }
    let (mut product, mut square) = (0.0_f64, 0.0_f64);
    for (g, (&fit, multiplier)) in fits.iter().zip(multipliers).enumerate() {
        let w = group(row, g);
        let (m, q) = best_multiplier(&w, fit, scale);
        *multiplier = m as i8;
        let start = g * INT4_GROUP;
        for (code, q) in codes[start..row.len()].iter_mut().zip(q) {
            *code = q as i8;
        }
        let (wq, ww) = moments(&q, &w);
        product += f64::from(wq * m);
        square += f64::from(ww);
    }
    if product > 0.0 {
        (square / product) as f32
    } else {
        scale
    }
}

type Group = [f32; INT4_GROUP];

#[inline(always)]
fn group(row: &[f32], at: usize) -> Group {
    let rest = &row[at * INT4_GROUP..];
    let mut w = [0.0; INT4_GROUP];
    let n = rest.len().min(INT4_GROUP);
    w[..n].copy_from_slice(&rest[..n]);
    w
}

/// The scale with the least squared error for codes in `-8..=7`, signed: a negative one puts the
/// largest positive value at -8. NaN if a value is not finite.
#[inline(always)]
fn group_scale(w: &Group) -> f32 {
    // Codes of the value with the largest magnitude.
    const ENDS: [f32; 8] = [-8.5, -8.0, -7.5, -7.0, -6.5, 6.5, 7.0, 7.5];
    let (mut least, mut most, mut bad) = (0.0_f32, 0.0_f32, 0.0_f32);
    for &x in w {
        least = least.min(x);
        most = most.max(x);
        bad += x * 0.0;
    }
    if bad.is_nan() {
        return f32::NAN;
    }
    let end = if -least > most { least } else { most };
    if end == 0.0 {
        return 0.0;
    }
    let (mut best, mut best_gain) = (end / -8.0, -1.0);
    for at in ENDS {
        let q = nearest_codes(w, at / end);
        let (wq, qq) = moments(w, &q);
        let gain = wq * (wq / qq);
        if gain > best_gain {
            (best, best_gain) = (wq / qq, gain);
        }
    }
    best
}

#[inline(always)]
fn nearest_codes(w: &Group, inverse: f32) -> Group {
    let mut q = *w;
    for q in &mut q {
        let x = round(*q * inverse);
        let x = if x > 7.0 { 7.0 } else { x };
        *q = if x < -8.0 { -8.0 } else { x };
    }
    q
}

/// `(Σ w q, Σ q q)`, in a fixed order.
#[inline(always)]
fn moments(w: &Group, q: &Group) -> (f32, f32) {
    let (mut wq, mut qq) = ([0.0_f32; 16], [0.0_f32; 16]);
    for half in [0, 16] {
        for i in 0..16 {
            wq[i] += w[half + i] * q[half + i];
            qq[i] += q[half + i] * q[half + i];
        }
    }
    (fold(wq), fold(qq))
}

#[inline(always)]
fn fold(x: [f32; 16]) -> f32 {
    // Lengths that the compiler knows: a loop over them would not be vectorized.
    let (mut a, mut b) = ([0.0; 8], [0.0; 4]);
    for i in 0..8 {
        a[i] = x[i] + x[i + 8];
    }
    for i in 0..4 {
        b[i] = a[i] + a[i + 4];
    }
    (b[0] + b[2]) + (b[1] + b[3])
}

/// The multiplier next to `fit / scale` with the least squared error, and the codes.
#[inline(always)]
fn best_multiplier(w: &Group, fit: f32, scale: f32) -> (f32, Group) {
    let near = round(fit.abs() / scale).clamp(1.0, MULTIPLIER_MAX);
    let (mut best, mut best_error) = ((0.0, [0.0; INT4_GROUP]), f32::INFINITY);
    for m in [near, near - 1.0, near + 1.0] {
        if !(1.0..=MULTIPLIER_MAX).contains(&m) {
            continue;
        }
        let m = if fit < 0.0 { -m } else { m };
        let step = m * scale;
        let q = nearest_codes(w, 1.0 / step);
        let mut error = [0.0_f32; 16];
        for half in [0, 16] {
            for i in 0..16 {
                let e = w[half + i] - q[half + i] * step;
                error[i] += e * e;
            }
        }
        let error = fold(error);
        if error < best_error {
            (best, best_error) = ((m, q), error);
        }
    }
    best
}

#[cfg(test)]
mod tests;
