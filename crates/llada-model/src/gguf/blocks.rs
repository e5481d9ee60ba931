//! Element types of GGUF tensors, and their values in `f32`.
//!
//! Quantised values lie in blocks that share scales. All products and differences are rounded to
//! `f32` one by one, in the order of the public `gguf` Python package (0.19), so the values are its
//! values, bit by bit. What it cannot read is not read here either, but named.
//!
//! Source: `ggml.h`, `ggml-quants.c` and `ggml-common.h` of ggml, `quants.py` of the package.

mod floats;
mod grids;
mod k;
mod offsets;
mod ternary;

use std::ops::Range;

use half::f16;
use llada_tensor::backend::BlockFormat;

/// An element type that can be read.
#[derive(Debug)]
pub(super) struct Kind {
    /// Its number in `ggml_type`.
    number: u32,
    pub(super) name: &'static str,
    /// Its blocks; of blocks of one value any number is widened at once.
    pub(super) format: BlockFormat,
}

const fn kind(
    number: u32,
    name: &'static str,
    length: usize,
    bytes: usize,
    widen: fn(&[u8], &mut [f32]),
) -> Kind {
    Kind {
        number,
        name,
        format: BlockFormat {
            length,
            bytes,
            widen,
        },
    }
}

/// Numbers of the types that are written here too.
pub(super) const F32: u32 = 0;
pub(super) const F16: u32 = 1;
pub(super) const Q4_0: u32 = 2;
pub(super) const Q8_0: u32 = 8;
pub(super) const BF16: u32 = 30;

static KINDS: [Kind; 26] = [
    kind(F32, "F32", 1, 4, floats::f32),
    kind(F16, "F16", 1, 2, floats::f16),
    kind(Q4_0, "Q4_0", 32, 18, offsets::q4_0),
    kind(3, "Q4_1", 32, 20, offsets::q4_1),
    kind(6, "Q5_0", 32, 22, offsets::q5_0),
    kind(7, "Q5_1", 32, 24, offsets::q5_1),
    kind(Q8_0, "Q8_0", 32, 34, offsets::q8_0),
    kind(10, "Q2_K", 256, 84, k::q2_k),
    kind(11, "Q3_K", 256, 110, k::q3_k),
    kind(12, "Q4_K", 256, 144, k::q4_k),
    kind(13, "Q5_K", 256, 176, k::q5_k),
    kind(14, "Q6_K", 256, 210, k::q6_k),
    kind(16, "IQ2_XXS", 256, 66, grids::iq2_xxs),
    kind(17, "IQ2_XS", 256, 74, grids::iq2_xs),
    kind(18, "IQ3_XXS", 256, 98, grids::iq3_xxs),
    kind(19, "IQ1_S", 256, 50, grids::iq1_s),
    kind(20, "IQ4_NL", 32, 18, floats::iq4_nl),
    kind(21, "IQ3_S", 256, 110, grids::iq3_s),
    kind(22, "IQ2_S", 256, 82, grids::iq2_s),
    kind(23, "IQ4_XS", 256, 136, floats::iq4_xs),
    kind(29, "IQ1_M", 256, 56, grids::iq1_m),
    kind(BF16, "BF16", 1, 2, floats::bf16),
    kind(34, "TQ1_0", 256, 54, ternary::tq1_0),
    kind(35, "TQ2_0", 256, 66, ternary::tq2_0),
    kind(39, "MXFP4", 32, 17, floats::mxfp4),
    kind(40, "NVFP4", 64, 36, floats::nvfp4),
];

/// The types of `ggml_type` that no reader of files needs, or that are gone from ggml.
const OTHERS: [(u32, &str); 16] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (9, "Q8_1"),
    (15, "Q8_K"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
    (41, "Q1_0"),
];

impl Kind {
    /// The type with a number of `ggml_type`.
    pub(super) fn of(number: u32) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.number == number)
    }

    /// What a number that is not read stands for, and what is read, for messages.
    pub(super) fn unknown(number: u32) -> (String, String) {
        let named = OTHERS.iter().find(|(other, _)| *other == number);
        let got = match named {
            Some((_, name)) => format!("type {name}"),
            None => format!("type {number}, which the ggml of gguf 0.19 does not know"),
        };
        let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
        (got, format!("one of {}", names.join(", ")))
    }

    /// Whether the values are bf16 as they are.
    pub(super) fn is_bf16(&self) -> bool {
        self.number == BF16
    }

    /// Whether values share scales.
    pub(super) fn is_quantized(&self) -> bool {
        self.format.length > 1
    }

    /// Bytes of a tensor, if its rows are whole blocks and it is not too large to be.
    pub(super) fn size_bytes(&self, shape: &[usize]) -> Option<usize> {
        let row = shape.last().copied().unwrap_or(1);
        let product = |product: usize, &n: &usize| product.checked_mul(n);
        let numel = shape.iter().try_fold(1, product)?;
        let BlockFormat { length, bytes, .. } = self.format;
        let size = (numel / length).checked_mul(bytes)?;
        row.is_multiple_of(length).then_some(size)
    }

    /// The bytes of `n` values from `start` on, both in whole blocks.
    pub(super) fn bytes_of(&self, start: usize, n: usize) -> Range<usize> {
        let [start, end] = [start, start + n].map(|at| at / self.format.length * self.format.bytes);
        start..end
    }

    /// Writes the values of a tensor's bytes, which are as many whole blocks as `out` is.
    pub(super) fn values(&self, bytes: &[u8], out: &mut [f32]) {
        match self.is_quantized() {
            true => self.format.values(bytes, out),
            false => (self.format.widen)(bytes, out),
        }
    }
}

/// The 16-bit word at a byte.
fn u16_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

/// The half-precision number at a byte.
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_bits(u16_at(block, at)).to_f32()
}

/// The lower 4 bits of a byte, or the upper ones where `index` is odd.
fn nibble(bytes: &[u8], index: usize) -> u8 {
    bytes[index / 2] >> (index % 2 * 4) & 15
}

#[cfg(test)]
pub(super) mod tests;
