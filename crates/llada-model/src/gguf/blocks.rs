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
use llada_tensor::backend::{BlockFormat, BlockIntegers, Codes, GroupCodes};

/// An element type that can be read.
#[derive(Debug)]
pub(super) struct Kind {
    /// Its number in `ggml_type`.
    number: u32,
    pub(super) name: &'static str,
    /// Its blocks; of blocks of one value any number is widened at once.
    pub(super) format: BlockFormat,
}

/// A type of which only the values are known.
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
            integers: None,
        },
    }
}

/// A type of integers.
const fn integers<T: Integers>(number: u32, name: &'static str) -> Kind {
    assert!(T::LENGTH <= LONGEST);
    let mut kind = kind(number, name, T::LENGTH, T::BYTES, widen::<T>);
    kind.format.integers = Some(BlockIntegers {
        group: T::GROUP,
        codes: T::CODES,
        offset: T::OFFSET,
        read: read::<T>,
    });
    kind
}

/// Values of the longest block.
const LONGEST: usize = 256;

/// A type whose values are `scale * (code - OFFSET) + minimum`, in groups.
trait Integers {
    /// Values of a block.
    const LENGTH: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// Values that share a scale and a minimum.
    const GROUP: usize;
    const CODES: Codes;
    /// Is taken off unsigned codes.
    const OFFSET: u8 = 0;
    /// Unsigned codes without an offset have minimums.
    const HAS_MINIMUM: bool = false;

    /// Writes the codes, scales and, if the type has them, minimums of a block.
    fn read(block: &[u8], out: &mut GroupCodes<'_>);
}

/// See [`BlockIntegers::read`].
fn read<T: Integers>(bytes: &[u8], out: &mut GroupCodes<'_>) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the machine has the instructions.
        #[expect(unsafe_code, reason = "a copy that is compiled for AVX2")]
        return unsafe { read_avx2::<T>(bytes, out) };
    }
    read_any::<T>(bytes, out);
}

/// [`read_any`], whose loops over bytes are twice as wide.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn read_avx2<T: Integers>(bytes: &[u8], out: &mut GroupCodes<'_>) {
    read_any::<T>(bytes, out);
}

#[inline(always)]
fn read_any<T: Integers>(bytes: &[u8], out: &mut GroupCodes<'_>) {
    let in_block = T::LENGTH / T::GROUP;
    let scales = out.scales.chunks_exact_mut(in_block);
    let groups = scales.zip(out.minimums.chunks_exact_mut(in_block));
    let codes = out.codes.chunks_exact_mut(T::LENGTH);
    let blocks = bytes.chunks_exact(T::BYTES).zip(codes.zip(groups));
    for (block, (codes, (scales, minimums))) in blocks {
        let mut out = GroupCodes {
            codes,
            scales,
            minimums,
        };
        T::read(block, &mut out);
    }
}

/// See [`BlockFormat::widen`].
fn widen<T: Integers>(block: &[u8], out: &mut [f32]) {
    let (mut codes, mut scales, mut minimums) = ([0; LONGEST], [0.0; 16], [0.0; 16]);
    let groups = T::LENGTH / T::GROUP;
    let mut of_block = GroupCodes {
        codes: &mut codes[..T::LENGTH],
        scales: &mut scales[..groups],
        minimums: &mut minimums[..groups],
    };
    T::read(block, &mut of_block);
    let groups = codes
        .chunks_exact(T::GROUP)
        .zip(scales.iter().zip(minimums));
    for (out, (codes, (scale, minimum))) in out.chunks_exact_mut(T::GROUP).zip(groups) {
        for (out, &code) in out.iter_mut().zip(codes) {
            let number = match T::CODES {
                Codes::Signed => f32::from(code.cast_signed()),
                _ => f32::from(code) - f32::from(T::OFFSET),
            };
            *out = scale * number;
            if T::HAS_MINIMUM {
                *out += minimum;
            }
        }
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
    integers::<offsets::Q4_0>(Q4_0, "Q4_0"),
    integers::<offsets::Q4_1>(3, "Q4_1"),
    integers::<offsets::Q5_0>(6, "Q5_0"),
    integers::<offsets::Q5_1>(7, "Q5_1"),
    integers::<offsets::Q8_0>(Q8_0, "Q8_0"),
    integers::<k::Q2K>(10, "Q2_K"),
    integers::<k::Q3K>(11, "Q3_K"),
    integers::<k::Q4K>(12, "Q4_K"),
    integers::<k::Q5K>(13, "Q5_K"),
    integers::<k::Q6K>(14, "Q6_K"),
    kind(16, "IQ2_XXS", 256, 66, grids::iq2_xxs),
    kind(17, "IQ2_XS", 256, 74, grids::iq2_xs),
    kind(18, "IQ3_XXS", 256, 98, grids::iq3_xxs),
    kind(19, "IQ1_S", 256, 50, grids::iq1_s),
    integers::<floats::Iq4Nl>(20, "IQ4_NL"),
    kind(21, "IQ3_S", 256, 110, grids::iq3_s),
    kind(22, "IQ2_S", 256, 82, grids::iq2_s),
    integers::<floats::Iq4Xs>(23, "IQ4_XS"),
    kind(29, "IQ1_M", 256, 56, grids::iq1_m),
    kind(BF16, "BF16", 1, 2, floats::bf16),
    integers::<ternary::Tq1_0>(34, "TQ1_0"),
    integers::<ternary::Tq2_0>(35, "TQ2_0"),
    integers::<floats::Mxfp4>(39, "MXFP4"),
    integers::<floats::Nvfp4>(40, "NVFP4"),
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
#[inline(always)]
fn half_at(block: &[u8], at: usize) -> f32 {
    /// The difference of the biases of exponents is 112.
    const SCALE: f32 = f32::from_bits((112 + 127) << 23);
    let bits = u16_at(block, at);
    if bits & 0x7c00 == 0x7c00 {
        // Infinite, or not a number.
        return f16::from_bits(bits).to_f32();
    }
    let (sign, magnitude) = (
        u32::from(bits & 0x8000) << 16,
        u32::from(bits & 0x7fff) << 13,
    );
    // Exact, of subnormal numbers too.
    f32::from_bits((f32::from_bits(magnitude) * SCALE).to_bits() | sign)
}

/// The lower 4 bits of a byte, or the upper ones where `index` is odd.
fn nibble(bytes: &[u8], index: usize) -> u8 {
    bytes[index / 2] >> (index % 2 * 4) & 15
}

#[cfg(test)]
pub(super) mod tests;
