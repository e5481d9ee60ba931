//! Blocks of 256 numbers that are -1, 0 or 1, with one scale.

use llada_tensor::backend::{Codes, GroupCodes};

use super::{Integers, half_at};

/// Five numbers a byte, as the digits of a fraction in base 3: 32 bytes with five each, 16 bytes
/// with five, 4 bytes with four; then the scale.
pub(super) struct Tq1_0;

impl Integers for Tq1_0 {
    const LENGTH: usize = 256;
    const BYTES: usize = 54;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::UpTo15;
    const OFFSET: u8 = 1;
    #[inline(always)]
    fn read(block: &[u8], out: &mut GroupCodes<'_>) {
        const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
        out.scales.fill(half_at(block, 52));
        let (first, rest) = out.codes.split_at_mut(160);
        let (second, third) = rest.split_at_mut(80);
        for (bytes, out) in [
            (&block[..32], first),
            (&block[32..48], second),
            (&block[48..52], third),
        ] {
            for (power, out) in POWERS.iter().zip(out.chunks_exact_mut(bytes.len())) {
                for (byte, out) in bytes.iter().zip(out) {
                    // The digits before this one fall off at the top of the byte.
                    *out = ((u16::from(byte.wrapping_mul(*power)) * 3) >> 8) as u8;
                }
            }
        }
    }
}

/// Numbers of 2 bits with an offset of 1; then the scale.
pub(super) struct Tq2_0;

impl Integers for Tq2_0 {
    const LENGTH: usize = 256;
    const BYTES: usize = 66;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::UpTo15;
    const OFFSET: u8 = 1;
    #[inline(always)]
    fn read(block: &[u8], out: &mut GroupCodes<'_>) {
        out.scales.fill(half_at(block, 64));
        super::k::pairs_of_bits(&block[..64], out.codes);
    }
}
