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
