//! The register block: `c[MR, NR] (+)= a[MR, K] b[K, NR]` with `NR = BLOCK_VECS * LANES`.
//!
//! For each k: load `BLOCK_VECS` vectors of b, then for each row broadcast one value of a and
//! do `BLOCK_VECS` fused multiply-adds. All of c stays in registers.

use super::Simd;

/// One operand of a block product.
#[derive(Clone, Copy)]
pub(crate) struct Lhs {
    /// First element.
    pub(crate) data: *const f32,
    /// Distance between rows.
    pub(crate) row_stride: usize,
    /// Distance between neighbors in k.
    pub(crate) k_stride: usize,
}

/// `c (+)= a b` for the first `rows` rows of a register block of [`Simd::BLOCK_ROWS`]; the rows after
/// them may be written too.
///
/// # Safety
/// - `a` is readable for `BLOCK_ROWS` rows and `k` columns at its strides.
/// - `b` is readable for `k` rows of `BLOCK_VECS * LANES` values at stride `ldb`.
/// - `c` is readable and writable for `BLOCK_ROWS` rows of as many values at stride `ldc`.
#[expect(
    clippy::too_many_arguments,
    reason = "three operands with their strides, in registers"
)]
#[inline(always)]
pub(crate) unsafe fn block<S: Simd>(
    s: S,
    [rows, k]: [usize; 2],
    a: Lhs,
    b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    accumulate: bool,
) {
    // SAFETY: the caller's promise covers each shape, none of which has more rows than the block.
    unsafe {
        match (S::BLOCK_ROWS, S::BLOCK_VECS, rows) {
            (12, 2, 1) => block_of::<S, 1, 2>(s, a, b, ldb, k, c, ldc, accumulate),
            (12, 2, 2) => block_of::<S, 2, 2>(s, a, b, ldb, k, c, ldc, accumulate),
            (12, 2, 3 | 4) => block_of::<S, 4, 2>(s, a, b, ldb, k, c, ldc, accumulate),
            (12, 2, 5..=8) => block_of::<S, 8, 2>(s, a, b, ldb, k, c, ldc, accumulate),
            (12, 2, _) => block_of::<S, 12, 2>(s, a, b, ldb, k, c, ldc, accumulate),
            (6, 2, 1) => block_of::<S, 1, 2>(s, a, b, ldb, k, c, ldc, accumulate),
            (6, 2, 2) => block_of::<S, 2, 2>(s, a, b, ldb, k, c, ldc, accumulate),
            (6, 2, 3 | 4) => block_of::<S, 4, 2>(s, a, b, ldb, k, c, ldc, accumulate),
            (6, 2, _) => block_of::<S, 6, 2>(s, a, b, ldb, k, c, ldc, accumulate),
            (4, 4, 1) => block_of::<S, 1, 4>(s, a, b, ldb, k, c, ldc, accumulate),
            (4, 4, _) => block_of::<S, 4, 4>(s, a, b, ldb, k, c, ldc, accumulate),
            _ => unreachable!("every level has one of these shapes"),
        }
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "three operands with their strides, in registers"
)]
#[inline(always)]
unsafe fn block_of<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    a: Lhs,
    b: *const f32,
    ldb: usize,
    k: usize,
    c: *mut f32,
    ldc: usize,
    accumulate: bool,
) {
    let mut acc = [[s.splat(0.0); NV]; MR];
    // SAFETY: all offsets are below the extents that the caller promised.
    unsafe {
        if accumulate {
            for (r, row) in acc.iter_mut().enumerate() {
                for (v, acc) in row.iter_mut().enumerate() {
                    *acc = s.load_ptr(c.add(r * ldc + v * S::LANES));
                }
            }
        }
        for at in 0..k {
            let mut b_vecs = [s.splat(0.0); NV];
            for (v, b_vec) in b_vecs.iter_mut().enumerate() {
                *b_vec = s.load_ptr(b.add(at * ldb + v * S::LANES));
            }
            for (r, row) in acc.iter_mut().enumerate() {
                let x = s.splat(*a.data.add(r * a.row_stride + at * a.k_stride));
                for (acc, &b_vec) in row.iter_mut().zip(&b_vecs) {
                    *acc = s.fma(x, b_vec, *acc);
                }
            }
        }
        for (r, row) in acc.iter().enumerate() {
            for (v, &acc) in row.iter().enumerate() {
                s.store_ptr(c.add(r * ldc + v * S::LANES), acc);
            }
        }
    }
}
