//! Finding and opening a device.

use std::ffi::OsString;
use std::sync::Arc;

use cudarc::driver::{CudaContext, sys};
use llada_tensor::{Device, Result};

use crate::backend::CudaBackend;
use crate::context::Context;
use crate::error::{failed, unusable};
use crate::gemm;
use crate::memory::Allocator;

/// The oldest compute capability that the kernels run on: asynchronous copies and bf16 products
/// came with Ampere.
const OLDEST: (i32, i32) = (8, 0);

/// How many CUDA devices there are.
///
/// # Errors
/// If there is no driver, or it fails: one that says what is missing.
pub fn device_count() -> Result<usize> {
    expect_driver()?;
    let count =
        CudaContext::device_count().map_err(|error| failed("cuda", "cuDeviceGetCount", error))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// How a device is used.
#[derive(Debug, Clone, Copy, Default)]
pub struct CudaConfig {
    /// Why cuBLASLt is left out where it is installed, which the device's name repeats; `None`: it
    /// multiplies bf16. Without it the bits of a result depend on nothing beside it in bf16 either.
    pub without_cublaslt: Option<&'static str>,
}

impl CudaConfig {
    /// What environment variables ask for, which a program reads: `LLADA_CUBLASLT=0` leaves
    /// cuBLASLt out.
    pub fn from_variables(read: impl Fn(&'static str) -> Option<OsString>) -> Self {
        let is_off = read("LLADA_CUBLASLT").is_some_and(|value| value == "0");
        let without_cublaslt = is_off.then_some("LLADA_CUBLASLT=0");
        Self { without_cublaslt }
    }
}

/// The CUDA device of an ordinal.
///
/// # Errors
/// If there is no driver or no such device, if it is too old, or if this build has no kernels.
pub fn device(ordinal: usize, config: CudaConfig) -> Result<Device> {
    let cx = open(ordinal, config)?;
    Ok(Device::new(Arc::new(CudaBackend::new(cx))))
}

/// What the ops of a device work with.
///
/// # Errors
/// As [`device`].
pub(crate) fn open(ordinal: usize, config: CudaConfig) -> Result<Context> {
    let name = format!("cuda:{ordinal}");
    let n_devices = device_count()?;
    if ordinal >= n_devices {
        return Err(unusable(
            &name,
            "cuDeviceGet",
            format!("there are {n_devices} devices"),
        ));
    }
    if llada_kernels::IMAGES.is_empty() {
        let reason = "this build has no kernels; build with the feature `nvcc`";
        return Err(unusable(&name, "cuModuleLoadData", reason.to_owned()));
    }
    let cuda = CudaContext::new(ordinal)
        .map_err(|error| failed(&name, "cuDevicePrimaryCtxRetain", error))?;
    let capability = cuda
        .compute_capability()
        .map_err(|error| failed(&name, "cuDeviceGetAttribute", error))?;
    if capability < OLDEST {
        let (major, minor) = capability;
        let reason = format!("compute capability {major}.{minor}, at least 8.0 is needed");
        return Err(unusable(&name, "cuDeviceGetAttribute", reason));
    }
    let opening = |error| failed(&name, "opening the device", error);
    let stream = cuda.new_stream().map_err(opening)?;
    let model = cuda.name().map_err(opening)?;
    let allocator = Allocator::new(name, cuda, stream);
    let (gemm, why) = gemm::choose(&allocator, config.without_cublaslt);
    let name = format!("{} ({model}), {why}", allocator.name());
    Ok(Context::new(allocator, gemm, name))
}

/// An error that names the library if there is no driver; calling into it would panic.
fn expect_driver() -> Result<()> {
    // SAFETY: loading libcuda runs its initializers, which any CUDA program does.
    if unsafe { sys::is_culib_present() } {
        return Ok(());
    }
    let reason = "libcuda is not installed: the NVIDIA driver is missing; use --device cpu";
    Err(unusable("cuda", "loading the driver", reason.to_owned()))
}
