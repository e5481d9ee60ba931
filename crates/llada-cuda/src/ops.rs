//! The ops: each file checks what its kernel needs, fills the argument struct and launches.

pub(crate) mod adamw;
pub(crate) mod add;
pub(crate) mod attention;
pub(crate) mod candidates;
pub(crate) mod cross_entropy;
pub(crate) mod embedding;
pub(crate) mod forward_process;
pub(crate) mod matmul;
pub(crate) mod quantized;
pub(crate) mod remask;
pub(crate) mod rms_norm;
pub(crate) mod rope;
pub(crate) mod swiglu;

use llada_tensor::{Error, Result};

/// An op that this backend lacks.
pub(crate) fn missing<T>(cx: &crate::context::Context, op: &'static str) -> Result<T> {
    Err(Error::Device {
        device: cx.name().to_owned(),
        call: op,
        reason: "this backend does not have the op".to_owned(),
    })
}
