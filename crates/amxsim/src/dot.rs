//! The products of two tiles.
//!
//! Integers: `c[m][n] += sum of 4 products`, modulo 2^32.
//!
//! bf16: for each element of `c`, two sums over k in `f32` from zero on, one of the even and one
//! of the odd values, each step a fused multiply-add; then `c + (even + odd)`, two more roundings.
//! Every operation rounds to nearest even, takes subnormal operands as zero, and gives zero for
//! what is below the normal numbers once it is rounded to 24 bits.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, `TDPBF16PS`
//! and `TDPBSSD`; the sign of a zero and the limit of "below" as in SSE (volume 1, 4.9.1.5).

use crate::tiles::{ROWS, Tile};

/// Types of the values of `a` and `b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Product {
    /// `TDPBF16PS`
    Bf16,
    /// `TDPBSSD`
    I8I8,
    /// `TDPBSUD`
    I8U8,
    /// `TDPBUSD`
    U8I8,
    /// `TDPBUUD`
    U8U8,
}

/// Words of a row, at most.
const WORDS: usize = 16;

/// `c += a b` for tiles of `[m, n, k]` words.
pub(crate) fn add_product(product: Product, c: &mut Tile, a: &Tile, b: &Tile, shape: [usize; 3]) {
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        #[expect(unsafe_code, reason = "a call into code with more instructions")]
        // SAFETY: AVX2 and FMA were just detected.
        unsafe {
            with_fma(product, c, a, b, shape);
        }
    } else {
        plain(product, c, a, b, shape);
    }
}

/// The same, compiled with vectors and fused multiply-adds: many times faster.
#[target_feature(enable = "avx2,fma")]
fn with_fma(product: Product, c: &mut Tile, a: &Tile, b: &Tile, shape: [usize; 3]) {
    plain(product, c, a, b, shape);
}

#[inline(always)]
fn plain(product: Product, c: &mut Tile, a: &Tile, b: &Tile, shape: [usize; 3]) {
    let signed = |byte: u8| i32::from(byte.cast_signed());
    match product {
        Product::Bf16 => bf16(c, a, b, shape),
        Product::I8I8 => int8(c, a, b, shape, signed, signed),
        Product::I8U8 => int8(c, a, b, shape, signed, i32::from),
        Product::U8I8 => int8(c, a, b, shape, i32::from, signed),
        Product::U8U8 => int8(c, a, b, shape, i32::from, i32::from),
    }
}

#[inline(always)]
fn int8(
    c: &mut Tile,
    a: &Tile,
    b: &Tile,
    [m, n, k]: [usize; 3],
    of_a: impl Fn(u8) -> i32,
    of_b: impl Fn(u8) -> i32,
) {
    for (row, a) in c[..m].iter_mut().zip(a) {
        for (a, b) in a.as_chunks::<4>().0.iter().zip(&b[..k]) {
            let words = row.as_chunks_mut::<4>().0.iter_mut();
            for (word, b) in words.zip(b.as_chunks::<4>().0).take(n) {
                let mut sum = i32::from_le_bytes(*word);
                for (&a, &b) in a.iter().zip(b) {
                    sum = sum.wrapping_add(of_a(a) * of_b(b));
                }
                *word = sum.to_le_bytes();
            }
        }
    }
}

/// Even and odd values of a row of bf16 pairs, subnormals as zero.
#[inline(always)]
fn widen(row: &[u8; 64]) -> [[f32; WORDS]; 2] {
    let mut halves = [[0.0; WORDS]; 2];
    for (at, &[a, b, c, d]) in row.as_chunks::<4>().0.iter().enumerate() {
        halves[0][at] = flush(f32::from_le_bytes([0, 0, a, b]));
        halves[1][at] = flush(f32::from_le_bytes([0, 0, c, d]));
    }
    halves
}

#[inline(always)]
fn bf16(c: &mut Tile, a: &Tile, b: &Tile, [m, n, k]: [usize; 3]) {
    let mut wide = [[[0.0; WORDS]; 2]; ROWS];
    for (wide, row) in wide.iter_mut().zip(b) {
        *wide = widen(row);
    }
    let b = &wide[..k];
    for (row, a) in c[..m].iter_mut().zip(a) {
        let a = widen(a);
        // What is below the normal numbers is rare: only then each step is looked at.
        let (mut sums, is_clean) = sum_rows(&a, b);
        if !is_clean {
            sums = sum_rows_flushing(&a, b);
        }
        let [even, odd] = sums;
        let words = row.as_chunks_mut::<4>().0.iter_mut();
        for (word, (even, odd)) in words.zip(even.into_iter().zip(odd)).take(n) {
            let sum = flush(flush(f32::from_le_bytes(*word)) + flush(even + odd));
            *word = sum.to_le_bytes();
        }
    }
}

/// The sums of even and odd values over k, and whether no step came near the subnormals.
#[inline(always)]
fn sum_rows(a: &[[f32; WORDS]; 2], b: &[[[f32; WORDS]; 2]]) -> ([[f32; WORDS]; 2], bool) {
    let mut sums = [[0.0f32; WORDS]; 2];
    let mut tiny = [0u32; WORDS];
    for (at, b) in b.iter().enumerate() {
        for half in 0..2 {
            for column in 0..WORDS {
                let sum = a[half][at].mul_add(b[half][column], sums[half][column]);
                tiny[column] |= u32::from(may_be_below(sum));
                sums[half][column] = sum;
            }
        }
    }
    (sums, tiny.iter().all(|&tiny| tiny == 0))
}

fn sum_rows_flushing(a: &[[f32; WORDS]; 2], b: &[[[f32; WORDS]; 2]]) -> [[f32; WORDS]; 2] {
    let mut sums = [[0.0f32; WORDS]; 2];
    for (at, b) in b.iter().enumerate() {
        for half in 0..2 {
            for (sum, &b) in sums[half].iter_mut().zip(&b[half]) {
                *sum = mul_add(a[half][at], b, *sum);
            }
        }
    }
    sums
}

/// Zero of the same sign for a subnormal.
#[inline(always)]
fn flush(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE {
        0.0f32.copysign(x)
    } else {
        x
    }
}

/// Whether a result, rounded as a subnormal, may be below the normal numbers if it is rounded to
/// 24 bits: the smallest normal number may have been rounded up to.
#[inline(always)]
fn may_be_below(x: f32) -> bool {
    x.abs() <= f32::MIN_POSITIVE && x.to_bits() << 1 != 0
}

/// `a b + c`, or zero if that is below the normal numbers when rounded to 24 bits.
fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    const SCALE: f32 = (1u64 << 62) as f32;
    let sum = a.mul_add(b, c);
    if !may_be_below(sum) {
        return sum;
    }
    // The smaller factor is below one, or the product could not come so near to zero.
    let (small, large) = if a.abs() < b.abs() { (a, b) } else { (b, a) };
    let scaled = (small * SCALE).mul_add(large, c * SCALE);
    if scaled.abs() < f32::MIN_POSITIVE * SCALE {
        0.0f32.copysign(sum)
    } else {
        sum
    }
}

#[cfg(test)]
mod tests;
