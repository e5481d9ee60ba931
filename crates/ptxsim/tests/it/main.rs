//! The software device through cudarc, as the programs that use it see it.
#![expect(
    unsafe_code,
    reason = "launches and the device's own functions are foreign calls"
)]
#![expect(clippy::unwrap_used, reason = "tests")]

mod basics;
mod bugs;
mod device;
mod gemm;
mod streams;

/// A module of `tests/kernels`, as text.
macro_rules! kernels {
    ($name:literal) => {
        include_str!(concat!("../kernels/", $name, ".ptx"))
    };
}
use kernels;
