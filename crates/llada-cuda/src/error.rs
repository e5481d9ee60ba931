//! Errors of the driver and of recordings as those of the tensor runtime.

use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;
use llada_tensor::Error;

/// An error of a call for a device, for a reason in words.
pub(crate) fn unusable(device: &str, call: &'static str, reason: String) -> Error {
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

/// An error of what cannot be recorded.
pub(crate) fn not_recordable(what: &'static str) -> Error {
    Error::InvalidArgument {
        op: "recording",
        what,
    }
}
