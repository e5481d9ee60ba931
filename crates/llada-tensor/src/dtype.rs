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

/// Precision of the operands of matrix products; sums are always accumulated in `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Operands are used as they are, in `f32`.
    #[default]
    F32,
    /// Operands are rounded to bfloat16 (nearest, ties to even) before they are multiplied.
    Bf16,
}
