//! Element types and the precision of matrix products.

/// Type of the stored elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DType {
    /// IEEE 754 single precision, 4 bytes.
    F32,
    /// bfloat16, 2 bytes.
    Bf16,
}

impl DType {
    /// Bytes of one element.
    #[must_use]
    pub fn size_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// Precision of the operands of matrix products; sums are accumulated in `f32`, or exactly for
/// integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Operands are used as they are, in `f32`.
    #[default]
    F32,
    /// Operands are rounded to bfloat16 (nearest, ties to even) before they are multiplied.
    Bf16,
    /// Packed weights that a file has in blocks of integers, see [`crate::backend::BlockIntegers`],
    /// are multiplied as they are, and the other operand is rounded to 8 bits with a scale for each
    /// 32 values of a row. All else, and all of a device that keeps no blocks, as in
    /// [`Self::Bf16`].
    Blocks,
    /// Packed weights are 8-bit integers with a scale per output feature, and the other operand is
    /// rounded to 8 bits with a scale per row. Products without a packed weight are errors.
    Int8,
    /// Packed weights are 4-bit integers in groups, see [`crate::quantize`]; all else as in
    /// [`Self::Int8`].
    Int4,
}

impl Precision {
    /// Lower-case name, as in `--dtype`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Blocks => "blocks",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }

    /// Whether only packed weights can be multiplied.
    #[must_use]
    pub fn is_integer(self) -> bool {
        matches!(self, Self::Int8 | Self::Int4)
    }
}
