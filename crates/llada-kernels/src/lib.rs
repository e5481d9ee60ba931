//! The CUDA kernels of llada as data: compiled images, and the structs that their entries take.
//!
//! Device code lies in `/kernels`, an op per file. With the feature `nvcc` the build script
//! compiles each file to a fatbin (machine code for the common architectures, and PTX), and
//! [`IMAGES`] holds them; without it [`IMAGES`] is empty and nothing but cargo is needed.
//! The argument structs are those of `kernels/include/llada_kernels.h`, bound by `bindgen`.
//! A copy of the bindings is kept beside this file for builds without the feature; a test
//! compares it with what the header says.

/// The compiled form of one `.cu` file.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// Name of the file without its extension, which is that of the op.
    pub op: &'static str,
    /// Machine code and PTX.
    pub fatbin: &'static [u8],
}

/// Bytes on a boundary of 16: the driver reads words of an image.
#[cfg(feature = "nvcc")]
#[repr(C, align(16))]
struct Aligned<T: ?Sized>(T);

#[cfg(feature = "nvcc")]
macro_rules! aligned {
    ($path:expr) => {{
        const BYTES: &Aligned<[u8]> = &Aligned(*include_bytes!($path));
        &BYTES.0
    }};
}

/// All images, in the order of their names; none without the feature `nvcc`.
#[cfg(feature = "nvcc")]
pub const IMAGES: &[Image] = include!(concat!(env!("OUT_DIR"), "/images.rs"));
/// All images, in the order of their names; none without the feature `nvcc`.
#[cfg(not(feature = "nvcc"))]
pub const IMAGES: &[Image] = &[];

/// Argument structs and constants of `llada_kernels.h`.
#[allow(
    missing_docs,
    non_camel_case_types,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated from a documented header"
)]
pub mod args {
    #[cfg(feature = "nvcc")]
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
    #[cfg(not(feature = "nvcc"))]
    include!("bindings.rs");
}

#[cfg(test)]
mod tests;
