//! Blocks of 256 numbers of 2 to 6 bits in groups, each of which has a factor for the block's scale
//! and, in some types, one for its minimum.

use llada_tensor::backend::{Codes, GroupCodes};

use super::{Integers, half_at};

/// The 2 bits of each of 256 numbers, of which four share a byte: halves of 128 numbers, in each of
/// them four stretches of 32.
#[inline(always)]
pub(super) fn pairs_of_bits(bytes: &[u8], out: &mut [u8]) {
    for (stretch, out) in out.chunks_exact_mut(32).enumerate() {
        let bytes = &bytes[stretch / 4 * 32..][..32];
        for (out, byte) in out.iter_mut().zip(bytes) {
            *out = byte >> (stretch % 4 * 2) & 3;
        }
    }
}

/// 16 groups of 16 numbers of 2 bits: 4-bit factors of the scale and the minimum, the numbers, both
/// scales. `d * factor * q - dmin * other_factor`.
pub(super) struct Q2K;

impl Integers for Q2K {
    const LENGTH: usize = 256;
    const BYTES: usize = 84;
    const GROUP: usize = 16;
    const CODES: Codes = Codes::UpTo15;
    const HAS_MINIMUM: bool = true;
    #[inline(always)]
    fn read(block: &[u8], out: &mut GroupCodes<'_>) {
        let (d, dmin) = (half_at(block, 80), half_at(block, 82));
        for (group, factors) in block[..16].iter().enumerate() {
            out.scales[group] = d * f32::from(factors & 15);
            out.minimums[group] = -(dmin * f32::from(factors >> 4));
        }
        pairs_of_bits(&block[16..80], out.codes);
    }
}

/// 16 groups of 16 numbers of 3 bits with an offset of 4: the third bits, the lower 2 bits, 6-bit
/// factors with an offset of 32 (lower 4 bits, then upper 2), and a scale.
pub(super) struct Q3K;

impl Integers for Q3K {
    const LENGTH: usize = 256;
    const BYTES: usize = 110;
    const GROUP: usize = 16;
    const CODES: Codes = Codes::UpTo15;
    const OFFSET: u8 = 4;
    #[inline(always)]
    fn read(block: &[u8], out: &mut GroupCodes<'_>) {
        let (thirds, numbers, factors) = (&block[..32], &block[32..96], &block[96..108]);
        let d = half_at(block, 108);
        for (group, scale) in out.scales.iter_mut().enumerate() {
            let low = factors[group % 8] >> (group / 8 * 4) & 15;
            let high = factors[8 + group % 4] >> (group / 4 * 2) & 3;
            *scale = d * (f32::from(low | high << 4) - 32.0);
        }
        pairs_of_bits(numbers, out.codes);
        for (stretch, out) in out.codes.chunks_exact_mut(32).enumerate() {
            for (out, third) in out.iter_mut().zip(thirds) {
                *out |= (third >> stretch & 1) << 2;
            }
        }
    }
}

/// 6-bit factors of the scale and the minimum of one of 8 groups.
#[inline(always)]
fn factors_of(factors: &[u8], group: usize) -> (u8, u8) {
    // The first four groups have bytes of their own; the others share four bytes, and their two
    // upper bits lie above the factors of the first four.
    if group < 4 {
        return (factors[group] & 63, factors[group + 4] & 63);
    }
    let shared = factors[group + 4];
    let (high, other_high) = (factors[group - 4] >> 6, factors[group] >> 6);
    ((shared & 15) | high << 4, (shared >> 4) | other_high << 4)
}

/// Scales and minimums of 8 groups, and the lower 4 bits of their numbers.
#[inline(always)]
fn groups_of_32(block: &[u8], numbers: &[u8], out: &mut GroupCodes<'_>) {
    let (d, dmin, factors) = (half_at(block, 0), half_at(block, 2), &block[4..16]);
    for group in 0..8 {
        let (factor, minimum) = factors_of(factors, group);
        out.scales[group] = d * f32::from(factor);
        out.minimums[group] = -(dmin * f32::from(minimum));
    }
    for (bytes, out) in numbers.chunks_exact(32).zip(out.codes.chunks_exact_mut(64)) {
        super::offsets::nibbles::<32>(bytes, out);
    }
}

/// Two scales, then 6-bit factors of both for each of 8 groups, then 8 groups of 32 numbers of
/// 4 bits: `d * factor * q - dmin * other_factor`.
pub(super) struct Q4K;

impl Integers for Q4K {
    const LENGTH: usize = 256;
    const BYTES: usize = 144;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::UpTo15;
    const HAS_MINIMUM: bool = true;
    #[inline(always)]
    fn read(block: &[u8], out: &mut GroupCodes<'_>) {
        groups_of_32(block, &block[16..], out);
    }
}

/// As `Q4_K`, with the fifth bits before the numbers.
pub(super) struct Q5K;

impl Integers for Q5K {
    const LENGTH: usize = 256;
    const BYTES: usize = 176;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::UpTo31;
    const HAS_MINIMUM: bool = true;
    #[inline(always)]
    fn read(block: &[u8], out: &mut GroupCodes<'_>) {
        let (fifths, numbers) = block[16..].split_at(32);
        groups_of_32(block, numbers, out);
        for (group, out) in out.codes.chunks_exact_mut(32).enumerate() {
            for (out, fifth) in out.iter_mut().zip(fifths) {
                *out |= (fifth >> group & 1) << 4;
            }
        }
    }
}

/// 16 groups of 16 numbers of 6 bits with an offset of 32: the lower 4 bits, the upper 2 bits, a
/// signed byte for each group, and a scale.
pub(super) struct Q6K;

impl Integers for Q6K {
    const LENGTH: usize = 256;
    const BYTES: usize = 210;
    const GROUP: usize = 16;
    const CODES: Codes = Codes::UpTo63;
    const OFFSET: u8 = 32;
    #[inline(always)]
    fn read(block: &[u8], out: &mut GroupCodes<'_>) {
        let (low, high, factors) = (&block[..128], &block[128..192], &block[192..208]);
        let d = half_at(block, 208);
        for (scale, factor) in out.scales.iter_mut().zip(factors) {
            *scale = d * f32::from(factor.cast_signed());
        }
        // Numbers whose bits have the same place in their bytes.
        for (stretch, out) in out.codes.chunks_exact_mut(32).enumerate() {
            let (half, part) = (stretch / 4, stretch % 4);
            let low = &low[half * 64 + part % 2 * 32..][..32];
            let high = &high[half * 32..][..32];
            let (low_at, high_at) = (part / 2 * 4, part * 2);
            for (out, (low, high)) in out.iter_mut().zip(low.iter().zip(high)) {
                *out = low >> low_at & 15 | (high >> high_at & 3) << 4;
            }
        }
    }
}
