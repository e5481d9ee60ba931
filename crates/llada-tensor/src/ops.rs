//! The ops: argument structs, checks, output shapes, FLOPs and bytes, and the tape methods that
//! hold their gradients. Kernels are behind [`crate::backend::Backend`].

pub mod adamw;
pub mod add;
pub mod attention;
pub mod candidates;
pub mod cross_entropy;
pub mod embedding;
pub mod matmul;
pub mod moe;
pub mod muon;
pub mod rms_norm;
pub mod rope;
pub mod swiglu;

/// Work of one call, for benchmarks and rooflines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Floating-point operations; a multiply-add counts two.
    pub flops: u64,
    /// Bytes that must be read and written once.
    pub bytes: u64,
}

impl Cost {
    /// Work of an op that goes over `numel` elements once.
    fn elementwise(numel: usize, flops_per_element: u64, bytes_per_element: u64) -> Self {
        Self {
            flops: flops_per_element * numel as u64,
            bytes: bytes_per_element * numel as u64,
        }
    }
}
