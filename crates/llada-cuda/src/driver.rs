//! Finding and opening a device; errors of the driver as those of the tensor runtime.

use std::sync::Arc;

use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::{CudaContext, DriverError};
use llada_tensor::{Device, Error, Result};

use crate::backend::CudaBackend;
use crate::context::Context;

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

/// The CUDA device of an ordinal.
///
/// # Errors
/// If there is no driver or no such device, if it is too old, or if this build has no kernels.
pub fn device(ordinal: usize) -> Result<Device> {
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
    Ok(Device::new(Arc::new(CudaBackend::new(Context::new(
        cuda, name,
    )?))))
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

fn unusable(device: &str, call: &'static str, reason: String) -> Error {
    Error::Device {
        device: device.to_owned(),
        call,
        reason,
    }
}

/// An error of the driver in words.
pub(crate) fn failed(device: &str, call: &'static str, error: DriverError) -> Error {
    let text = |text: std::result::Result<&std::ffi::CStr, DriverError>| {
        text.map_or_else(
            |_| "unknown".to_owned(),
            |text| text.to_string_lossy().into_owned(),
        )
    };
    let reason = format!(
        "{} ({})",
        text(error.error_name()),
        text(error.error_string())
    );
    unusable(device, call, reason)
}

/// Whether an allocation failed for want of memory.
pub(crate) fn is_out_of_memory(error: DriverError) -> bool {
    error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY
}
