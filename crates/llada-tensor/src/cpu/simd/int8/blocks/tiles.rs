//! Sums of groups by AMX: 16 rows by 16 columns at once, whose sums of a group go through memory to
//! the registers that scale them.

use std::arch::x86_64::*;

use super::{LEFT_GROUP, Operands, QUAD_BYTES, TILE};
use crate::cpu::simd::amx::GroupTiles;
use crate::cpu::simd::int8::{BLOCK, WIDTH};

/// Groups between a product and what its sums are read for: a load that meets a store of a tile waits
/// for it to reach the cache.
const LAG: usize = 3;

/// Integers of a tile.
#[repr(C, align(64))]
struct Sums([i32; TILE * TILE]);

/// # Safety
/// The machine has AMX for bytes and AVX-512, and `tiles` are of groups as those of `x`, which has the
/// rows by [`Operands::check`].
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn block_amx(
    tiles: &GroupTiles,
    x: &Operands<'_>,
    rows: usize,
    c: &mut [f32; BLOCK],
) {
    for row in (0..rows).step_by(TILE) {
        for column in [0, TILE] {
            let c = c[row * WIDTH + column..].as_mut_ptr();
            // SAFETY: by the caller's promise; the block has 16 rows and columns from these on.
            unsafe {
                match x.is_signed() {
                    true => tile::<true>(tiles, x, [row, column], c),
                    false => tile::<false>(tiles, x, [row, column], c),
                }
            }
        }
    }
}

/// # Safety
/// See [`block_amx`]; `c` has 16 rows of 16 columns, at a stride of [`WIDTH`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn tile<const SIGNED: bool>(
    tiles: &GroupTiles,
    x: &Operands<'_>,
    [row, column]: [usize; 2],
    c: *mut f32,
) {
    let mut under_way = [const { Sums([0; TILE * TILE]) }; LAG + 1];
    // SAFETY: by the caller's promise, all that is read and written is inside.
    unsafe {
        let left = x.left.0.as_ptr().add(row * x.left.1);
        let right = x.right.as_ptr().add(4 * column);
        let mut values: [__m512; TILE] = std::array::from_fn(|r| _mm512_loadu_ps(c.add(r * WIDTH)));
        for step in 0..x.groups() + LAG {
            if step < x.groups() {
                let left = (left.add(step * x.group), x.left.1);
                let right = (right.add(step * x.quads() * QUAD_BYTES), QUAD_BYTES);
                tiles.group::<SIGNED>(left, right, &mut under_way[step % (LAG + 1)].0);
            }
            let Some(group) = step.checked_sub(LAG) else {
                continue;
            };
            let sums = under_way[group % (LAG + 1)].0.as_ptr();
            let of_columns = |of: &[f32]| _mm512_loadu_ps(of.as_ptr().add(group * WIDTH + column));
            let of_rows = |(values, stride): (&[f32], usize), group: usize| {
                values.as_ptr().add(group * stride + row)
            };
            let scales = of_columns(x.scales);
            let left_scales = of_rows(x.left_scales, group * x.group / LEFT_GROUP);
            for (r, value) in values.iter_mut().enumerate() {
                let sums = _mm512_load_si512(sums.add(r * TILE).cast());
                let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), scales);
                *value = _mm512_fmadd_ps(scaled, _mm512_set1_ps(*left_scales.add(r)), *value);
            }
            if !SIGNED {
                let minimums = of_columns(x.minimums);
                let left_sums = of_rows(x.left_sums, group);
                for (r, value) in values.iter_mut().enumerate() {
                    let left_sum = _mm512_set1_ps(*left_sums.add(r));
                    *value = _mm512_fmadd_ps(minimums, left_sum, *value);
                }
            }
        }
        for (r, value) in values.into_iter().enumerate() {
            _mm512_storeu_ps(c.add(r * WIDTH), value);
        }
    }
}
