//! Who computes matrix products of operands that lie in device memory: NVIDIA's library or this
//! crate's own kernels.

mod cublaslt;
mod plain;

use crate::context::Gemm;
use crate::memory::Allocator;
use cublaslt::CublasLt;
use plain::PlainGemm;

/// The best that there is: [`CublasLt`] where its library is installed, as on any GPU with CUDA's
/// toolkit, else [`PlainGemm`], as on the software device, which runs PTX and nothing else; and in
/// words which one, and why.
///
/// Their results differ in the order of sums. [`PlainGemm`] gives a row the same bits whatever
/// other rows there are; cuBLASLt chooses its order of sums by shape, so that results are the same
/// from run to run, but not for a row alone and among others. It multiplies bf16 only: who asks for
/// `f32` wants exact results before fast ones.
///
/// Chosen before the device is used: loading the library waits for a thread that has the stream for
/// itself, and that thread may be waiting for products.
///
/// A reason `without_cublaslt` leaves the library out.
pub(crate) fn choose(
    allocator: &Allocator,
    without_cublaslt: Option<&str>,
) -> (Box<dyn Gemm>, String) {
    let reason = match without_cublaslt {
        Some(reason) => reason.to_owned(),
        None => match CublasLt::new(allocator) {
            Ok(library) => return (Box::new(library), "cuBLASLt".to_owned()),
            Err(error) => error.to_string(),
        },
    };
    (Box::new(PlainGemm), format!("own products: {reason}"))
}

#[cfg(all(test, feature = "nvcc"))]
mod tests;
