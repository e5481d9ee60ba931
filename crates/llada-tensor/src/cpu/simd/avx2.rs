//! AVX2 and FMA: 8 values.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// Proof that the machine has the instructions of this file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

/// Whether the machine has them.
pub(crate) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// Runs a kernel compiled for these instructions.
///
/// # Safety
/// [`has_avx2`] holds.
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

// SAFETY (all blocks below without pointers): a value of `Avx2` exists only inside `run`, whose
// caller has checked that the machine has the instructions.
#[expect(
    clippy::undocumented_unsafe_blocks,
    reason = "one comment for all, above"
)]
impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;
    const BLOCK_ROWS: usize = 6;
    const BLOCK_VECS: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        unsafe { _mm256_set1_ps(x) }
    }
    intrinsics! {
        add(a, b) = _mm256_add_ps;
        sub(a, b) = _mm256_sub_ps;
        mul(a, b) = _mm256_mul_ps;
        div(a, b) = _mm256_div_ps;
        fma(a, b, c) = _mm256_fmadd_ps;
        max(a, b) = _mm256_max_ps;
        min(a, b) = _mm256_min_ps;
        sqrt(a) = _mm256_sqrt_ps;
        round(a) = _mm256_round_ps::<8>;
    }
    #[inline(always)]
    fn pow2(self, n: Self::V) -> Self::V {
        unsafe {
            let bits = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(bits))
        }
    }
    #[inline(always)]
    fn sum(self, a: Self::V) -> f32 {
        let x = lanes(a);
        ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]))
    }
    #[inline(always)]
    fn exchange<const DISTANCE: usize>(self, a: Self::V) -> Self::V {
        unsafe {
            match DISTANCE {
                1 => _mm256_permute_ps::<0b10_11_00_01>(a),
                2 => _mm256_permute_ps::<0b01_00_11_10>(a),
                4 => _mm256_permute2f128_ps::<1>(a, a),
                _ => unreachable!("eight lanes"),
            }
        }
    }
    #[inline(always)]
    fn max_lane(self, a: Self::V) -> f32 {
        lanes(a).into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    unsafe fn load_ptr(self, p: *const f32) -> Self::V {
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, p: *mut f32, v: Self::V) {
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_part(self, p: *const f32, n: usize, fill: f32) -> Self::V {
        let mut lanes = [fill; 8];
        for (i, lane) in lanes[..n].iter_mut().enumerate() {
            *lane = unsafe { *p.add(i) };
        }
        unsafe { _mm256_loadu_ps(lanes.as_ptr()) }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: usize, v: Self::V) {
        for (i, lane) in lanes(v)[..n].iter().enumerate() {
            unsafe { *p.add(i) = *lane };
        }
    }
}

/// The lanes, in memory order.
fn lanes(v: __m256) -> [f32; 8] {
    // SAFETY: both types are eight `f32` values of 32 bytes without padding.
    unsafe { std::mem::transmute(v) }
}
