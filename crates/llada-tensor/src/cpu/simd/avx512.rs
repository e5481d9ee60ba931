//! AVX-512: 16 values.

use std::arch::x86_64::*;

use half::bf16;

use super::{Kernel, Simd};

/// Proof that the machine has the instructions of this file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(());

/// Whether the machine has them.
pub(crate) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
}

/// Runs a kernel compiled for these instructions.
///
/// # Safety
/// [`has_avx512`] holds.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
pub(crate) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512(()))
}

/// A mask of the first `n` lanes, or of all.
#[inline(always)]
pub(super) fn lane_mask(n: usize) -> __mmask16 {
    if n >= 16 { u16::MAX } else { (1 << n) - 1 }
}

// SAFETY (all blocks below without pointers): a value of `Avx512` exists only inside `run`, whose
// caller has checked that the machine has the instructions.
#[expect(
    clippy::undocumented_unsafe_blocks,
    reason = "one comment for all, above"
)]
impl Simd for Avx512 {
    type V = __m512;
    const LANES: usize = 16;
    const BLOCK_ROWS: usize = 12;
    const BLOCK_VECS: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        unsafe { _mm512_set1_ps(x) }
    }
    intrinsics! {
        add(a, b) = _mm512_add_ps;
        sub(a, b) = _mm512_sub_ps;
        mul(a, b) = _mm512_mul_ps;
        div(a, b) = _mm512_div_ps;
        fma(a, b, c) = _mm512_fmadd_ps;
        max(a, b) = _mm512_max_ps;
        min(a, b) = _mm512_min_ps;
        sqrt(a) = _mm512_sqrt_ps;
        round(a) = _mm512_roundscale_ps::<0>;
    }
    #[inline(always)]
    fn pow2(self, n: Self::V) -> Self::V {
        unsafe {
            let bits = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(bits))
        }
    }
    #[inline(always)]
    fn sum(self, a: Self::V) -> f32 {
        unsafe { _mm512_reduce_add_ps(a) }
    }
    #[inline(always)]
    fn exchange<const DISTANCE: usize>(self, a: Self::V) -> Self::V {
        unsafe {
            match DISTANCE {
                1 => _mm512_permute_ps::<0b10_11_00_01>(a),
                2 => _mm512_permute_ps::<0b01_00_11_10>(a),
                4 => _mm512_shuffle_f32x4::<0b10_11_00_01>(a, a),
                8 => _mm512_shuffle_f32x4::<0b01_00_11_10>(a, a),
                _ => unreachable!("sixteen lanes"),
            }
        }
    }
    #[inline(always)]
    fn max_lane(self, a: Self::V) -> f32 {
        unsafe { _mm512_reduce_max_ps(a) }
    }
    #[inline(always)]
    fn load_bf16(self, x: &[bf16]) -> Self::V {
        // SAFETY: the lanes of the mask are inside `x`.
        unsafe {
            let halves = _mm256_maskz_loadu_epi16(lane_mask(x.len()), x.as_ptr().cast());
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
        }
    }
    #[inline(always)]
    fn store_bf16(self, x: &mut [bf16], v: Self::V) {
        // SAFETY: the lanes of the mask are inside `x`.
        unsafe {
            let bits = _mm512_castps_si512(v);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
            let quiet = _mm512_set1_epi32(0x0040_0000);
            let sum = _mm512_add_epi32(bits, half);
            let rounded = _mm512_mask_or_epi32(sum, nan, bits, quiet);
            let halves = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded));
            _mm256_mask_storeu_epi16(x.as_mut_ptr().cast(), lane_mask(x.len()), halves);
        }
    }
    #[inline(always)]
    unsafe fn load_ptr(self, p: *const f32) -> Self::V {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, p: *mut f32, v: Self::V) {
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_part(self, p: *const f32, n: usize, fill: f32) -> Self::V {
        unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(fill), (1 << n) - 1, p) }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: usize, v: Self::V) {
        unsafe { _mm512_mask_storeu_ps(p, (1 << n) - 1, v) }
    }
}
