//! Rows of a weight as columns of a panel.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::{BlockKernel, WIDTH};
use crate::cpu::panels::pack_f32;

/// Writes `[row][width]`, of at most 32 rows, as `[width][WIDTH]`, with zeros for the rows that are not
/// there. Values are moved bit by bit, whatever they are.
///
/// # Panics
/// If a slice is too short, or there are more rows.
pub(crate) fn lay_out(kernel: BlockKernel, rows: &[f32], width: usize, out: &mut [f32]) {
    let n_rows = rows.len() / width;
    assert!(
        n_rows <= WIDTH && out.len() >= width * WIDTH,
        "a panel of 32 rows"
    );
    #[cfg(target_arch = "x86_64")]
    if kernel.takes_signed() && n_rows == WIDTH && width.is_multiple_of(SQUARE) {
        // SAFETY: the kernels are those of AVX-512; the slices have whole squares, as was just checked.
        return unsafe { lay_out_avx512(rows, width, out) };
    }
    let _ = kernel;
    pack_f32((rows, [width, 1]), [n_rows, width], WIDTH, out);
}

/// Rows and columns of a square of registers.
#[cfg(target_arch = "x86_64")]
const SQUARE: usize = 16;

/// # Safety
/// The machine has AVX-512; 32 rows of whole squares.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn lay_out_avx512(rows: &[f32], width: usize, out: &mut [f32]) {
    for first in (0..WIDTH).step_by(SQUARE) {
        for column in (0..width).step_by(SQUARE) {
            let from = rows.as_ptr().wrapping_add(first * width + column);
            let to = out.as_mut_ptr().wrapping_add(column * WIDTH + first);
            // SAFETY: by the caller's promise, the square is inside both.
            unsafe {
                let square = std::array::from_fn(|r| _mm512_loadu_ps(from.add(r * width)));
                for (at, column) in transposed(square).into_iter().enumerate() {
                    _mm512_storeu_ps(to.add(at * WIDTH), column);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed(rows: [__m512; SQUARE]) -> [__m512; SQUARE] {
    let pairs = |a, b| [_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)];
    let fours = |a, b| {
        let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
        [_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b)].map(|x| _mm512_castpd_ps(x))
    };
    let mut of_fours = [_mm512_setzero_ps(); SQUARE];
    for (of_four, rows) in of_fours
        .as_chunks_mut::<4>()
        .0
        .iter_mut()
        .zip(rows.as_chunks::<4>().0)
    {
        let ([a, b], [c, d]) = (pairs(rows[0], rows[1]), pairs(rows[2], rows[3]));
        let ([e, f], [g, h]) = (fours(a, c), fours(b, d));
        // Part `l` of number `j` is column `4 l + j` of these four rows.
        *of_four = [e, f, g, h];
    }
    let mut columns = [_mm512_setzero_ps(); SQUARE];
    for j in 0..4 {
        let [a, b, c, d] = [0, 4, 8, 12].map(|four| of_fours[four + j]);
        let even = [
            _mm512_shuffle_f32x4::<0x88>(a, b),
            _mm512_shuffle_f32x4::<0x88>(c, d),
        ];
        let odd = [
            _mm512_shuffle_f32x4::<0xdd>(a, b),
            _mm512_shuffle_f32x4::<0xdd>(c, d),
        ];
        columns[j] = _mm512_shuffle_f32x4::<0x88>(even[0], even[1]);
        columns[j + 4] = _mm512_shuffle_f32x4::<0x88>(odd[0], odd[1]);
        columns[j + 8] = _mm512_shuffle_f32x4::<0xdd>(even[0], even[1]);
        columns[j + 12] = _mm512_shuffle_f32x4::<0xdd>(odd[0], odd[1]);
    }
    columns
}
