//! bf16 panels: the layout that the AMX tiles and the AVX512-BF16 dot product share.
//!
//! A step is 32 values of k. A panel of 32 rows of the left operand holds, for each step, two
//! 1 KiB tiles (rows 0..16 and 16..32), each 16 rows of 32 bf16. A panel of 32 columns of the
//! right operand holds two tiles (columns 0..16 and 16..32), each 16 rows of 16 pairs: row `r`
//! has the values `k = 2r` and `2r + 1` of every column.
//! So both are blocks of 16 x 16 pairs, and differ only in which index runs along the row.

use std::arch::x86_64::*;

use half::bf16;

use super::avx512::lane_mask;
use super::int8::Ahead;
use super::{amx, dot};

/// Values of k per step.
pub(crate) const STEP: usize = 32;
/// Rows of a left panel, columns of a right panel.
pub(crate) const WIDTH: usize = 32;
/// Elements (bf16) of one step of a panel.
pub(crate) const STEP_ELEMENTS: usize = WIDTH * STEP;

/// The product of two panels, by AMX or by the dot product of pairs.
#[derive(Debug)]
pub(crate) struct Products(Option<amx::Tiles>);

impl Products {
    /// # Safety
    /// [`super::has_avx512_bf16`] holds, and [`super::has_amx`] if `amx` is set.
    pub(crate) unsafe fn new(amx: bool) -> Self {
        // SAFETY: by the caller's promise.
        Self(amx.then(|| unsafe { amx::Tiles::configure() }))
    }

    /// `c (+)= a b` for a block of 32 x 32 over all steps of the panels; the rows after the first
    /// `rows` may be written too. The last argument is whether `c` is added to, and what comes next.
    ///
    /// # Panics
    /// If the panels differ in their steps or have none.
    ///
    /// # Safety
    /// `c` is readable and writable for 32 rows of 32 `f32` at a stride of `ldc` `f32`.
    #[inline(always)]
    pub(crate) unsafe fn block(
        &self,
        a: &[u16],
        b: &[u16],
        rows: usize,
        c: *mut f32,
        ldc: usize,
        (accumulate, ahead): (bool, Ahead),
    ) {
        let steps = a.len() / STEP_ELEMENTS;
        assert!(a.len() == b.len() && steps > 0, "panels of the same steps");
        let (a, b) = (a.as_ptr(), b.as_ptr());
        // SAFETY: both panels have `steps` steps; `c` by the caller's promise; the instructions by
        // that of `new`.
        unsafe {
            match &self.0 {
                Some(tiles) => tiles.block([a, b], steps, c, ldc, (accumulate, ahead)),
                None => dot::block(a, b, [steps, rows], c, ldc, accumulate),
            }
        }
    }
}

/// Which index runs along the 64-byte rows of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// k: the left operand.
    Left,
    /// The panel's columns: the right operand.
    Right,
}

/// A part of a matrix: `panel` rows or columns by `k`, at given strides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a, T = f32> {
    /// From the first element of the part on.
    pub(crate) data: &'a [T],
    /// Rows of a left operand, columns of a right one; at most [`WIDTH`].
    pub(crate) panel: usize,
    pub(crate) panel_stride: usize,
    pub(crate) k: usize,
    pub(crate) k_stride: usize,
}

/// Packs one panel over all its steps; what is missing is zero.
///
/// # Safety
/// [`super::has_avx512_bf16`] holds.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(crate) unsafe fn pack_panel<T: Packable>(source: Source<'_, T>, side: Side, out: &mut [u16]) {
    let last = source.panel.saturating_sub(1) * source.panel_stride
        + source.k.saturating_sub(1) * source.k_stride;
    assert!(
        source.panel == 0 || source.k == 0 || last < source.data.len(),
        "source is inside"
    );
    for (step, tiles) in out.chunks_exact_mut(STEP_ELEMENTS).enumerate() {
        let k0 = step * STEP;
        for (half, tile) in tiles.chunks_exact_mut(16 * STEP).enumerate() {
            let part = Source {
                data: source
                    .data
                    .get(half * 16 * source.panel_stride + k0 * source.k_stride..)
                    .unwrap_or(&[]),
                panel: source.panel.saturating_sub(half * 16).min(16),
                k: source.k.saturating_sub(k0).min(STEP),
                ..source
            };
            // SAFETY: the part is inside the source, as was checked above.
            let (pairs, along) = unsafe { load_pairs(part) };
            let rows = if along == side {
                pairs
            } else {
                transpose16(pairs)
            };
            for (row, pairs) in tile.chunks_exact_mut(STEP).zip(rows) {
                // SAFETY: a row of a tile is 32 bf16, 64 bytes.
                unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast(), pairs) };
            }
        }
    }
}

/// Values that are packed: rounded, or as they are.
pub(crate) trait Packable: bytemuck::Pod {
    /// 32 values of a row as bf16; those from `n` on are zero.
    ///
    /// # Safety
    /// As for [`pack_panel`]; the first `n` values are readable, of at most 32.
    unsafe fn row(row: *const Self, n: usize) -> __m512i;

    /// The lanes of `low` of one row, followed by those of `high` of another: 16 and 16 bf16.
    ///
    /// # Safety
    /// As for [`pack_panel`]; the lanes of the masks are readable.
    unsafe fn two_rows(rows: [*const Self; 2], masks: [__mmask16; 2]) -> __m512i;
}

impl Packable for f32 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn row(row: *const Self, n: usize) -> __m512i {
        let masks = [lane_mask(n), lane_mask(n.saturating_sub(16))];
        // SAFETY: by the caller's promise.
        unsafe { Self::two_rows([row, row.wrapping_add(16)], masks) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn two_rows([low, high]: [*const Self; 2], masks: [__mmask16; 2]) -> __m512i {
        // SAFETY: by the caller's promise.
        unsafe {
            let low = _mm512_maskz_loadu_ps(masks[0], low);
            round_pair(_mm512_maskz_loadu_ps(masks[1], high), low)
        }
    }
}

impl Packable for bf16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn row(row: *const Self, n: usize) -> __m512i {
        // SAFETY: by the caller's promise.
        unsafe { _mm512_maskz_loadu_epi16(bf16_mask(n), row.cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn two_rows([low, high]: [*const Self; 2], masks: [__mmask16; 2]) -> __m512i {
        // SAFETY: by the caller's promise.
        unsafe {
            let low = _mm256_maskz_loadu_epi16(masks[0], low.cast());
            let high = _mm256_maskz_loadu_epi16(masks[1], high.cast());
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        }
    }
}

/// The dot product of `x`, rounded to bf16 as [`pack_panel`] does, with `y` as it is.
///
/// # Panics
/// If `y` is shorter.
///
/// # Safety
/// [`super::has_avx512_bf16`] holds.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(crate) unsafe fn dot_rounded(x: &[f32], y: &[f32]) -> f32 {
    assert!(x.len() <= y.len(), "as many values");
    let mut sum = _mm512_setzero_ps();
    for at in (0..x.len()).step_by(16) {
        let mask = lane_mask(x.len() - at);
        // SAFETY: masked lanes are inside both slices.
        let (x, y) = unsafe {
            (
                _mm512_maskz_loadu_ps(mask, x.as_ptr().add(at)),
                _mm512_maskz_loadu_ps(mask, y.as_ptr().add(at)),
            )
        };
        let halves = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(round_pair(x, x)));
        let x = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves));
        sum = _mm512_fmadd_ps(x, y, sum);
    }
    _mm512_reduce_add_ps(sum)
}

/// 32 values rounded to bf16: a row of a step of a left panel.
///
/// # Panics
/// If either has fewer.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(crate) fn round_row(row: &[f32], out: &mut [u16]) {
    let (row, out) = (&row[..STEP], &mut out[..STEP]);
    // SAFETY: both have as many values as are loaded and stored.
    unsafe {
        _mm512_storeu_si512(out.as_mut_ptr().cast(), f32::row(row.as_ptr(), STEP));
    }
}

/// Sixteen vectors of sixteen bf16 pairs, and the side whose tile rows they are.
///
/// # Safety
/// As for [`pack_panel`]; the part is inside its data.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn load_pairs<T: Packable>(part: Source<'_, T>) -> ([__m512i; 16], Side) {
    let mut pairs = [_mm512_setzero_si512(); 16];
    if part.panel == 0 || part.k == 0 {
        return (pairs, Side::Left);
    }
    let p = part.data.as_ptr();
    if part.k_stride == 1 {
        for (i, pairs) in pairs[..part.panel].iter_mut().enumerate() {
            // SAFETY: masked lanes are inside the source, by the caller's promise.
            *pairs = unsafe { T::row(p.add(i * part.panel_stride), part.k) };
        }
        return (pairs, Side::Left);
    }
    if part.panel_stride == 1 {
        let mask = lane_mask(part.panel);
        for (i, pairs) in pairs[..part.k.div_ceil(2)].iter_mut().enumerate() {
            let odd = if 2 * i + 1 < part.k { mask } else { 0 };
            // SAFETY: masked lanes are inside the source, by the caller's promise; a prefetch may
            // go past its end.
            let two = unsafe {
                let row = p.add(2 * i * part.k_stride);
                let next = row.wrapping_add(part.k_stride);
                // Rows are far apart: no hardware prefetcher follows them.
                _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(STEP * part.k_stride).cast());
                _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(STEP * part.k_stride).cast());
                T::two_rows([row, next], [mask, odd])
            };
            *pairs = _mm512_permutexvar_epi16(interleave(), two);
        }
        return (pairs, Side::Right);
    }
    for (i, pairs) in pairs[..part.panel].iter_mut().enumerate() {
        let mut row = [T::zeroed(); STEP];
        for (at, x) in row[..part.k].iter_mut().enumerate() {
            *x = part.data[i * part.panel_stride + at * part.k_stride];
        }
        // SAFETY: the array has 32 values.
        *pairs = unsafe { T::row(row.as_ptr(), STEP) };
    }
    (pairs, Side::Left)
}

/// Rounds the rows of a block of 32 columns: `to` has rows at a stride, of as many columns as are
/// asked for.
///
/// # Safety
/// - [`super::has_avx512_bf16`] holds.
/// - `to` is writable for `columns` elements of each row, at `stride`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(crate) unsafe fn round_block(
    from: &[f32],
    [rows, columns]: [usize; 2],
    to: *mut bf16,
    stride: usize,
) {
    let mask = bf16_mask(columns);
    for (i, row) in from.chunks_exact(WIDTH).enumerate().take(rows) {
        // SAFETY: a row has 32 values; lanes of the mask are inside, by the caller's promise.
        unsafe {
            let rounded = f32::row(row.as_ptr(), WIDTH);
            _mm512_mask_storeu_epi16(to.add(i * stride).cast(), mask, rounded);
        }
    }
}

/// A mask of the first `n` of 32 bf16, or of all.
fn bf16_mask(n: usize) -> __mmask32 {
    if n >= STEP { u32::MAX } else { (1 << n) - 1 }
}

/// Both vectors rounded to bf16, `low` in the first half.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn round_pair(high: __m512, low: __m512) -> __m512i {
    // SAFETY: both types are 64 bytes of plain data.
    unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) }
}

/// Index that turns `[a0..a15, b0..b15]` into `[a0, b0, a1, b1, ..]`.
#[inline]
#[target_feature(enable = "avx512f")]
fn interleave() -> __m512i {
    const INDEX: [u16; 32] = {
        let mut index = [0; 32];
        let mut i = 0;
        while i < 16 {
            index[2 * i] = i as u16;
            index[2 * i + 1] = 16 + i as u16;
            i += 1;
        }
        index
    };
    // SAFETY: the array has 64 bytes.
    unsafe { _mm512_loadu_si512(INDEX.as_ptr().cast()) }
}

/// Transposes 16 x 16 words of 32 bits, in four rounds of exchanges.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose16(x: [__m512i; 16]) -> [__m512i; 16] {
    let mut a = x;
    for i in 0..8 {
        a[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
    }
    let mut b = a;
    for i in 0..4 {
        for j in 0..2 {
            b[4 * i + 2 * j] = _mm512_unpacklo_epi64(a[4 * i + j], a[4 * i + j + 2]);
            b[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(a[4 * i + j], a[4 * i + j + 2]);
        }
    }
    let mut c = b;
    for i in 0..4 {
        c[i] = _mm512_shuffle_i32x4::<0x88>(b[i], b[i + 4]);
        c[i + 4] = _mm512_shuffle_i32x4::<0xdd>(b[i], b[i + 4]);
        c[i + 8] = _mm512_shuffle_i32x4::<0x88>(b[i + 8], b[i + 12]);
        c[i + 12] = _mm512_shuffle_i32x4::<0xdd>(b[i + 8], b[i + 12]);
    }
    let mut d = c;
    for i in 0..8 {
        d[i] = _mm512_shuffle_i32x4::<0x88>(c[i], c[i + 8]);
        d[i + 8] = _mm512_shuffle_i32x4::<0xdd>(c[i], c[i + 8]);
    }
    d
}

#[cfg(test)]
mod tests {
    //! Tests of the tile layout.

    use super::*;

    #[test]
    fn transpose_exchanges_rows_and_columns() {
        if !crate::cpu::simd::has_avx512_bf16() {
            return;
        }
        let x: Vec<u32> = (0..256).collect();
        // SAFETY: AVX-512 is there; the arrays have the right sizes.
        let y: [[u32; 16]; 16] = unsafe {
            let rows = std::array::from_fn(|i| _mm512_loadu_si512(x[16 * i..].as_ptr().cast()));
            std::mem::transmute(transpose16(rows))
        };
        for (i, row) in y.iter().enumerate() {
            for (j, &value) in row.iter().enumerate() {
                assert_eq!(value as usize, 16 * j + i);
            }
        }
    }
}
