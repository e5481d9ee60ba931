//! Blocks of 256 numbers that are -1, 0 or 1, with one scale.

use super::half_at;

/// Five numbers a byte, as the digits of a fraction in base 3: 32 bytes with five each, 16 bytes
/// with five, 4 bytes with four; then the scale.
pub(super) fn tq1_0(block: &[u8], out: &mut [f32]) {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    let d = half_at(block, 52);
    let (first, rest) = out.split_at_mut(160);
    let (second, third) = rest.split_at_mut(80);
    for (bytes, out) in [
        (&block[..32], first),
        (&block[32..48], second),
        (&block[48..52], third),
    ] {
        for (power, out) in POWERS.iter().zip(out.chunks_exact_mut(bytes.len())) {
            for (byte, out) in bytes.iter().zip(out) {
                // The digits before this one fall off at the top of the byte.
                let digit = (u16::from(byte.wrapping_mul(*power)) * 3) >> 8;
                *out = d * (f32::from(digit) - 1.0);
            }
        }
    }
}

/// Numbers of 2 bits with an offset of 1; then the scale.
pub(super) fn tq2_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 64);
    let halves = block[..64].chunks_exact(32).zip(out.chunks_exact_mut(128));
    for (bytes, out) in halves {
        for (stretch, out) in out.chunks_exact_mut(32).enumerate() {
            for (byte, out) in bytes.iter().zip(out) {
                *out = d * (f32::from(byte >> (2 * stretch) & 3) - 1.0);
            }
        }
    }
}
