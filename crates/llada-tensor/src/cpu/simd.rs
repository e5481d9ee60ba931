//! Vectors of `f32` for each instruction set, and the kernels that are written over them.
//!
//! A value of a [`Simd`] type is a proof that the machine has its instructions: it is only made
//! by [`CpuLevel::run`] after detection, or by tests of the same kind. That is why its methods
//! are safe to call. [`super::level`] asks this module what the machine has, and the runs at a level
//! are here: both need the instructions, which are unsafe to use.
#![expect(
    unsafe_code,
    reason = "intrinsics and raw loads; see the SAFETY comments"
)]

/// Methods of [`Simd`] that are one intrinsic each: `add(a, b) = _mm256_add_ps;`.
#[cfg(target_arch = "x86_64")]
macro_rules! intrinsics {
    ($($op:ident($($x:ident),*) = $intrinsic:path;)*) => {$(
        #[inline(always)]
        fn $op(self, $($x: Self::V),*) -> Self::V {
            unsafe { $intrinsic($($x),*) }
        }
    )*};
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod block;
#[cfg(target_arch = "x86_64")]
pub(crate) mod dot;
pub(crate) mod int8;
mod scalar;
#[cfg(target_arch = "x86_64")]
pub(crate) mod tiles;

#[cfg(target_arch = "x86_64")]
pub(crate) use amx::has_amx;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::has_avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::has_avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) use dot::has_avx512_bf16;

use half::bf16;

use super::level::CpuLevel;

/// Lanes of the widest vector.
const MAX_LANES: usize = 16;

/// A vector instruction set.
pub(crate) trait Simd: Copy + Send + Sync {
    /// A vector of [`Self::LANES`] values.
    type V: Copy;
    /// Values per vector.
    const LANES: usize;
    /// Rows of the register block of [`block::block`].
    const BLOCK_ROWS: usize;
    /// Vectors per row of the register block.
    const BLOCK_VECS: usize;

    fn splat(self, x: f32) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, fused where the set has it.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger one; `b` if one is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller one; `b` if one is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    fn sqrt(self, a: Self::V) -> Self::V;
    /// Nearest integer, ties to even.
    fn round(self, a: Self::V) -> Self::V;
    /// `2^n` for integer values in `-126..=127`, and 0 for -127.
    fn pow2(self, n: Self::V) -> Self::V;
    /// Sum of the lanes.
    fn sum(self, a: Self::V) -> f32;
    /// The lanes `i ^ DISTANCE`, for a power of two below [`Self::LANES`].
    fn exchange<const DISTANCE: usize>(self, a: Self::V) -> Self::V;
    /// Largest lane.
    fn max_lane(self, a: Self::V) -> f32;

    /// # Safety
    /// [`Self::LANES`] values are readable at `p`.
    unsafe fn load_ptr(self, p: *const f32) -> Self::V;
    /// # Safety
    /// [`Self::LANES`] values are writable at `p`.
    unsafe fn store_ptr(self, p: *mut f32, v: Self::V);
    /// # Safety
    /// `n` values are readable at `p`, `n < LANES`; other lanes are `fill`.
    unsafe fn load_part(self, p: *const f32, n: usize, fill: f32) -> Self::V;
    /// # Safety
    /// `n` values are writable at `p`, `n < LANES`.
    unsafe fn store_part(self, p: *mut f32, n: usize, v: Self::V);

    /// The first values of `x`; lanes past its end are `fill`.
    #[inline(always)]
    fn load(self, x: &[f32], fill: f32) -> Self::V {
        if x.len() >= Self::LANES {
            // SAFETY: the length was just checked.
            unsafe { self.load_ptr(x.as_ptr()) }
        } else {
            // SAFETY: `x.len()` values are readable and it is below `LANES`.
            unsafe { self.load_part(x.as_ptr(), x.len(), fill) }
        }
    }

    /// Writes the first lanes to `x`, as many as fit.
    #[inline(always)]
    fn store(self, x: &mut [f32], v: Self::V) {
        if x.len() >= Self::LANES {
            // SAFETY: the length was just checked.
            unsafe { self.store_ptr(x.as_mut_ptr(), v) }
        } else {
            // SAFETY: `x.len()` values are writable and it is below `LANES`.
            unsafe { self.store_part(x.as_mut_ptr(), x.len(), v) }
        }
    }

    /// The first values of `x`, widened; lanes past its end are zero.
    #[inline(always)]
    fn load_bf16(self, x: &[bf16]) -> Self::V {
        const { assert!(Self::LANES <= MAX_LANES) };
        let mut wide = [0.0; MAX_LANES];
        for (wide, x) in wide.iter_mut().zip(x).take(Self::LANES) {
            *wide = x.to_f32();
        }
        self.load(&wide, 0.0)
    }

    /// Writes the first lanes to `x`, as many as fit, to the nearest, ties to even.
    #[inline(always)]
    fn store_bf16(self, x: &mut [bf16], v: Self::V) {
        let mut wide = [0.0; MAX_LANES];
        self.store(&mut wide, v);
        for (x, wide) in x.iter_mut().zip(wide).take(Self::LANES) {
            *x = bf16::from_f32(wide);
        }
    }

    /// `e^x` with a relative error of about 1e-7; exactly 0 below -87.7, where results would be
    /// subnormal: arithmetic on those is many times slower.
    ///
    /// Source: the range reduction and polynomial of Cephes' `expf`.
    #[inline(always)]
    fn exp(self, x: Self::V) -> Self::V {
        let x = self.min(self.splat(88.02), self.max(self.splat(-88.0), x));
        let n = self.round(self.mul(x, self.splat(std::f32::consts::LOG2_E)));
        let r = self.fma(n, self.splat(-0.693_359_4), x);
        let r = self.fma(n, self.splat(2.121_944_4e-4), r);
        let mut p = self.splat(1.987_569_1e-4);
        for c in [
            1.398_199_9e-3,
            8.333_452e-3,
            4.166_579_6e-2,
            0.166_666_65,
            0.5,
        ] {
            p = self.fma(p, r, self.splat(c));
        }
        let y = self.add(self.fma(p, self.mul(r, r), r), self.splat(1.0));
        self.mul(y, self.pow2(n))
    }
}

/// What a kernel reads or writes, its arithmetic being `f32`.
pub(crate) trait Element: bytemuck::Pod + Send + Sync {
    /// The first values of `x`; lanes past its end are zero.
    fn load<S: Simd>(s: S, x: &[Self]) -> S::V;
    /// Writes the first lanes to `x`, as many as fit.
    fn store<S: Simd>(s: S, x: &mut [Self], v: S::V);
}

impl Element for f32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[Self]) -> S::V {
        s.load(x, 0.0)
    }
    #[inline(always)]
    fn store<S: Simd>(s: S, x: &mut [Self], v: S::V) {
        s.store(x, v);
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[Self]) -> S::V {
        s.load_bf16(x)
    }
    #[inline(always)]
    fn store<S: Simd>(s: S, x: &mut [Self], v: S::V) {
        s.store_bf16(x, v);
    }
}

/// Fetches bytes that are read soon.
pub(crate) fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: every x86-64 processor has SSE, and a prefetch reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// Code that is compiled once for every instruction set. Implementations of `run` must be
/// `#[inline(always)]`, so that they are compiled with the instructions of the caller.
pub(crate) trait Kernel {
    type Output;
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

impl CpuLevel {
    /// Makes [`CpuLevel::Amx`] available although the processor lacks AMX; without AVX512-BF16 it
    /// stays as it is. For tests on an emulator, before anything else asks for levels.
    ///
    /// # Safety
    /// AMX tile, bf16 and int8 instructions work in every thread of this process from now on.
    #[doc(hidden)]
    pub unsafe fn assume_amx() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: by the caller's promise.
        unsafe {
            amx::assume_amx();
        }
    }

    /// Runs a kernel with the vectors of this level.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: levels above scalar come from `CpuLevel::resolve`, which detects them.
            Self::Amx | Self::Avx512Bf16 | Self::Avx512 => unsafe { avx512::run(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx2 => unsafe { avx2::run(kernel) },
            _ => scalar::run(kernel),
        }
    }
}

#[cfg(test)]
mod tests;
