//! The ops: each file checks what its kernel needs, fills the argument struct and launches.

#![expect(
    clippy::needless_pass_by_value,
    reason = "argument structs hold outputs by mutable reference"
)]

pub(crate) mod adamw;
pub(crate) mod add;
pub(crate) mod attention;
pub(crate) mod candidates;
pub(crate) mod cross_entropy;
pub(crate) mod embedding;
pub(crate) mod matmul;
pub(crate) mod moe;
pub(crate) mod quantized;
pub(crate) mod remask;
pub(crate) mod rms_norm;
pub(crate) mod rope;
pub(crate) mod swiglu;

use llada_tensor::{DType, Error, Result, Tensor};

/// The type of a tensor, which must be that of others as well.
///
/// # Errors
/// [`Error::DTypeMismatch`].
pub(crate) fn common_dtype(op: &'static str, x: &Tensor, others: &[&Tensor]) -> Result<DType> {
    let expected = x.dtype();
    let mut others = others.iter().map(|other| other.dtype());
    match others.find(|got| *got != expected) {
        Some(got) => Err(Error::DTypeMismatch { op, expected, got }),
        None => Ok(expected),
    }
}
