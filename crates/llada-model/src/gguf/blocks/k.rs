//! Blocks of 256 numbers of 2 to 6 bits in groups, each of which has a factor for the block's scale
//! and, in some types, one for its minimum.

use super::half_at;

/// Bits of number `at` of 256, of which four share a byte: halves of 128 numbers, in each of them
/// four stretches of 32.
fn pair_of_bits(bytes: &[u8], at: usize) -> u8 {
    bytes[at / 128 * 32 + at % 32] >> (at / 32 % 4 * 2) & 3
}

/// 16 groups of 16 numbers of 2 bits: 4-bit factors of the scale and the minimum, the numbers, both
/// scales. `d * factor * q - dmin * other_factor`.
pub(super) fn q2_k(block: &[u8], out: &mut [f32]) {
    let (factors, numbers) = (&block[..16], &block[16..80]);
    let (d, dmin) = (half_at(block, 80), half_at(block, 82));
    for (group, out) in out.chunks_exact_mut(16).enumerate() {
        let factor = d * f32::from(factors[group] & 15);
        let minimum = dmin * f32::from(factors[group] >> 4);
        for (lane, out) in out.iter_mut().enumerate() {
            let q = pair_of_bits(numbers, group * 16 + lane);
            *out = factor * f32::from(q) - minimum;
        }
    }
}

/// 16 groups of 16 numbers of 3 bits with an offset of 4: the third bits, the lower 2 bits, 6-bit
/// factors with an offset of 32 (lower 4 bits, then upper 2), and a scale.
pub(super) fn q3_k(block: &[u8], out: &mut [f32]) {
    let (thirds, numbers, factors) = (&block[..32], &block[32..96], &block[96..108]);
    let d = half_at(block, 108);
    for (group, out) in out.chunks_exact_mut(16).enumerate() {
        let low = factors[group % 8] >> (group / 8 * 4) & 15;
        let high = factors[8 + group % 4] >> (group / 4 * 2) & 3;
        let factor = d * (f32::from(low | high << 4) - 32.0);
        for (lane, out) in out.iter_mut().enumerate() {
            let at = group * 16 + lane;
            let third = thirds[at % 32] >> (at / 32) & 1;
            let q = pair_of_bits(numbers, at) | third << 2;
            *out = factor * (f32::from(q) - 4.0);
        }
    }
}

/// 6-bit factors of the scale and the minimum of one of 8 groups.
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

/// 8 groups of 32 numbers, whose lower 4 bits lie in `numbers` and whose fifth one `fifth` gives.
fn groups_of_32(block: &[u8], numbers: &[u8], fifth: impl Fn(usize, usize) -> u8, out: &mut [f32]) {
    let (d, dmin, factors) = (half_at(block, 0), half_at(block, 2), &block[4..16]);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (factor, minimum) = factors_of(factors, group);
        let (factor, minimum) = (d * f32::from(factor), dmin * f32::from(minimum));
        let bytes = &numbers[group / 2 * 32..];
        for (lane, (out, byte)) in out.iter_mut().zip(bytes).enumerate() {
            let q = byte >> (group % 2 * 4) & 15 | fifth(group, lane) << 4;
            *out = factor * f32::from(q) - minimum;
        }
    }
}

/// Two scales, then 6-bit factors of both for each of 8 groups, then 8 groups of 32 numbers of
/// 4 bits: `d * factor * q - dmin * other_factor`.
pub(super) fn q4_k(block: &[u8], out: &mut [f32]) {
    groups_of_32(block, &block[16..], |_, _| 0, out);
}

/// As `Q4_K`, with the fifth bits before the numbers.
pub(super) fn q5_k(block: &[u8], out: &mut [f32]) {
    let (fifths, numbers) = block[16..].split_at(32);
    let fifth = |group: usize, lane: usize| fifths[lane] >> group & 1;
    groups_of_32(block, numbers, fifth, out);
}

/// 16 groups of 16 numbers of 6 bits with an offset of 32: the lower 4 bits, the upper 2 bits, a
/// signed byte for each group, and a scale.
pub(super) fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, high, factors) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half_at(block, 208);
    // Numbers whose bits have the same place in their bytes.
    for (stretch, out) in out.chunks_exact_mut(32).enumerate() {
        let (half, part) = (stretch / 4, stretch % 4);
        let low = &low[half * 64 + part % 2 * 32..][..32];
        let high = &high[half * 32..][..32];
        let (low_at, high_at) = (part / 2 * 4, part * 2);
        for (group, out) in out.chunks_exact_mut(16).enumerate() {
            let factor = d * f32::from(factors[stretch * 2 + group].cast_signed());
            let bytes = low[group * 16..].iter().zip(&high[group * 16..]);
            for (out, (low, high)) in out.iter_mut().zip(bytes) {
                let q = low >> low_at & 15 | (high >> high_at & 3) << 4;
                *out = factor * (f32::from(q) - 32.0);
            }
        }
    }
}
