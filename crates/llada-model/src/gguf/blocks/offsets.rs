//! Blocks of 32 numbers of 4, 5 or 8 bits with one scale, and an offset that is fixed (`_0`) or a
//! minimum of the block's own (`_1`).

use llada_tensor::backend::{Codes, GroupCodes};

use super::{Integers, half_at};

/// The numbers of 4 bits in `N` bytes; those in the lower halves of the bytes come first.
#[inline(always)]
pub(super) fn nibbles<const N: usize>(bytes: &[u8], out: &mut [u8]) {
    let (first, second) = out.split_at_mut(N);
    let (Some(bytes), Some(first), Some(second)) = (
        bytes.first_chunk::<N>(),
        first.first_chunk_mut::<N>(),
        second.first_chunk_mut::<N>(),
    ) else {
        unreachable!("a block has all of its bytes")
    };
    for at in 0..N {
        (first[at], second[at]) = (bytes[at] & 15, bytes[at] >> 4);
    }
}

/// Adds the fifth bit of each of 32 numbers.
#[inline(always)]
fn add_fifths(bits: &[u8], out: &mut [u8]) {
    for (out, &bits) in out.chunks_exact_mut(8).zip(bits) {
        for (at, out) in out.iter_mut().enumerate() {
            *out |= (bits >> at & 1) << 4;
        }
    }
}

/// A scale and 32 signed bytes.
pub(super) struct Q8_0;

impl Integers for Q8_0 {
    const LENGTH: usize = 32;
    const BYTES: usize = 34;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Signed;
    #[inline(always)]
    fn read(block: &[u8], out: &mut GroupCodes<'_>) {
        out.scales[0] = half_at(block, 0);
        out.codes.copy_from_slice(&block[2..]);
    }
}

/// A scale and 32 numbers with an offset of 8.
pub(super) struct Q4_0;

impl Integers for Q4_0 {
    const LENGTH: usize = 32;
    const BYTES: usize = 18;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::UpTo15;
    const OFFSET: u8 = 8;
    #[inline(always)]
    fn read(block: &[u8], out: &mut GroupCodes<'_>) {
        out.scales[0] = half_at(block, 0);
        nibbles::<16>(&block[2..], out.codes);
    }
}

/// A scale, a minimum and 32 numbers.
pub(super) struct Q4_1;

impl Integers for Q4_1 {
    const LENGTH: usize = 32;
    const BYTES: usize = 20;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::UpTo15;
    const HAS_MINIMUM: bool = true;
    #[inline(always)]
    fn read(block: &[u8], out: &mut GroupCodes<'_>) {
        (out.scales[0], out.minimums[0]) = (half_at(block, 0), half_at(block, 2));
        nibbles::<16>(&block[4..], out.codes);
    }
}

/// A scale, the fifth bits, and the lower 4 bits of 32 numbers with an offset of 16.
pub(super) struct Q5_0;

impl Integers for Q5_0 {
    const LENGTH: usize = 32;
    const BYTES: usize = 22;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::UpTo31;
    const OFFSET: u8 = 16;
    #[inline(always)]
    fn read(block: &[u8], out: &mut GroupCodes<'_>) {
        out.scales[0] = half_at(block, 0);
        nibbles::<16>(&block[6..], out.codes);
        add_fifths(&block[2..6], out.codes);
    }
}

/// A scale, a minimum, the fifth bits, and the lower 4 bits of 32 numbers.
pub(super) struct Q5_1;

impl Integers for Q5_1 {
    const LENGTH: usize = 32;
    const BYTES: usize = 24;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::UpTo31;
    const HAS_MINIMUM: bool = true;
    #[inline(always)]
    fn read(block: &[u8], out: &mut GroupCodes<'_>) {
        (out.scales[0], out.minimums[0]) = (half_at(block, 0), half_at(block, 2));
        nibbles::<16>(&block[8..], out.codes);
        add_fifths(&block[4..8], out.codes);
    }
}
