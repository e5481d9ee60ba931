//! Values that are numbers of few bits themselves: floats, and codes of a table of 16 values.

use half::{bf16, f16};
use llada_tensor::backend::{Codes, GroupCodes};

use super::{Integers, half_at, nibble, u16_at};
use crate::stored::words;

/// The values of the 4-bit codes of `IQ4_NL` and `IQ4_XS`.
const NON_LINEAR: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];
/// Twice the values of a 4-bit float with 2 bits of exponent and 1 of mantissa (E2M1).
const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

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

/// The numbers of a table that codes stand for; the codes in the lower halves of the bytes come first.
fn of_table(codes: &[u8], table: &[i8; 16], out: &mut [u8]) {
    let (low, high) = out.split_at_mut(codes.len());
    for ((low, high), code) in low.iter_mut().zip(high).zip(codes) {
        *low = table[usize::from(code & 15)].cast_unsigned();
        *high = table[usize::from(code >> 4)].cast_unsigned();
    }
}

/// A scale and 32 codes.
pub(super) struct Iq4Nl;

impl Integers for Iq4Nl {
    const LENGTH: usize = 32;
    const BYTES: usize = 18;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Signed;
    #[inline(always)]
    fn read(block: &[u8], out: &mut GroupCodes<'_>) {
        out.scales[0] = half_at(block, 0);
        of_table(&block[2..], &NON_LINEAR, out.codes);
    }
}

/// A scale, the upper 2 bits and the lower 4 bits of a factor for each of 8 groups, and their codes.
pub(super) struct Iq4Xs;

impl Integers for Iq4Xs {
    const LENGTH: usize = 256;
    const BYTES: usize = 136;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Signed;
    #[inline(always)]
    fn read(block: &[u8], out: &mut GroupCodes<'_>) {
        let (d, high, low) = (half_at(block, 0), u16_at(block, 2), &block[4..8]);
        let codes = out.codes.chunks_exact_mut(32);
        let groups = block[8..]
            .chunks_exact(16)
            .zip(codes)
            .zip(out.scales.iter_mut());
        for (group, ((bytes, out), scale)) in groups.enumerate() {
            let high = (high >> (2 * group) & 3) << 4;
            *scale = d * (f32::from(high | u16::from(nibble(low, group))) - 32.0);
            of_table(bytes, &NON_LINEAR, out);
        }
    }
}

/// Half of a power of two, by its 8-bit exponent alone (E8M0), and 32 codes.
pub(super) struct Mxfp4;

impl Integers for Mxfp4 {
    const LENGTH: usize = 32;
    const BYTES: usize = 17;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Signed;
    #[inline(always)]
    fn read(block: &[u8], out: &mut GroupCodes<'_>) {
        let bits = match block[0] {
            // Below the exponents of normal numbers.
            exponent @ 0..2 => 0x0020_0000 << exponent,
            exponent => (u32::from(exponent) - 1) << 23,
        };
        out.scales[0] = f32::from_bits(bits);
        of_table(&block[1..], &E2M1, out.codes);
    }
}

/// Four unsigned 8-bit floats (4 bits of exponent, 3 of mantissa), each the scale of 16 codes.
pub(super) struct Nvfp4;

impl Integers for Nvfp4 {
    const LENGTH: usize = 64;
    const BYTES: usize = 36;
    const GROUP: usize = 16;
    const CODES: Codes = Codes::Signed;
    #[inline(always)]
    fn read(block: &[u8], out: &mut GroupCodes<'_>) {
        let (scales, codes) = block.split_at(4);
        let groups = codes.chunks_exact(8).zip(out.codes.chunks_exact_mut(16));
        for ((&float, (bytes, codes)), scale) in
            scales.iter().zip(groups).zip(out.scales.iter_mut())
        {
            let (exponent, mantissa) = (i32::from(float >> 3 & 15), f32::from(float & 7));
            let value = match (float, exponent) {
                // Not a number.
                (0x7f, _) => 0.0,
                (_, 0) => mantissa * 2.0_f32.powi(-9),
                _ => (1.0 + mantissa / 8.0) * 2.0_f32.powi(exponent - 7),
            };
            *scale = value * 0.5;
            of_table(bytes, &E2M1, codes);
        }
    }
}
