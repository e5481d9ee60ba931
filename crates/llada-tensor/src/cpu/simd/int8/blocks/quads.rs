//! Sums of quads in 32 bits: the loops over the dot product of AVX-512 VNNI, which are tested without
//! it, too.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::{LEFT_GROUP, Operands, QUAD_BYTES, even_groups};
use crate::cpu::simd::int8::{BLOCK, OFFSET, WIDTH};

/// What [`dot_products`] needs of AVX-512 VNNI, so that its loops are tested without.
pub(super) trait Quads: Copy {
    /// 16 sums.
    type Sums: Copy;
    /// 16 values.
    type Values: Copy;

    /// 16 quads of unsigned codes.
    type Codes: Copy;

    /// # Safety
    /// The machine has the instructions; 16 values are at the pointer, as of the next.
    unsafe fn load(self, at: *const f32) -> Self::Values;
    /// # Safety
    /// See [`Self::load`].
    unsafe fn store(self, at: *mut f32, x: Self::Values);
    /// Signed codes become unsigned by 128 that are added to each.
    ///
    /// # Safety
    /// See [`Self::load`]; 64 bytes are at the pointer.
    unsafe fn load_codes(self, at: *const u8, is_signed: bool) -> Self::Codes;
    /// 16 quads times one of signed bytes.
    ///
    /// # Safety
    /// See [`Self::splat`].
    unsafe fn add(self, sum: Self::Sums, codes: Self::Codes, left: i32) -> Self::Sums;
    /// # Safety
    /// The machine has the instructions, as of the next.
    unsafe fn splat(self, sum: i32) -> Self::Sums;
    /// `sum * scale * left + c`, the last two fused.
    ///
    /// # Safety
    /// See [`Self::splat`].
    unsafe fn scaled(
        self,
        sum: Self::Sums,
        scale: Self::Values,
        left: f32,
        c: Self::Values,
    ) -> Self::Values;
    /// `a * b + c`, fused.
    ///
    /// # Safety
    /// See [`Self::splat`].
    unsafe fn fma(self, a: Self::Values, b: f32, c: Self::Values) -> Self::Values;
}

/// `R` rows by 32 columns.
///
/// # Safety
/// The machine has the instructions; the operands have the rows, and `c` as many of [`WIDTH`] columns.
#[inline(always)]
unsafe fn dot_products<Q: Quads, const R: usize>(q: Q, x: &Operands<'_>, row: usize, c: *mut f32) {
    // SAFETY: by the caller's promise.
    unsafe {
        for group in 0..x.groups() {
            let at = group * WIDTH;
            let mut sums = [[q.splat(0); 2]; R];
            if x.is_signed() {
                let (integers, stride) = x.left_integers;
                let integers = integers.as_ptr().add(group * stride + row);
                for (r, sums) in sums.iter_mut().enumerate() {
                    *sums = [q.splat(-OFFSET * *integers.add(r)); 2];
                }
            }
            for quad in group * x.quads()..(group + 1) * x.quads() {
                let codes = x.right.as_ptr().add(quad * QUAD_BYTES);
                let codes = [0, 64].map(|v| q.load_codes(codes.add(v), x.is_signed()));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let left = x.left.0.as_ptr().add((row + r) * x.left.1 + 4 * quad);
                    let left = left.cast::<i32>().read_unaligned();
                    for (sum, codes) in sums.iter_mut().zip(codes) {
                        *sum = q.add(*sum, codes, left);
                    }
                }
            }
            for (r, sums) in sums.into_iter().enumerate() {
                let of_row = |(values, stride): (&[f32], usize), group: usize| {
                    values.as_ptr().add(group * stride + row + r).read()
                };
                let left_scale = of_row(x.left_scales, group * x.group / LEFT_GROUP);
                for (v, sum) in [0, 16].into_iter().zip(sums) {
                    let c = c.add(r * WIDTH + v);
                    let scales = q.load(x.scales.as_ptr().add(at + v));
                    let mut y = q.scaled(sum, scales, left_scale, q.load(c));
                    if x.has_minimums() {
                        let minimums = q.load(x.minimums.as_ptr().add(at + v));
                        y = q.fma(minimums, of_row(x.left_sums, group), y);
                    }
                    q.store(c, y);
                }
            }
        }
    }
}

/// Runs [`dot_products`] for all rows.
///
/// # Safety
/// As [`dot_products`].
#[inline(always)]
pub(super) unsafe fn block_quads<Q: Quads>(
    q: Q,
    x: &Operands<'_>,
    rows: usize,
    c: &mut [f32; BLOCK],
) {
    for (row, n) in even_groups(rows, 12) {
        let c = c[row * WIDTH..].as_mut_ptr();
        // SAFETY: by the caller's promise.
        unsafe {
            match n {
                1 => dot_products::<Q, 1>(q, x, row, c),
                2 => dot_products::<Q, 2>(q, x, row, c),
                3 => dot_products::<Q, 3>(q, x, row, c),
                4 => dot_products::<Q, 4>(q, x, row, c),
                5 => dot_products::<Q, 5>(q, x, row, c),
                6 => dot_products::<Q, 6>(q, x, row, c),
                7 => dot_products::<Q, 7>(q, x, row, c),
                8 => dot_products::<Q, 8>(q, x, row, c),
                9 => dot_products::<Q, 9>(q, x, row, c),
                10 => dot_products::<Q, 10>(q, x, row, c),
                11 => dot_products::<Q, 11>(q, x, row, c),
                _ => dot_products::<Q, 12>(q, x, row, c),
            }
        }
    }
}

/// # Safety
/// The machine has AVX-512 F and VNNI; [`Operands::check`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn block_vnni(x: &Operands<'_>, rows: usize, c: &mut [f32; BLOCK]) {
    // SAFETY: by the caller's promise.
    unsafe { block_quads(Vnni, x, rows, c) };
}

#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Vnni;

#[cfg(target_arch = "x86_64")]
#[expect(
    clippy::undocumented_unsafe_blocks,
    reason = "each is what the trait asks its caller for"
)]
impl Quads for Vnni {
    type Sums = __m512i;
    type Values = __m512;
    type Codes = __m512i;
    #[inline(always)]
    unsafe fn load(self, at: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(at) }
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f32, x: __m512) {
        unsafe { _mm512_storeu_ps(at, x) }
    }
    #[inline(always)]
    unsafe fn load_codes(self, at: *const u8, is_signed: bool) -> __m512i {
        unsafe {
            let codes = _mm512_loadu_si512(at.cast());
            match is_signed {
                true => _mm512_xor_si512(codes, _mm512_set1_epi8(i8::MIN)),
                false => codes,
            }
        }
    }
    #[inline(always)]
    unsafe fn add(self, sum: __m512i, codes: __m512i, left: i32) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sum, codes, _mm512_set1_epi32(left)) }
    }
    #[inline(always)]
    unsafe fn splat(self, sum: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(sum) }
    }
    #[inline(always)]
    unsafe fn scaled(self, sum: __m512i, scale: __m512, left: f32, c: __m512) -> __m512 {
        unsafe {
            let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale);
            _mm512_fmadd_ps(scaled, _mm512_set1_ps(left), c)
        }
    }
    #[inline(always)]
    unsafe fn fma(self, a: __m512, b: f32, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, _mm512_set1_ps(b), c) }
    }
}
