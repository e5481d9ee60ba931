//! Blocks of the types that are written.
//!
//! Codes and scales are those of `quantize` of the public `gguf` package (0.19), bit by bit.
//!
//! Source: `quants.py` of the package, `quantize_row_q8_0_ref` and `quantize_row_q4_0_ref` of ggml.

use half::{bf16, f16};

use super::blocks::{self, Kind};

/// Values of a block of integers.
const BLOCK: usize = 32;

/// An element type of the matrices of a GGUF file that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats with 5 bits of exponent.
    F16,
    /// 16-bit floats with 8 bits of exponent.
    Bf16,
    /// 8-bit integers with a scale for each 32.
    Q8_0,
    /// 4-bit integers with a scale for each 32.
    Q4_0,
}

impl GgufType {
    /// The name in ggml.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.kind().name
    }

    /// Whether the values are codes of integers.
    pub(super) fn is_integer(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4_0)
    }

    pub(super) fn kind(self) -> &'static Kind {
        Kind::of(self.number()).expect("all of them are read")
    }

    /// The number in `ggml_type`.
    pub(super) fn number(self) -> u32 {
        match self {
            Self::F32 => blocks::F32,
            Self::F16 => blocks::F16,
            Self::Bf16 => blocks::BF16,
            Self::Q8_0 => blocks::Q8_0,
            Self::Q4_0 => blocks::Q4_0,
        }
    }

    /// The number in `llama_ftype`, for a file whose matrices are of this type.
    pub(super) fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
            Self::Bf16 => 32,
        }
    }

    /// The type of a tensor in a file of this type: as llama.cpp has it, vectors stay f32, and rows
    /// that are no whole blocks are f16.
    pub(super) fn of_tensor(self, shape: &[usize]) -> Self {
        match *shape {
            [_, row] | [_, _, row] if self.is_integer() && !row.is_multiple_of(BLOCK) => Self::F16,
            [_, _] | [_, _, _] => self,
            _ => Self::F32,
        }
    }

    /// Appends the bytes of some rows; whether all values and scales are in the range of the type.
    pub(super) fn encode(self, values: &[f32], bytes: &mut Vec<u8>) -> bool {
        let blocks = values.chunks_exact(BLOCK);
        match self {
            Self::F32 => {
                bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
                true
            }
            Self::F16 => values.iter().fold(true, |all, &x| {
                let x = f16::from_f32(x);
                bytes.extend(x.to_le_bytes());
                all & x.is_finite()
            }),
            Self::Bf16 => values.iter().fold(true, |all, &x| {
                let x = bf16::from_f32(x);
                bytes.extend(x.to_le_bytes());
                all & x.is_finite()
            }),
            Self::Q8_0 => blocks.fold(true, |all, block| all & q8_0(block, bytes)),
            Self::Q4_0 => blocks.fold(true, |all, block| all & q4_0(block, bytes)),
        }
    }
}

/// Appends a scale; gives its inverse, before it is rounded, and whether it is finite.
fn scale(d: f32, bytes: &mut Vec<u8>) -> (f32, bool) {
    let rounded = f16::from_f32(d);
    bytes.extend(rounded.to_le_bytes());
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    (inverse, rounded.is_finite())
}

/// A scale and 32 signed bytes; the largest value becomes 127.
fn q8_0(block: &[f32], bytes: &mut Vec<u8>) -> bool {
    let largest = block.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
    let (inverse, is_finite) = scale(largest / 127.0, bytes);
    bytes.extend(block.iter().map(|x| (x * inverse).round() as i8 as u8));
    is_finite
}

/// A scale and 32 numbers of 4 bits with an offset of 8; the value that is largest by magnitude
/// becomes -8.
fn q4_0(block: &[f32], bytes: &mut Vec<u8>) -> bool {
    let larger = |max: f32, &x: &f32| if x.abs() > max.abs() { x } else { max };
    let largest = block.iter().fold(0.0, larger);
    let (inverse, is_finite) = scale(largest / -8.0, bytes);
    let code = |x: &f32| ((x * inverse + 8.5) as u8).min(15);
    let (low, high) = block.split_at(BLOCK / 2);
    let pairs = low.iter().zip(high);
    bytes.extend(pairs.map(|(low, high)| code(low) | code(high) << 4));
    is_finite
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::blocks::tests::{bytes, recorded};

    /// Rows that the public `gguf` package has quantised (`tools/record_gguf_blocks.py`).
    #[test]
    fn bytes_are_those_of_the_package() {
        let recorded = recorded();
        let kinds = [
            GgufType::Q8_0,
            GgufType::Q4_0,
            GgufType::F16,
            GgufType::Bf16,
        ];
        for kind in kinds {
            let rows = recorded["rows"].as_array().expect("rows").iter();
            let expected = recorded["written"][kind.name()].as_array().expect("rows");
            assert_eq!(rows.len(), expected.len());
            for (row, expected) in rows.zip(expected) {
                let mut values = vec![0.0; 64];
                GgufType::F32.kind().values(&bytes(row), &mut values);
                let mut written = Vec::new();
                assert!(kind.encode(&values, &mut written));
                assert_eq!(written, bytes(expected), "{} of {values:?}", kind.name());
            }
        }
    }

    #[test]
    fn values_beyond_a_type_are_told() {
        let mut bytes = Vec::new();
        let large = [1e6; 32];
        assert!(GgufType::F32.encode(&large, &mut bytes));
        assert!(GgufType::Bf16.encode(&large, &mut bytes));
        assert!(!GgufType::F16.encode(&large, &mut bytes));
        assert!(GgufType::Q8_0.encode(&large, &mut bytes));
        assert!(!GgufType::Q4_0.encode(&large, &mut bytes));
        assert!(!GgufType::Q8_0.encode(&[1e7; 32], &mut bytes));
        assert!(!GgufType::Bf16.encode(&[f32::MAX; 32], &mut bytes));
    }
}
