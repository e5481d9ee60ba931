//! Element types of GGUF tensors, and their values in `f32`.
//!
//! Quantised values lie in blocks that share scales. All products and differences are rounded to
//! `f32` one by one, so the values are those of the public `gguf` Python package, bit by bit.
//!
//! Source: `ggml-quants.c` and `ggml-common.h` of ggml, `quants.py` of the `gguf` package.

use std::ops::Range;

use half::{bf16, f16};

use crate::stored::words;

/// An element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4_0,
    Q4K,
    Q6K,
}

impl Kind {
    pub(super) const SUPPORTED: &str = "F32, F16, BF16, Q8_0, Q4_0, Q4_K or Q6_K";

    /// The type with a number of `ggml_type`.
    pub(super) fn of(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4K => "Q4_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Values and bytes of a block.
    fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q8_0 => (32, 34),
            Self::Q4_0 => (32, 18),
            Self::Q4K => (256, 144),
            Self::Q6K => (256, 210),
        }
    }

    pub(super) fn block_length(self) -> usize {
        self.block().0
    }

    /// Bytes of a tensor, if its rows are whole blocks and it is not too large to be.
    pub(super) fn size_bytes(self, shape: &[usize]) -> Option<usize> {
        let (length, bytes) = self.block();
        let row = shape.last().copied().unwrap_or(1);
        let product = |product: usize, &n: &usize| product.checked_mul(n);
        let numel = shape.iter().try_fold(1, product)?;
        let size = (numel / length).checked_mul(bytes)?;
        row.is_multiple_of(length).then_some(size)
    }

    /// The bytes of `n` values from `start` on, both in whole blocks.
    pub(super) fn bytes_of(self, start: usize, n: usize) -> Range<usize> {
        let (length, bytes) = self.block();
        start / length * bytes..(start + n) / length * bytes
    }

    /// The values of a tensor's bytes.
    pub(super) fn values(self, bytes: &[u8]) -> Vec<f32> {
        let (length, block_bytes) = self.block();
        let blocks = bytes.chunks_exact(block_bytes);
        let mut values = Vec::with_capacity(blocks.len() * length);
        match self {
            Self::F32 => values.extend(words(bytes).map(f32::from_le_bytes)),
            Self::F16 => values.extend(words(bytes).map(|x| f16::from_le_bytes(x).to_f32())),
            Self::Bf16 => values.extend(words(bytes).map(|x| bf16::from_le_bytes(x).to_f32())),
            Self::Q8_0 => blocks.for_each(|block| q8_0(block, &mut values)),
            Self::Q4_0 => blocks.for_each(|block| q4_0(block, &mut values)),
            Self::Q4K => blocks.for_each(|block| q4_k(block, &mut values)),
            Self::Q6K => blocks.for_each(|block| q6_k(block, &mut values)),
        }
        values
    }
}

fn scale(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// A scale and 32 signed bytes.
fn q8_0(block: &[u8], values: &mut Vec<f32>) {
    let d = scale(block);
    values.extend(block[2..].iter().map(|&q| f32::from(q.cast_signed()) * d));
}

/// A scale and 32 numbers of 4 bits with an offset of 8; the low halves of the bytes come first.
fn q4_0(block: &[u8], values: &mut Vec<f32>) {
    let d = scale(block);
    let value = |q: u8| d * (f32::from(q) - 8.0);
    values.extend(block[2..].iter().map(|&q| value(q & 15)));
    values.extend(block[2..].iter().map(|&q| value(q >> 4)));
}

/// Two scales, then 6-bit factors of both for each of 8 groups, then 8 groups of 32 numbers of
/// 4 bits: `d * factor * q - dmin * other_factor`.
fn q4_k(block: &[u8], values: &mut Vec<f32>) {
    let (d, dmin) = (scale(block), scale(&block[2..]));
    let (factors, numbers) = block[4..].split_at(12);
    let group = |index: usize| {
        // The first four groups have bytes of their own; the others share four bytes, and their
        // two highest bits lie above the factors of the first four.
        let (factor, other) = if index < 4 {
            (factors[index] & 63, factors[index + 4] & 63)
        } else {
            let shared = factors[index + 4];
            let (high, other_high) = (factors[index - 4] >> 6, factors[index] >> 6);
            ((shared & 15) | high << 4, (shared >> 4) | other_high << 4)
        };
        (d * f32::from(factor), dmin * f32::from(other))
    };
    for (pair, bytes) in numbers.chunks_exact(32).enumerate() {
        let (factor, minimum) = group(2 * pair);
        let low = |&q: &u8| factor * f32::from(q & 15) - minimum;
        values.extend(bytes.iter().map(low));
        let (factor, minimum) = group(2 * pair + 1);
        let high = |&q: &u8| factor * f32::from(q >> 4) - minimum;
        values.extend(bytes.iter().map(high));
    }
}

/// 16 groups of 16 numbers of 6 bits with an offset of 32: the low 4 bits, the high 2 bits, a
/// signed byte for each group, and a scale.
fn q6_k(block: &[u8], values: &mut Vec<f32>) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (factors, d) = rest.split_at(16);
    let d = scale(d);
    for at in 0..256 {
        // Halves of 128 numbers, in each of them four stretches of 32.
        let (half, stretch, lane) = (at / 128, at / 32 % 4, at % 32);
        let low = low[half * 64 + stretch % 2 * 32 + lane] >> (stretch / 2 * 4) & 15;
        let high = high[half * 32 + lane] >> (stretch * 2) & 3;
        let factor = d * f32::from(factors[at / 16].cast_signed());
        values.push(factor * (f32::from(low | high << 4) - 32.0));
    }
}
