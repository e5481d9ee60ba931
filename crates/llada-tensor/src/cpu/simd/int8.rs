//! 8-bit integers: the block product of 32 rows by 32 columns, exact in `i32`, and the layout
//! that its kernels share.
//!
//! A step is 64 values of k. A panel of 32 rows of the left operand holds, for each step, 32 rows
//! of 64 unsigned bytes: two AMX tiles. A panel of 32 columns of the right operand holds two tiles
//! (columns 0..16 and 16..32), each 16 rows of 16 quads: row `r` has the values `k = 4r..4r + 4`
//! of every column.
//! The left operand is stored with 128 added, as the instructions multiply unsigned by signed
//! bytes; the end of a product takes `128 Σ_k w` off again.
//! All kernels give the same integers, but for that of AVX2, which takes the offset off first.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
pub(crate) mod blocks;

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use crate::CpuLevel;
use crate::quantize::INT4_GROUP;

/// Values of k per step.
pub(crate) const STEP: usize = 64;
/// Rows of a left panel, columns of a right panel.
pub(crate) const WIDTH: usize = 32;
/// Bytes of one step of a panel.
pub(crate) const STEP_BYTES: usize = WIDTH * STEP;
/// Bytes of a tile.
const TILE_BYTES: usize = STEP_BYTES / 2;
/// Bytes of the multipliers of a step of 4-bit codes: two groups of 32 values for 32 columns.
pub(crate) const STEP_MULTIPLIERS: usize = STEP / INT4_GROUP * WIDTH;

/// What comes next: lines of memory that a kernel fetches while it computes, evenly, so that reading
/// the weights costs no time of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead {
    /// May point anywhere.
    pub(crate) data: *const u8,
    /// Bytes for each step of the block.
    pub(crate) step_bytes: usize,
}

impl Ahead {
    /// The kernel of tiles takes multiples of this many bytes a step.
    pub(crate) const UNIT: usize = 256;

    /// Nothing.
    pub(crate) const NONE: Self = Self {
        data: std::ptr::null(),
        step_bytes: 0,
    };

    /// The share that block `place` of `of` blocks of as many steps fetches, in whole units.
    pub(crate) fn share(self, (place, of): (usize, usize), steps: usize) -> Self {
        let step_bytes = self
            .step_bytes
            .div_ceil(of.max(1))
            .next_multiple_of(Self::UNIT);
        let data = self.data.wrapping_add(place * step_bytes * steps);
        Self { data, step_bytes }
    }
}

/// Sums of a block: `[WIDTH][WIDTH]`.
pub(crate) const BLOCK: usize = WIDTH * WIDTH;
/// Added to values of the left operand.
pub(crate) const OFFSET: i32 = 128;

/// Place of the weight `(column, k)` of a step of a right panel.
#[inline(always)]
pub(crate) fn right_place(column: usize, k: usize) -> usize {
    column / 16 * TILE_BYTES + k / 4 * 64 + column % 16 * 4 + k % 4
}

/// The best kernel of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Int8Kernel {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Vnni,
    #[cfg(target_arch = "x86_64")]
    Amx,
}

#[cfg(target_arch = "x86_64")]
impl Int8Kernel {
    pub(crate) fn of(level: CpuLevel) -> Self {
        match level {
            CpuLevel::Scalar => Self::Scalar,
            CpuLevel::Avx2 => Self::Avx2,
            CpuLevel::Amx if super::amx::has_int8() => Self::Amx,
            _ if is_x86_feature_detected!("avx512vnni") => Self::Vnni,
            _ => Self::Avx2,
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Int8Kernel {
    pub(crate) fn of(_: CpuLevel) -> Self {
        Self::Scalar
    }
}

/// `c (+)= a b` for the first `rows` rows of a 32 x 32 block; the rows after them may be written
/// too. Panels hold whole steps, of both operands alike.
///
/// # Panics
/// If the panels differ in length or `rows` is above 32.
#[inline(always)]
pub(crate) fn block_scalar(
    a: &[u8],
    b: &[i8],
    rows: usize,
    c: &mut [i32; BLOCK],
    accumulate: bool,
) {
    let c = &mut c.as_chunks_mut::<WIDTH>().0[..rows];
    if !accumulate {
        c.fill([0; WIDTH]);
    }
    let (b, _) = b.as_chunks::<STEP_BYTES>();
    for (a, b) in a.chunks_exact(STEP_BYTES).zip(b) {
        for (a, c) in a.chunks_exact(STEP).zip(c.iter_mut()) {
            for (quad, a) in a.as_chunks::<4>().0.iter().enumerate() {
                for half in [0, 1] {
                    let b = &b[half * TILE_BYTES + quad * 64..][..64];
                    for (c, b) in c[half * 16..].iter_mut().zip(b.as_chunks::<4>().0) {
                        for (&a, &b) in a.iter().zip(b) {
                            *c += i32::from(a) * i32::from(b);
                        }
                    }
                }
            }
        }
    }
}

/// [`block_scalar`] with the dot product of quads of AVX-512 VNNI, in groups of rows whose sums
/// stay in registers.
///
/// # Safety
/// The machine has AVX-512 F and VNNI.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) unsafe fn block_vnni(
    a: &[u8],
    b: &[i8],
    rows: usize,
    c: &mut [i32; BLOCK],
    accumulate: bool,
    ahead: Ahead,
) {
    assert!(
        a.len() == b.len() && rows <= WIDTH,
        "panels of the same steps"
    );
    let steps = a.len() / STEP_BYTES;
    let mut row = 0;
    while row < rows {
        // SAFETY: groups end at row 32 at the latest, and all of a panel's rows exist.
        unsafe {
            let (a, b) = (a.as_ptr().add(row * STEP), b.as_ptr());
            let c = c.as_mut_ptr().add(row * WIDTH);
            row += match (rows - row, row) {
                (1, _) => group_vnni::<1, 3>(a, b, steps, c, accumulate, ahead),
                (2, _) => group_vnni::<2, 3>(a, b, steps, c, accumulate, ahead),
                (3 | 4, _) => group_vnni::<4, 3>(a, b, steps, c, accumulate, ahead),
                (5..=8, 24) => group_vnni::<8, 2>(a, b, steps, c, accumulate, ahead),
                (5..=8, _) => group_vnni::<8, 3>(a, b, steps, c, accumulate, ahead),
                (_, 0) => group_vnni::<12, 0>(a, b, steps, c, accumulate, ahead),
                _ => group_vnni::<12, 1>(a, b, steps, c, accumulate, ahead),
            };
        }
    }
}

/// `R` rows by 32 columns; returns `R`. Fetches the lines ahead whose number is `PART` modulo 3: the
/// three groups of a whole block fetch all of them.
///
/// # Safety
/// AVX-512 VNNI; `steps` steps at `a` and `b`, `R` rows of [`WIDTH`] sums at `c`.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn group_vnni<const R: usize, const PART: usize>(
    a: *const u8,
    b: *const i8,
    steps: usize,
    c: *mut i32,
    accumulate: bool,
    ahead: Ahead,
) -> usize {
    let mut sums = [[_mm512_setzero_si512(); 2]; R];
    // SAFETY: by the caller's promise; rows of a left panel are `STEP` bytes apart.
    unsafe {
        if accumulate {
            for (r, sums) in sums.iter_mut().enumerate() {
                *sums = [0, 16].map(|column| _mm512_loadu_si512(c.add(r * WIDTH + column).cast()));
            }
        }
        for step in 0..steps {
            let (a, b) = (a.add(step * STEP_BYTES), b.add(step * STEP_BYTES));
            for quad in 0..STEP / 4 {
                if quad % 3 == PART {
                    let line = ahead.data.wrapping_add(step * ahead.step_bytes + quad * 64);
                    _mm_prefetch::<_MM_HINT_T0>(line.cast());
                    if ahead.step_bytes == STEP_BYTES {
                        _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(TILE_BYTES).cast());
                    }
                }
                let columns =
                    [0, TILE_BYTES].map(|half| _mm512_loadu_si512(b.add(half + quad * 64).cast()));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let row = a.add(r * STEP + quad * 4).cast::<i32>();
                    let row = _mm512_set1_epi32(row.read_unaligned());
                    *sums = [
                        _mm512_dpbusd_epi32(sums[0], row, columns[0]),
                        _mm512_dpbusd_epi32(sums[1], row, columns[1]),
                    ];
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                _mm512_storeu_si512(c.add(r * WIDTH + 16 * v).cast(), sum);
            }
        }
    }
    R
}
