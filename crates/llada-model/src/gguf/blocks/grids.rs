//! Blocks of 256 numbers whose codes stand for 8 or 4 numbers at a time, the points of a grid.
//!
//! `grids.bin` holds the points of all grids, 16 bits each, the first number in the lowest bits: 8
//! numbers of 2 bits or 4 numbers of 4 bits, which count the values of the grid. It was recorded
//! from the `gguf` package by `tools/record_gguf_blocks.py`.

use super::{half_at, nibble, u16_at};

static POINTS: &[u8; 2 * 4608] = include_bytes!("grids.bin");

/// Points of `N` numbers.
struct Grid<const N: usize, const VALUES: usize> {
    /// The place of its first point in the file.
    start: usize,
    values: [f32; VALUES],
}

const VALUES_2: [f32; 3] = [8.0, 25.0, 43.0];
const IQ2_XXS: Grid<8, 3> = Grid {
    start: 0,
    values: VALUES_2,
};
const IQ2_XS: Grid<8, 3> = Grid {
    start: 256,
    values: VALUES_2,
};
const IQ2_S: Grid<8, 3> = Grid {
    start: 768,
    values: VALUES_2,
};
const IQ3_XXS: Grid<4, 8> = Grid {
    start: 1792,
    values: [4.0, 12.0, 20.0, 28.0, 36.0, 44.0, 52.0, 62.0],
};
const IQ3_S: Grid<4, 8> = Grid {
    start: 2048,
    values: [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0],
};
const IQ1: Grid<8, 3> = Grid {
    start: 2560,
    values: [-1.0, 0.0, 1.0],
};

impl<const N: usize, const VALUES: usize> Grid<N, VALUES> {
    /// The numbers of a point.
    fn point(&self, code: usize) -> [f32; N] {
        let (bits, word) = (16 / N, u16_at(POINTS, 2 * (self.start + code)));
        std::array::from_fn(|at| {
            let number = word >> (bits * at) & ((1 << bits) - 1);
            self.values[usize::from(number)]
        })
    }

    /// Writes a point times a scale; set bits of `signs` say which numbers are negative.
    fn write(&self, code: usize, scale: f32, signs: u8, out: &mut [f32]) {
        for (at, (out, x)) in out.iter_mut().zip(self.point(code)).enumerate() {
            let sign = if signs >> at & 1 == 0 { 1.0 } else { -1.0 };
            *out = scale * x * sign;
        }
    }
}

/// The signs of 8 numbers by those of 7: an even number of them are negative.
fn even_signs(signs: u32) -> u8 {
    let signs = (signs & 127) as u8;
    signs | (signs.count_ones() as u8 & 1) << 7
}

fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from(u16_at(block, at)) | u32::from(u16_at(block, at + 2)) << 16
}

/// A scale, then for each group of 32 numbers 4 codes and a word: 7 signs for each of the codes,
/// and 4 bits of a factor.
pub(super) fn iq2_xxs(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    let groups = block[2..].chunks_exact(8).zip(out.chunks_exact_mut(32));
    for (group, out) in groups {
        let word = u32_at(group, 4);
        let scale = d * (0.5 + (word >> 28) as f32) * 0.25;
        for (at, out) in out.chunks_exact_mut(8).enumerate() {
            let signs = even_signs(word >> (7 * at));
            IQ2_XXS.write(group[at].into(), scale, signs, out);
        }
    }
}

/// A scale, 32 words of a 9-bit code and 7 signs, and 4-bit factors, each for two of the codes.
pub(super) fn iq2_xs(block: &[u8], out: &mut [f32]) {
    let (d, words, factors) = (half_at(block, 0), &block[2..66], &block[66..]);
    for (at, out) in out.chunks_exact_mut(8).enumerate() {
        let scale = d * (0.5 + f32::from(nibble(factors, at / 2))) * 0.25;
        let word = u16_at(words, 2 * at);
        let signs = even_signs(u32::from(word >> 9));
        IQ2_XS.write(usize::from(word & 511), scale, signs, out);
    }
}

/// A scale, the lower 8 bits of 32 codes, their signs, their upper 2 bits, and 4-bit factors.
pub(super) fn iq2_s(block: &[u8], out: &mut [f32]) {
    let (d, low, signs) = (half_at(block, 0), &block[2..34], &block[34..66]);
    let (high, factors) = (&block[66..74], &block[74..]);
    for (at, out) in out.chunks_exact_mut(8).enumerate() {
        let scale = d * (0.5 + f32::from(nibble(factors, at / 2))) * 0.25;
        let high = usize::from(high[at / 4] >> (at % 4 * 2) & 3);
        IQ2_S.write(usize::from(low[at]) | high << 8, scale, signs[at], out);
    }
}

/// A scale, 64 codes, and a word for each 8 of them: 7 signs for each pair, 4 bits of a factor.
pub(super) fn iq3_xxs(block: &[u8], out: &mut [f32]) {
    let (d, codes, words) = (half_at(block, 0), &block[2..66], &block[66..]);
    for (at, out) in out.chunks_exact_mut(8).enumerate() {
        let word = u32_at(words, at / 4 * 4);
        let scale = d * (0.5 + (word >> 28) as f32) * 0.5;
        let signs = even_signs(word >> (at % 4 * 7));
        let (first, second) = out.split_at_mut(4);
        IQ3_XXS.write(codes[2 * at].into(), scale, signs, first);
        IQ3_XXS.write(codes[2 * at + 1].into(), scale, signs >> 4, second);
    }
}

/// A scale, the lower 8 bits of 64 codes, their ninth bits, signs, and 4-bit factors, each for 8 of
/// the codes.
pub(super) fn iq3_s(block: &[u8], out: &mut [f32]) {
    let (d, low, high) = (half_at(block, 0), &block[2..66], &block[66..74]);
    let (signs, factors) = (&block[74..106], &block[106..]);
    for (at, out) in out.chunks_exact_mut(4).enumerate() {
        let scale = d * f32::from(1 + 2 * nibble(factors, at / 8));
        let high = usize::from(high[at / 8] >> (at % 8) & 1);
        let signs = signs[at / 2] >> (at % 2 * 4);
        IQ3_S.write(usize::from(low[at]) | high << 8, scale, signs, out);
    }
}

/// Writes a point of the ternary grid, moved up or down by an eighth.
fn moved(code: usize, scale: f32, is_down: bool, out: &mut [f32]) {
    let by = if is_down { -0.125 } else { 0.125 };
    for (out, x) in out.iter_mut().zip(IQ1.point(code)) {
        *out = scale * (x + by);
    }
}

/// A scale, the lower 8 bits of 32 codes, and a word for each four: their upper 3 bits, 3 bits of a
/// factor, and whether they are moved down.
pub(super) fn iq1_s(block: &[u8], out: &mut [f32]) {
    let (d, low, words) = (half_at(block, 0), &block[2..34], &block[34..]);
    for (at, out) in out.chunks_exact_mut(8).enumerate() {
        let word = u16_at(words, at / 4 * 2);
        let scale = d * f32::from(2 * (word >> 12 & 7) + 1);
        let high = usize::from(word >> (at % 4 * 3) & 7);
        moved(
            usize::from(low[at]) | high << 8,
            scale,
            word >> 15 == 1,
            out,
        );
    }
}

/// The lower 8 bits of 32 codes, 4 more bits of each (3 of the code, and whether it is moved down),
/// and 4 words, each with a quarter of the scale and four 3-bit factors, one for two codes.
pub(super) fn iq1_m(block: &[u8], out: &mut [f32]) {
    let (low, high, words) = (&block[..32], &block[32..48], &block[48..]);
    let quarter = |index: usize| u16_at(words, 2 * index) >> 12 << (4 * index);
    let d = half::f16::from_bits((0..4).map(quarter).fold(0, |bits, x| bits | x)).to_f32();
    for (at, out) in out.chunks_exact_mut(8).enumerate() {
        let factor = u16_at(words, at / 8 * 2) >> (at / 2 % 4 * 3) & 7;
        let scale = d * f32::from(2 * factor + 1);
        let high = nibble(high, at);
        let code = usize::from(low[at]) | usize::from(high & 7) << 8;
        moved(code, scale, high & 8 != 0, out);
    }
}
