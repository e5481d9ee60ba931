//! 4-bit codes to the 8-bit ones that are multiplied.

use super::super::simd::int8::{STEP_BYTES, STEP_MULTIPLIERS};
use super::super::simd::{Kernel, Simd};

/// Widens steps of 4-bit codes: `(code - 8) * multiplier`.
pub(super) struct Widen<'a> {
    pub(super) codes: &'a [u8],
    pub(super) multipliers: &'a [u8],
    pub(super) out: &'a mut [i8],
}

/// What the codes of a group become: `(code ^ flip) * factor - bias`, for 16 columns of four bytes. A
/// product of two codes at once is one of 16 bits, as none leaves its byte.
#[repr(align(64))]
struct Widening {
    flips: [u16; 32],
    factors: [u16; 32],
    biases: [u8; 64],
}

impl Widening {
    #[inline(always)]
    fn of(multipliers: &[u8; 16]) -> Self {
        let [mut flips, mut factors, mut biases] = [[0_u32; 16]; 3];
        for i in 0..16 {
            // A code mirrored at 7.5 stands for its negative.
            let multiplier = multipliers[i].cast_signed();
            let (flip, mid) = if multiplier < 0 { (15, 7) } else { (0, 8) };
            let factor = u32::from(multiplier.unsigned_abs());
            flips[i] = flip * 0x0101_0101;
            factors[i] = factor * 0x0001_0001;
            biases[i] = (mid * factor) * 0x0101_0101;
        }
        Self {
            flips: bytemuck::cast(flips),
            factors: bytemuck::cast(factors),
            biases: bytemuck::cast(biases),
        }
    }

    /// The codes lie at bits `shift..shift + 4` of each byte.
    #[inline(always)]
    fn apply(&self, codes: &[u16; 32], shift: u32, out: &mut [i8; 64]) {
        let mut products = [0_u16; 32];
        for i in 0..32 {
            let codes = (codes[i] >> shift) & 0x0f0f;
            products[i] = (codes ^ self.flips[i]).wrapping_mul(self.factors[i]);
        }
        let products: [u8; 64] = bytemuck::cast(products);
        for i in 0..64 {
            out[i] = products[i].wrapping_sub(self.biases[i]).cast_signed();
        }
    }
}

impl Kernel for Widen<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        /// A row of a tile: 16 columns of 4 values.
        const ROW: usize = 64;
        /// A group is eight rows of four values.
        const GROUP: usize = 8 * ROW;
        let codes = self.codes.as_chunks::<{ STEP_BYTES / 2 }>().0;
        let multipliers = self.multipliers.as_chunks::<STEP_MULTIPLIERS>().0;
        let outs = self.out.as_chunks_mut::<STEP_BYTES>().0;
        for ((codes, multipliers), out) in codes.iter().zip(multipliers).zip(outs) {
            let (left, right) = out.split_at_mut(STEP_BYTES / 2);
            let groups = codes.as_chunks::<GROUP>().0.iter();
            let groups = groups.zip(multipliers.as_chunks::<16>().0.as_chunks::<2>().0);
            let outs = left.as_chunks_mut::<GROUP>().0.iter_mut();
            let outs = outs.zip(right.as_chunks_mut::<GROUP>().0);
            for ((codes, multipliers), (left, right)) in groups.zip(outs) {
                let (of_left, of_right) =
                    (Widening::of(&multipliers[0]), Widening::of(&multipliers[1]));
                let rows = codes.as_chunks::<ROW>().0.iter();
                let outs = left.as_chunks_mut::<ROW>().0.iter_mut();
                let outs = outs.zip(right.as_chunks_mut::<ROW>().0);
                for (codes, (left, right)) in rows.zip(outs) {
                    let codes: [u16; 32] = bytemuck::pod_read_unaligned(codes);
                    of_left.apply(&codes, 0, left);
                    of_right.apply(&codes, 4, right);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CpuLevel;

    #[test]
    fn every_code_is_widened_by_every_multiplier() {
        let code = |at: usize| (at * 7 + at / 64) % 16;
        let codes: Vec<u8> = (0..STEP_BYTES / 2)
            .map(|at| (code(at) | code(at + STEP_BYTES / 2) << 4) as u8)
            .collect();
        for level in CpuLevel::available() {
            for multiplier in -15..=15_i8 {
                // Neighbors have others, and the halves of a step too.
                let of = |i: usize| (multiplier + 15 + (i % 31) as i8) % 31 - 15;
                let multipliers: Vec<u8> = (0..STEP_MULTIPLIERS)
                    .map(|i| of(i).cast_unsigned())
                    .collect();
                let mut out = vec![0; STEP_BYTES];
                level.run(Widen {
                    codes: &codes,
                    multipliers: &multipliers,
                    out: &mut out,
                });
                for (at, &got) in out.iter().enumerate() {
                    let (half, row, column) = (at / 1024, at % 1024 / 64, at % 64 / 4);
                    let of_column = of(row / 8 * 32 + half * 16 + column);
                    let want = (code(at) as i8 - 8) * of_column;
                    assert_eq!(got, want, "{level:?}, byte {at}, multiplier {of_column}");
                }
            }
        }
    }
}
