//! Launches.

use std::ffi::{c_uint, c_void};

use super::api;
use crate::device::{Code, Device, Shape, code};

/// `CUlaunchConfig`.
#[repr(C)]
struct Config {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    dynamic: c_uint,
    stream: u64,
    attributes: *const c_void,
    n_attributes: c_uint,
}

/// Copies the parameters of a kernel, each to its offset.
///
/// # Safety
/// `params` points to a pointer for each parameter, and each of these to as many bytes as the parameter has.
unsafe fn read_params(
    device: &Device,
    function: u64,
    params: *const *const u8,
) -> Result<Vec<u8>, Code> {
    let function = device
        .functions
        .get(&function)
        .ok_or(code::INVALID_HANDLE)?;
    let mut image = vec![0; function.kernel.param_bytes];
    if params.is_null() && !function.kernel.params.is_empty() {
        return Err(code::INVALID_VALUE);
    }
    for (i, &(offset, bytes)) in function.kernel.params.iter().enumerate() {
        // SAFETY: the caller passes a pointer for each parameter.
        let source = unsafe { params.add(i).read() };
        // SAFETY: it points to the parameter's bytes, and the image was made to hold all of them.
        unsafe { std::ptr::copy_nonoverlapping(source, image[offset..].as_mut_ptr(), bytes) };
    }
    Ok(image)
}

fn launch(
    device: &mut Device,
    function: u64,
    shape: Shape,
    stream: u64,
    params: *const *const u8,
    extra: *const c_void,
) -> Result<(), Code> {
    device.health()?;
    if !extra.is_null() {
        return Err(code::NOT_SUPPORTED);
    }
    // SAFETY: the caller passes the parameters as the driver's interface asks.
    let params = unsafe { read_params(device, function, params)? };
    device.launch(function, shape, &params, stream)
}

api! {
    fn cuLaunchKernel(
        function: u64,
        gx: c_uint, gy: c_uint, gz: c_uint,
        bx: c_uint, by: c_uint, bz: c_uint,
        dynamic: c_uint, stream: u64,
        params: *const *const u8, extra: *const c_void,
    ) |device| {
        let shape = Shape { grid: [gx, gy, gz], block: [bx, by, bz], dynamic: dynamic as usize };
        launch(device, function, shape, stream, params, extra)
    }
    fn cuLaunchKernelEx(config: *const Config, function: u64, params: *const *const u8, extra: *const c_void)
    |device| {
        if config.is_null() {
            return Err(code::INVALID_VALUE);
        }
        // SAFETY: the caller passes a configuration; null was refused above.
        let config = unsafe { &*config };
        if config.n_attributes != 0 && !config.attributes.is_null() {
            return Err(code::NOT_SUPPORTED);
        }
        let shape = Shape { grid: config.grid, block: config.block, dynamic: config.dynamic as usize };
        launch(device, function, shape, config.stream, params, extra)
    }
    fn cuLaunchCooperativeKernel(
        _function: u64,
        _gx: c_uint, _gy: c_uint, _gz: c_uint,
        _bx: c_uint, _by: c_uint, _bz: c_uint,
        _dynamic: c_uint, _stream: u64, _params: *const *const u8,
    ) |_device| {
        // Blocks run one after another here, so a grid can't meet.
        Err(code::NOT_SUPPORTED)
    }
}
