//! One value at a time: the reference for all other levels.

use super::{Kernel, Simd};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Scalar;

pub(crate) fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Scalar)
}

impl Simd for Scalar {
    type V = f32;
    const LANES: usize = 1;
    const BLOCK_ROWS: usize = 4;
    const BLOCK_VECS: usize = 4;

    fn splat(self, x: f32) -> f32 {
        x
    }
    fn add(self, a: f32, b: f32) -> f32 {
        a + b
    }
    fn sub(self, a: f32, b: f32) -> f32 {
        a - b
    }
    fn mul(self, a: f32, b: f32) -> f32 {
        a * b
    }
    fn div(self, a: f32, b: f32) -> f32 {
        a / b
    }
    fn fma(self, a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
    fn max(self, a: f32, b: f32) -> f32 {
        if a > b { a } else { b }
    }
    fn min(self, a: f32, b: f32) -> f32 {
        if a < b { a } else { b }
    }
    fn sqrt(self, a: f32) -> f32 {
        a.sqrt()
    }
    fn round(self, a: f32) -> f32 {
        a.round_ties_even()
    }
    fn pow2(self, n: f32) -> f32 {
        n.exp2()
    }
    fn sum(self, a: f32) -> f32 {
        a
    }
    fn exchange<const DISTANCE: usize>(self, _: f32) -> f32 {
        unreachable!("a single lane")
    }
    fn max_lane(self, a: f32) -> f32 {
        a
    }
    fn exp(self, x: f32) -> f32 {
        if x < -87.68 { 0.0 } else { x.exp() }
    }
    unsafe fn load_ptr(self, p: *const f32) -> f32 {
        // SAFETY: one value is readable by the trait's contract.
        unsafe { *p }
    }
    unsafe fn store_ptr(self, p: *mut f32, v: f32) {
        // SAFETY: one value is writable by the trait's contract.
        unsafe { *p = v }
    }
    unsafe fn load_part(self, _: *const f32, _: usize, fill: f32) -> f32 {
        fill
    }
    unsafe fn store_part(self, _: *mut f32, _: usize, _: f32) {}
}
