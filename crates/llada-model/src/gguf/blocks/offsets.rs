//! Blocks of 32 numbers of 4, 5 or 8 bits with one scale, and an offset that is fixed (`_0`) or a
//! minimum of the block's own (`_1`).

use super::half_at;

/// A scale and 32 signed bytes.
pub(super) fn q8_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (out, &q) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(q.cast_signed()) * d;
    }
}

/// The value of each number of 4 bits; those in the lower halves of the bytes come first.
fn of_nibbles(bytes: &[u8], out: &mut [f32], value: impl Fn(usize, u8) -> f32) {
    let (first, second) = out.split_at_mut(16);
    for (at, (out, &byte)) in first.iter_mut().zip(bytes).enumerate() {
        *out = value(at, byte & 15);
    }
    for (at, (out, &byte)) in second.iter_mut().zip(bytes).enumerate() {
        *out = value(at + 16, byte >> 4);
    }
}

/// The fifth bit of a number, in its place.
fn fifth(bits: &[u8], at: usize) -> u8 {
    (bits[at / 8] >> (at % 8) & 1) << 4
}

/// A scale and 32 numbers with an offset of 8.
pub(super) fn q4_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    of_nibbles(&block[2..], out, |_, q| d * (f32::from(q) - 8.0));
}

/// A scale, a minimum and 32 numbers.
pub(super) fn q4_1(block: &[u8], out: &mut [f32]) {
    let (d, minimum) = (half_at(block, 0), half_at(block, 2));
    of_nibbles(&block[4..], out, |_, q| d * f32::from(q) + minimum);
}

/// A scale, the fifth bits, and the lower 4 bits of 32 numbers with an offset of 16.
pub(super) fn q5_0(block: &[u8], out: &mut [f32]) {
    let (d, bits) = (half_at(block, 0), &block[2..6]);
    of_nibbles(&block[6..], out, |at, q| {
        d * (f32::from(q | fifth(bits, at)) - 16.0)
    });
}

/// A scale, a minimum, the fifth bits, and the lower 4 bits of 32 numbers.
pub(super) fn q5_1(block: &[u8], out: &mut [f32]) {
    let (d, minimum, bits) = (half_at(block, 0), half_at(block, 2), &block[4..8]);
    of_nibbles(&block[8..], out, |at, q| {
        d * f32::from(q | fifth(bits, at)) + minimum
    });
}
