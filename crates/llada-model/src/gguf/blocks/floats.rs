//! Values that are numbers of few bits themselves: floats, and codes of a table of 16 values.

use half::{bf16, f16};

use super::{half_at, nibble, u16_at};
use crate::stored::words;

/// The values of the 4-bit codes of `IQ4_NL` and `IQ4_XS`.
const NON_LINEAR: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0,
    89.0, 113.0,
];
/// Twice the values of a 4-bit float with 2 bits of exponent and 1 of mantissa (E2M1).
const E2M1: [f32; 16] = [
    0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0,
];

/// Any number of values, as the two below.
pub(super) fn f32(bytes: &[u8], out: &mut [f32]) {
    for (out, word) in out.iter_mut().zip(words(bytes)) {
        *out = f32::from_le_bytes(word);
    }
}

pub(super) fn f16(bytes: &[u8], out: &mut [f32]) {
    for (out, word) in out.iter_mut().zip(words(bytes)) {
        *out = f16::from_le_bytes(word).to_f32();
    }
}

pub(super) fn bf16(bytes: &[u8], out: &mut [f32]) {
    for (out, word) in out.iter_mut().zip(words(bytes)) {
        *out = bf16::from_le_bytes(word).to_f32();
    }
}

/// `scale * table[code]`; the codes in the lower halves of the bytes come first.
fn of_table(scale: f32, codes: &[u8], table: &[f32; 16], out: &mut [f32]) {
    let (low, high) = out.split_at_mut(codes.len());
    for ((low, high), code) in low.iter_mut().zip(high).zip(codes) {
        *low = scale * table[usize::from(code & 15)];
        *high = scale * table[usize::from(code >> 4)];
    }
}

/// A scale and 32 codes.
pub(super) fn iq4_nl(block: &[u8], out: &mut [f32]) {
    of_table(half_at(block, 0), &block[2..], &NON_LINEAR, out);
}

/// A scale, the upper 2 bits and the lower 4 bits of a factor for each of 8 groups, and their codes.
pub(super) fn iq4_xs(block: &[u8], out: &mut [f32]) {
    let (d, high, low) = (half_at(block, 0), u16_at(block, 2), &block[4..8]);
    let groups = block[8..].chunks_exact(16).zip(out.chunks_exact_mut(32));
    for (group, (codes, out)) in groups.enumerate() {
        let high = (high >> (2 * group) & 3) << 4;
        let factor = f32::from(high | u16::from(nibble(low, group))) - 32.0;
        of_table(d * factor, codes, &NON_LINEAR, out);
    }
}

/// Half of a power of two, by its 8-bit exponent alone (E8M0), and 32 codes.
pub(super) fn mxfp4(block: &[u8], out: &mut [f32]) {
    let bits = match block[0] {
        // Below the exponents of normal numbers.
        exponent @ 0..2 => 0x0020_0000 << exponent,
        exponent => (u32::from(exponent) - 1) << 23,
    };
    of_table(f32::from_bits(bits), &block[1..], &E2M1, out);
}

/// Four unsigned 8-bit floats (4 bits of exponent, 3 of mantissa), each the scale of 16 codes.
pub(super) fn nvfp4(block: &[u8], out: &mut [f32]) {
    let (scales, codes) = block.split_at(4);
    let groups = codes.chunks_exact(8).zip(out.chunks_exact_mut(16));
    for (&scale, (codes, out)) in scales.iter().zip(groups) {
        let (exponent, mantissa) = (i32::from(scale >> 3 & 15), f32::from(scale & 7));
        let scale = match (scale, exponent) {
            // Not a number.
            (0x7f, _) => 0.0,
            (_, 0) => mantissa * 2.0_f32.powi(-9),
            _ => (1.0 + mantissa / 8.0) * 2.0_f32.powi(exponent - 7),
        };
        of_table(scale * 0.5, codes, &E2M1, out);
    }
}
