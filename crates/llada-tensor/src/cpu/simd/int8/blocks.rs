//! The block product of the integers that a file's blocks are made of: 32 rows by 32 columns, where
//! both operands have a scale for each group of k, so that sums of integers are exact inside a group
//! and become `f32` at its end.
//!
//! Unsigned codes of 4 to 6 bits times signed bytes fit the sums of 16 bits of AVX2 for 8, 4 or 2
//! quads of k, so that most groups widen once. Signed bytes are multiplied as magnitudes of the
//! weight and signs of the other operand. VNNI sums quads of unsigned codes in 32 bits, of signed
//! ones with 128 added. An offset of the codes is taken off their sum.
//! All kernels give the same bits.

mod layout;
mod quads;
#[cfg(target_arch = "x86_64")]
mod tiles;

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::{BLOCK, WIDTH};
use crate::CpuLevel;
use crate::backend::Codes;
#[cfg(target_arch = "x86_64")]
use crate::cpu::simd::amx;

pub(crate) use layout::lay_out;

/// Values of k that share a scale of the left operand.
pub(crate) const LEFT_GROUP: usize = 32;
/// Rows that AMX multiplies at once.
const TILE: usize = 16;
/// Rows that a left operand has behind those that are asked for: of a whole tile, all are read.
pub(crate) const PADDING: usize = TILE - 1;
/// So few rows are multiplied faster without tiles.
#[cfg(target_arch = "x86_64")]
const FEW: usize = 4;
/// Bytes of four values of k of 32 columns.
const QUAD_BYTES: usize = 4 * WIDTH;

/// Both operands over some groups of k.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operands<'a> {
    pub(crate) codes: Codes,
    /// Is taken off unsigned codes, which have no minimums then; else 0.
    pub(crate) offset: i32,
    /// Values of k that share a scale of the right operand: 16 or 32.
    pub(crate) group: usize,
    /// Rows of `[k]`, from -127 to 127, so many values apart.
    pub(crate) left: (&'a [i8], usize),
    /// `[k / LEFT_GROUP][row]`, groups so many values apart.
    pub(crate) left_scales: (&'a [f32], usize),
    /// `[k / group][row]`, likewise: the sum of a group, times its scale.
    pub(crate) left_sums: (&'a [f32], usize),
    /// Likewise: the sum of a group.
    pub(crate) left_integers: (&'a [i32], usize),
    /// `[k / 4][WIDTH][4]`
    pub(crate) right: &'a [u8],
    /// `[k / group][WIDTH]`
    pub(crate) scales: &'a [f32],
    /// `[k / group][WIDTH]`, of unsigned codes without an offset.
    pub(crate) minimums: &'a [f32],
}

/// The best kernel of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockKernel {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Vnni,
    #[cfg(target_arch = "x86_64")]
    Amx,
}

#[cfg(target_arch = "x86_64")]
impl BlockKernel {
    pub(crate) fn of(level: CpuLevel) -> Self {
        match level {
            CpuLevel::Scalar => Self::Scalar,
            CpuLevel::Avx2 => Self::Avx2,
            CpuLevel::Amx if amx::has_int8() && is_x86_feature_detected!("avx512vnni") => Self::Amx,
            _ if is_x86_feature_detected!("avx512vnni") => Self::Vnni,
            _ => Self::Avx2,
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl BlockKernel {
    pub(crate) fn of(_: CpuLevel) -> Self {
        Self::Scalar
    }
}

impl BlockKernel {
    /// Whether a kernel is faster with signed codes than with an offset; it has no other way then.
    pub(crate) fn takes_signed(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return matches!(self, Self::Vnni | Self::Amx);
        #[cfg(not(target_arch = "x86_64"))]
        false
    }
}

impl Operands<'_> {
    fn is_signed(&self) -> bool {
        self.codes == Codes::Signed
    }

    fn has_minimums(&self) -> bool {
        !self.is_signed() && self.offset == 0
    }

    fn groups(&self) -> usize {
        self.scales.len() / WIDTH
    }

    /// Quads of k in a group.
    fn quads(&self) -> usize {
        self.group / 4
    }

    /// # Panics
    /// If an operand is too short for `rows` rows.
    fn check(&self, rows: usize) {
        let (groups, k) = (self.groups(), self.groups() * self.group);
        let padded = rows.next_multiple_of(TILE);
        let has_groups = |(len, stride): (usize, usize), groups: usize| {
            groups == 0 || (groups - 1) * stride + padded <= len
        };
        let (scales, sums) = (self.left_scales, self.left_sums);
        assert!(
            rows <= WIDTH
                && matches!(self.group, 16 | 32)
                && self.right.len() >= k * WIDTH
                && (!self.has_minimums() || self.minimums.len() >= groups * WIDTH)
                && (rows == 0 || (padded - 1) * self.left.1 + k <= self.left.0.len())
                && has_groups((scales.0.len(), scales.1), k.div_ceil(LEFT_GROUP))
                && has_groups((sums.0.len(), sums.1), groups)
                && has_groups((self.left_integers.0.len(), self.left_integers.1), groups),
            "operands over the same groups"
        );
    }
}

/// What a thread multiplies with.
#[derive(Debug)]
pub(crate) struct BlockProducts {
    kernel: BlockKernel,
    #[cfg(target_arch = "x86_64")]
    tiles: Option<amx::GroupTiles>,
}

impl BlockProducts {
    /// For groups of 16 or 32 values of k of the right operand.
    pub(crate) fn new(kernel: BlockKernel, group: usize) -> Self {
        Self {
            kernel,
            // SAFETY: `BlockKernel::of` gives the kernel only where AMX and its bytes were detected.
            #[cfg(target_arch = "x86_64")]
            tiles: (kernel == BlockKernel::Amx)
                .then(|| unsafe { amx::GroupTiles::configure(group) }),
        }
    }

    /// `c += a b` for the first `rows` rows of a block; the rows up to the next multiple of 16 may be
    /// written too.
    ///
    /// # Panics
    /// If an operand is too short, of other groups, or `rows` is above 32.
    pub(crate) fn block(&self, x: &Operands<'_>, rows: usize, c: &mut [f32; BLOCK]) {
        x.check(rows);
        debug_assert!(x.offset == 0 || !self.kernel.takes_signed(), "signed codes");
        #[cfg(target_arch = "x86_64")]
        if let Some(tiles) = &self.tiles
            && rows > FEW
        {
            // SAFETY: as in `new`; the operands have the rows.
            return unsafe { tiles::block_amx(tiles, x, rows, c) };
        }
        match self.kernel {
            BlockKernel::Scalar => block_scalar(x, rows, c),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `BlockKernel::of` gives only kernels that were detected; the operands have the rows.
            BlockKernel::Avx2 => unsafe { block_avx2(x, rows, c) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above; AMX comes with VNNI.
            BlockKernel::Vnni | BlockKernel::Amx => unsafe { quads::block_vnni(x, rows, c) },
        }
    }
}

fn block_scalar(x: &Operands<'_>, rows: usize, c: &mut [f32; BLOCK]) {
    for (row, c) in c.as_chunks_mut::<WIDTH>().0[..rows].iter_mut().enumerate() {
        let left = &x.left.0[row * x.left.1..];
        for group in 0..x.groups() {
            let mut sums = [0_i32; WIDTH];
            for quad in group * x.quads()..(group + 1) * x.quads() {
                let right = x.right[quad * QUAD_BYTES..][..QUAD_BYTES]
                    .as_chunks::<4>()
                    .0;
                for (sum, right) in sums.iter_mut().zip(right) {
                    for (&a, &b) in left[4 * quad..].iter().zip(right) {
                        let b = match x.is_signed() {
                            true => i32::from(b.cast_signed()),
                            false => i32::from(b),
                        };
                        *sum += i32::from(a) * b;
                    }
                }
            }
            let left_scale = x.left_scales.0[group * x.group / LEFT_GROUP * x.left_scales.1 + row];
            let left_sum = x.left_sums.0[group * x.left_sums.1 + row];
            let offset = x.offset * x.left_integers.0[group * x.left_integers.1 + row];
            for (column, (c, sum)) in c.iter_mut().zip(sums).enumerate() {
                let at = group * WIDTH + column;
                *c = ((sum - offset) as f32 * x.scales[at]).mul_add(left_scale, *c);
                if x.has_minimums() {
                    *c = x.minimums[at].mul_add(left_sum, *c);
                }
            }
        }
    }
}

/// Cuts rows into groups of at most `largest`, as even as possible: the first row and the rows of each.
fn even_groups(rows: usize, largest: usize) -> impl Iterator<Item = (usize, usize)> {
    let groups = rows.div_ceil(largest);
    let first = move |at: usize| at * rows / groups;
    (0..groups).map(move |at| (first(at), first(at + 1) - first(at)))
}

/// # Safety
/// The machine has AVX2 and FMA; [`Operands::check`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn block_avx2(x: &Operands<'_>, rows: usize, c: &mut [f32; BLOCK]) {
    // Rows whose sums stay in registers: of groups that widen more than once, they take two each.
    let largest = match (x.codes, x.group) {
        (Codes::Signed, _) => 4,
        (Codes::UpTo15, _) | (Codes::UpTo31, 16) => 6,
        _ => 3,
    };
    for (row, n) in even_groups(rows, largest) {
        for half in 0..2 {
            let c = c[row * WIDTH + half * 16..].as_mut_ptr();
            // SAFETY: by the caller's promise; the block has the rows, and 16 columns of each half.
            unsafe {
                match (x.codes, x.group) {
                    (Codes::Signed, _) => match n {
                        1 => signed_avx2::<1>(x, row, half, c),
                        2 => signed_avx2::<2>(x, row, half, c),
                        3 => signed_avx2::<3>(x, row, half, c),
                        _ => signed_avx2::<4>(x, row, half, c),
                    },
                    (Codes::UpTo15, 32) => up_to_6_avx2::<8>(x, (row, n), half, c),
                    (Codes::UpTo15 | Codes::UpTo31, 16) => {
                        up_to_6_avx2::<4>(x, (row, n), half, c);
                    }
                    (Codes::UpTo31, _) => up_to_3_avx2::<4, 2>(x, (row, n), half, c),
                    (Codes::UpTo63, 16) => up_to_3_avx2::<2, 2>(x, (row, n), half, c),
                    _ => up_to_3_avx2::<2, 4>(x, (row, n), half, c),
                }
            }
        }
    }
}

/// # Safety
/// See [`unsigned_avx2`].
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn up_to_6_avx2<const QUADS: usize>(
    x: &Operands<'_>,
    (row, n): (usize, usize),
    half: usize,
    c: *mut f32,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        match n {
            1 => unsigned_avx2::<1, QUADS, 1>(x, row, half, c),
            2 => unsigned_avx2::<2, QUADS, 1>(x, row, half, c),
            3 => unsigned_avx2::<3, QUADS, 1>(x, row, half, c),
            4 => unsigned_avx2::<4, QUADS, 1>(x, row, half, c),
            5 => unsigned_avx2::<5, QUADS, 1>(x, row, half, c),
            _ => unsigned_avx2::<6, QUADS, 1>(x, row, half, c),
        }
    }
}

/// # Safety
/// See [`unsigned_avx2`].
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn up_to_3_avx2<const QUADS: usize, const RUNS: usize>(
    x: &Operands<'_>,
    (row, n): (usize, usize),
    half: usize,
    c: *mut f32,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        match n {
            1 => unsigned_avx2::<1, QUADS, RUNS>(x, row, half, c),
            2 => unsigned_avx2::<2, QUADS, RUNS>(x, row, half, c),
            _ => unsigned_avx2::<3, QUADS, RUNS>(x, row, half, c),
        }
    }
}

/// `R` rows by 16 columns of unsigned codes, `QUADS` quads of which fit sums of 16 bits, in groups of
/// `RUNS` times as many.
///
/// # Safety
/// AVX2 and FMA; the operands have the rows, and `c` 16 columns of each at a stride of [`WIDTH`].
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn unsigned_avx2<const R: usize, const QUADS: usize, const RUNS: usize>(
    x: &Operands<'_>,
    row: usize,
    half: usize,
    c: *mut f32,
) {
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_si256(); 2]; R];
    for group in 0..x.groups() {
        for run in 0..RUNS {
            let mut pairs = [[_mm256_setzero_si256(); 2]; R];
            for at in 0..QUADS {
                let quad = (group * RUNS + run) * QUADS + at;
                // SAFETY: by the caller's promise.
                unsafe {
                    let right = right_avx2(x, quad, half);
                    for (r, pairs) in pairs.iter_mut().enumerate() {
                        let left = left_avx2(x, row + r, quad);
                        for (sum, right) in pairs.iter_mut().zip(right) {
                            *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(right, left));
                        }
                    }
                }
            }
            for (sums, pairs) in sums.iter_mut().zip(pairs) {
                for (sum, pairs) in sums.iter_mut().zip(pairs) {
                    let wide = _mm256_madd_epi16(pairs, ones);
                    *sum = if run == 0 {
                        wide
                    } else {
                        _mm256_add_epi32(*sum, wide)
                    };
                }
            }
        }
        // SAFETY: by the caller's promise.
        unsafe {
            match x.has_minimums() {
                true => finish_avx2::<R, true>(x, row, half, group, sums, c),
                false => finish_avx2::<R, false>(x, row, half, group, sums, c),
            }
        }
    }
}

/// `R` rows by 16 columns of signed codes.
///
/// # Safety
/// As [`unsigned_avx2`].
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn signed_avx2<const R: usize>(x: &Operands<'_>, row: usize, half: usize, c: *mut f32) {
    let ones = _mm256_set1_epi16(1);
    for group in 0..x.groups() {
        let mut sums = [[_mm256_setzero_si256(); 2]; R];
        for quad in group * x.quads()..(group + 1) * x.quads() {
            // SAFETY: by the caller's promise.
            unsafe {
                let right = right_avx2(x, quad, half);
                let magnitudes = right.map(|right| _mm256_abs_epi8(right));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let left = left_avx2(x, row + r, quad);
                    for (v, sum) in sums.iter_mut().enumerate() {
                        // At most `2 * 128 * 127`.
                        let left = _mm256_sign_epi8(left, right[v]);
                        let pairs = _mm256_maddubs_epi16(magnitudes[v], left);
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
                    }
                }
            }
        }
        // SAFETY: by the caller's promise.
        unsafe { finish_avx2::<R, false>(x, row, half, group, sums, c) };
    }
}

/// Four values of k of 16 columns.
///
/// # Safety
/// AVX2; the operand has the quad.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn right_avx2(x: &Operands<'_>, quad: usize, half: usize) -> [__m256i; 2] {
    let at = x.right.as_ptr().wrapping_add(quad * QUAD_BYTES + half * 64);
    // SAFETY: by the caller's promise.
    [0, 32].map(|v| unsafe { _mm256_loadu_si256(at.wrapping_add(v).cast()) })
}

/// Four values of k of a row, in all lanes.
///
/// # Safety
/// AVX2; the operand has the quad.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn left_avx2(x: &Operands<'_>, row: usize, quad: usize) -> __m256i {
    let at = (x.left.0.as_ptr())
        .wrapping_add(row * x.left.1 + 4 * quad)
        .cast::<i32>();
    // SAFETY: by the caller's promise.
    _mm256_set1_epi32(unsafe { at.read_unaligned() })
}

/// Adds the sums of a group to the output.
///
/// # Safety
/// As [`unsigned_avx2`].
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn finish_avx2<const R: usize, const HAS_MINIMUM: bool>(
    x: &Operands<'_>,
    row: usize,
    half: usize,
    group: usize,
    sums: [[__m256i; 2]; R],
    c: *mut f32,
) {
    let at = group * WIDTH + half * 16;
    let left_group = group * x.group / LEFT_GROUP;
    // SAFETY: by the caller's promise.
    unsafe {
        let of_columns =
            |values: &[f32]| [0, 8].map(|v| _mm256_loadu_ps(values.as_ptr().wrapping_add(at + v)));
        let scales = of_columns(x.scales);
        let minimums = match HAS_MINIMUM {
            true => of_columns(x.minimums),
            false => [_mm256_setzero_ps(); 2],
        };
        for (r, sums) in sums.iter().enumerate() {
            let of_row = |(values, stride): (&[f32], usize), group: usize| {
                _mm256_broadcast_ss(&*values.as_ptr().wrapping_add(group * stride + row + r))
            };
            let left_scale = of_row(x.left_scales, left_group);
            let (integers, stride) = x.left_integers;
            let of_row_sum = integers.as_ptr().wrapping_add(group * stride + row + r);
            let offset = _mm256_set1_epi32(x.offset * *of_row_sum);
            for v in 0..2 {
                let c = c.add(r * WIDTH + 8 * v);
                let sum = match HAS_MINIMUM {
                    true => sums[v],
                    false => _mm256_sub_epi32(sums[v], offset),
                };
                let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), scales[v]);
                let mut sum = _mm256_fmadd_ps(scaled, left_scale, _mm256_loadu_ps(c));
                if HAS_MINIMUM {
                    sum = _mm256_fmadd_ps(minimums[v], of_row(x.left_sums, group), sum);
                }
                _mm256_storeu_ps(c, sum);
            }
        }
    }
}

#[cfg(test)]
mod tests;
