//! Compiles every `/kernels/*.cu` to a fatbin and binds `llada_kernels.h`, if the feature `nvcc`
//! is on; without it nothing but cargo is needed, and there are no images.

#[cfg(feature = "nvcc")]
#[path = "build/nvcc.rs"]
mod nvcc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "nvcc")]
    nvcc::run()?;
    Ok(())
}
