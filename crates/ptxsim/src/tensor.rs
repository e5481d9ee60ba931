//! Matrices of a warp: `ldmatrix` and `mma.sync`, with the fragment layouts of the PTX manual.

use crate::alu::from_half;
use crate::inst::{HalfType, MmaKind};
use crate::warp::{LANES, Lanes32};

/// `d = a b + c` of one warp. A lane `l` holds of `a` (16 x 16, or 16 x 8) pairs of a row: row
/// `l / 4`, columns `2 (l % 4)`, and those 8 rows below, then the same 8 columns to the right; of
/// `b` (`k` x 8) pairs of a column `l / 4`; of `c` and `d` (16 x 8) pairs of rows `l / 4` and
/// `l / 4 + 8`.
///
/// Products are summed in `f32` in the order of `k`; the hardware's order is not documented.
#[inline(always)]
pub(crate) fn mma(
    kind: MmaKind,
    a: &[Lanes32; 4],
    b: &[Lanes32; 2],
    c: &[Lanes32; 4],
) -> [Lanes32; 4] {
    let (half, depth) = match kind {
        MmaKind::K16(half) => (half, 16),
        MmaKind::K8(half) => (half, 8),
    };
    let pair = |word: u32| match half {
        HalfType::Bf16 => [
            f32::from_bits(word << 16),
            f32::from_bits(word & 0xffff_0000),
        ],
        HalfType::F16 => [from_half(half, word & 0xffff), from_half(half, word >> 16)],
    };
    let mut left = [[0.0_f32; 16]; 16];
    let mut right = [[0.0_f32; 8]; 16];
    let mut sums = [[0.0_f32; 8]; 16];
    for lane in 0..LANES {
        let (row, column) = (lane / 4, 2 * (lane % 4));
        // With eight columns the second register is the lower half.
        for (i, a) in a.iter().enumerate().take(depth / 4) {
            let (r, k) = (row + 8 * (i % 2), column + 8 * (i / 2));
            [left[r][k], left[r][k + 1]] = pair(a[lane]);
        }
        for (i, b) in b.iter().enumerate().take(depth / 8) {
            [right[column + 8 * i][row], right[column + 8 * i + 1][row]] = pair(b[lane]);
        }
        for (i, c) in c.iter().enumerate() {
            sums[row + 8 * (i / 2)][column + i % 2] = f32::from_bits(c[lane]);
        }
    }
    for (sums, left) in sums.iter_mut().zip(&left) {
        for k in 0..depth {
            for n in 0..8 {
                sums[n] = left[k].mul_add(right[k][n], sums[n]);
            }
        }
    }
    let mut d = [[0; LANES]; 4];
    for lane in 0..LANES {
        let (row, column) = (lane / 4, 2 * (lane % 4));
        for (i, d) in d.iter_mut().enumerate() {
            d[lane] = sums[row + 8 * (i / 2)][column + i % 2].to_bits();
        }
    }
    d
}

/// One 8 x 8 matrix of 16-bit elements out of its rows of 16 bytes: what each lane gets.
#[inline(always)]
pub(crate) fn fragment(rows: &[[u8; 16]; 8], transposed: bool) -> Lanes32 {
    let element = |row: usize, column: usize| {
        u32::from(u16::from_le_bytes([
            rows[row][2 * column],
            rows[row][2 * column + 1],
        ]))
    };
    let mut out = [0; LANES];
    for (lane, out) in out.iter_mut().enumerate() {
        let (row, column) = (lane / 4, 2 * (lane % 4));
        *out = match transposed {
            false => element(row, column) | element(row, column + 1) << 16,
            true => element(column, row) | element(column + 1, row) << 16,
        };
    }
    out
}
