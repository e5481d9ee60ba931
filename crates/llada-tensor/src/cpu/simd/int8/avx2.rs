//! Integers with AVX2, which multiplies unsigned by signed bytes into sums of two products in 16 bits.
//!
//! 8-bit codes could overflow those, but not as `|a| * (sign(a) b)` with magnitudes up to 128 and 127:
//! `2 * 128 * 127` fits. The rows are split into magnitudes and signs once for all columns.
//! (On Zen 3 this is 1.3 times as fast as products of codes that are widened to 16 bits, and 1.5 times
//! while a neighbor uses the core.)
//! 4-bit codes fit as they are; six rows at a time are 1.3 times as fast as four.

use std::arch::x86_64::*;

use super::{Ahead, BLOCK, STEP, STEP_BYTES, STEP_MULTIPLIERS, TILE_BYTES, WIDTH};
use crate::quantize::INT4_GROUP;

/// Quads of k in a step, each of which is a line of 64 bytes in a tile.
const QUADS: usize = STEP / 4;
/// Quads that share a multiplier.
const GROUP_QUADS: usize = INT4_GROUP / 4;

/// The quads of a step whose lines group `at` of `groups` fetches ahead, a bit each: all groups
/// together fetch all of them while they compute, and none many at once.
fn share(at: usize, groups: usize) -> u32 {
    let own = |quad: usize| u32::from(quad % groups == at) << quad;
    (0..QUADS).map(own).sum()
}

/// Rows of a group of 4-bit products.
const INT4_ROWS: usize = 6;

/// [`super::block_scalar`] of `a` without its offset, for codes of `b` that are not -128. `rows_of_a` is
/// room for the rows of `a` with their signs, and their magnitudes.
///
/// # Panics
/// If the panels differ in length or `rows` is above 32.
///
/// # Safety
/// The machine has AVX2.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn block(
    a: &[u8],
    b: &[i8],
    rows: usize,
    c: &mut [i32; BLOCK],
    accumulate: bool,
    ahead: Ahead,
    rows_of_a: &mut Vec<u8>,
) {
    assert!(
        a.len() == b.len() && rows <= WIDTH,
        "panels of the same steps"
    );
    let steps = a.len() / STEP_BYTES;
    let row_len = steps * STEP;
    rows_of_a.resize(2 * rows * row_len, 0);
    let (signed, magnitudes) = rows_of_a.split_at_mut(rows * row_len);
    for (step, a) in a.chunks_exact(STEP_BYTES).enumerate() {
        for (row, a) in a.as_chunks::<STEP>().0.iter().take(rows).enumerate() {
            let at = row * row_len + step * STEP..row * row_len + (step + 1) * STEP;
            let out = signed[at.clone()].iter_mut().zip(&mut magnitudes[at]);
            for ((signed, magnitude), &a) in out.zip(a) {
                *signed = a ^ 0x80;
                *magnitude = signed.cast_signed().unsigned_abs();
            }
        }
    }
    for row in (0..rows).step_by(4) {
        let share = share(row / 4, rows.div_ceil(4));
        for half in [0, 1] {
            let data = ahead.data.wrapping_add(half * TILE_BYTES);
            let ahead = (Ahead { data, ..ahead }, share);
            // SAFETY: all rows and tiles of a panel exist; sums of four rows and 16 columns are
            // inside the block.
            unsafe {
                let a = [&signed, &magnitudes].map(|a| a.as_ptr().add(row * row_len));
                let b = b.as_ptr().add(half * TILE_BYTES);
                let c = c.as_mut_ptr().add(row * WIDTH + half * 16);
                match rows - row {
                    1 => group::<1>(a, b, steps, c, accumulate, ahead),
                    2 => group::<2>(a, b, steps, c, accumulate, ahead),
                    3 => group::<3>(a, b, steps, c, accumulate, ahead),
                    _ => group::<4>(a, b, steps, c, accumulate, ahead),
                }
            }
        }
    }
}

/// `R` rows by 16 columns.
///
/// # Safety
/// AVX2; `R` rows of `steps` steps, with signs and as magnitudes, at each of `a`; `steps` steps at
/// `b`; `R` rows of 16 sums at `c` at a stride of [`WIDTH`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn group<const R: usize>(
    [signed, magnitudes]: [*const u8; 2],
    b: *const i8,
    steps: usize,
    c: *mut i32,
    accumulate: bool,
    (ahead, share): (Ahead, u32),
) {
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_si256(); 2]; R];
    for step in 0..steps {
        for quad in 0..QUADS {
            if share >> quad & 1 == 1 {
                let line = ahead.data.wrapping_add(step * ahead.step_bytes + quad * 64);
                _mm_prefetch::<_MM_HINT_T0>(line.cast());
            }
            // SAFETY: by the caller's promise.
            unsafe {
                let at = b.add(step * STEP_BYTES + quad * 64);
                let right = [0, 32].map(|v| _mm256_loadu_si256(at.add(v).cast()));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let at = (r * steps + step) * STEP + quad * 4;
                    let of = |rows: *const u8| {
                        _mm256_set1_epi32(rows.add(at).cast::<i32>().read_unaligned())
                    };
                    let (signed, magnitude) = (of(signed), of(magnitudes));
                    for (sum, right) in sums.iter_mut().zip(right) {
                        let right = _mm256_sign_epi8(right, signed);
                        let pairs = _mm256_maddubs_epi16(magnitude, right);
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
                    }
                }
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (v, &sum) in sums.iter().enumerate() {
            // SAFETY: by the caller's promise.
            unsafe {
                let c = c.add(r * WIDTH + 8 * v).cast();
                let sum = match accumulate {
                    true => _mm256_add_epi32(sum, _mm256_loadu_si256(c)),
                    false => sum,
                };
                _mm256_storeu_si256(c, sum);
            }
        }
    }
}

/// The same product with 4-bit codes as they are stored, see
/// [`QuantizedWeight`](crate::cpu::quantized::QuantizedWeight). The 16 products of a group that a sum of
/// 16 bits gets are at most 255 by 8, and do not overflow it; only their sum is multiplied.
///
/// # Panics
/// If the panels differ in their steps or `rows` is above 32.
///
/// # Safety
/// The machine has AVX2.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn block_int4(
    a: &[u8],
    (codes, multipliers): (&[u8], &[u8]),
    rows: usize,
    c: &mut [i32; BLOCK],
    accumulate: bool,
) {
    let steps = a.len() / STEP_BYTES;
    assert!(
        codes.len() == steps * STEP_BYTES / 2 && multipliers.len() == steps * STEP_MULTIPLIERS,
        "panels of the same steps"
    );
    let c = &mut c[..rows * WIDTH];
    if !accumulate {
        c.fill(0);
    }
    let groups = rows.div_ceil(INT4_ROWS);
    for at in 0..groups {
        let first_row = |at: usize| at * rows / groups;
        let (row, group_rows) = (first_row(at), first_row(at + 1) - first_row(at));
        let share = share(at, groups);
        for half in [0, 1] {
            // Both halves of a quad are in one line.
            let share = if half == 0 { share } else { 0 };
            // SAFETY: all rows of a panel exist, and the sums of a group's rows are inside the
            // block; 8 columns of each half.
            unsafe {
                let a = a.as_ptr().add(row * STEP);
                let codes = codes.as_ptr().add(half * 32);
                let multipliers = multipliers.as_ptr().add(half * 8);
                let c = c.as_mut_ptr().add(row * WIDTH + half * 8);
                let right = (codes, multipliers);
                match group_rows {
                    1 => group_int4::<1>(a, right, steps, c, share),
                    2 => group_int4::<2>(a, right, steps, c, share),
                    3 => group_int4::<3>(a, right, steps, c, share),
                    4 => group_int4::<4>(a, right, steps, c, share),
                    5 => group_int4::<5>(a, right, steps, c, share),
                    _ => group_int4::<INT4_ROWS>(a, right, steps, c, share),
                }
            }
        }
    }
}

/// `R` rows by 8 columns of each tile. Fetches lines of the codes that follow.
///
/// # Safety
/// AVX2; `steps` steps at `a`, and as many of codes and multipliers; `R` rows of sums at `c` at a
/// stride of [`WIDTH`], of which the columns 0..8 and 16..24 are used.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn group_int4<const R: usize>(
    a: *const u8,
    (codes, multipliers): (*const u8, *const u8),
    steps: usize,
    c: *mut i32,
    share: u32,
) {
    let (mask, eight) = (_mm256_set1_epi8(15), _mm256_set1_epi8(8));
    for group in 0..2 * steps {
        let (step, first) = (group / 2, group % 2 * GROUP_QUADS);
        let step_codes = codes.wrapping_add(step * STEP_BYTES / 2);
        let mut sums = [[_mm256_setzero_si256(); 2]; R];
        for quad in first..first + GROUP_QUADS {
            // SAFETY: by the caller's promise.
            unsafe {
                let at = step_codes.add(quad * 64);
                if share >> quad & 1 == 1 {
                    let line = at.wrapping_add(steps * STEP_BYTES / 2);
                    _mm_prefetch::<_MM_HINT_T0>(line.cast());
                }
                let nibbles = _mm256_loadu_si256(at.cast());
                let high = _mm256_srli_epi16::<4>(nibbles);
                let right =
                    [nibbles, high].map(|x| _mm256_sub_epi8(_mm256_and_si256(x, mask), eight));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let at = a.add(step * STEP_BYTES + r * STEP + quad * 4);
                    let left = _mm256_set1_epi32(at.cast::<i32>().read_unaligned());
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(left, right));
                    }
                }
            }
        }
        for v in 0..2 {
            // SAFETY: by the caller's promise.
            unsafe {
                let at = multipliers.add(group * WIDTH + 16 * v);
                let wide = _mm256_cvtepi8_epi32(_mm_loadl_epi64(at.cast()));
                // The same multiplier for both halves of the quads of a column.
                let twice =
                    _mm256_blend_epi16::<0b10_10_10_10>(wide, _mm256_slli_epi32::<16>(wide));
                for (r, sums) in sums.iter().enumerate() {
                    let c = c.add(r * WIDTH + 16 * v).cast();
                    let products = _mm256_madd_epi16(sums[v], twice);
                    _mm256_storeu_si256(c, _mm256_add_epi32(_mm256_loadu_si256(c), products));
                }
            }
        }
    }
}
