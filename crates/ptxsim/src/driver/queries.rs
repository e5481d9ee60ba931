//! Devices, contexts and their attributes.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_uint};

use super::{guarded, put};
use crate::device::{SHARED_DEFAULT, SHARED_MOST, code, device};

const NAME: &[u8] = b"ptxsim software CUDA device\0";
/// The only context.
const CONTEXT: usize = 0x51;

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// `cuInit`.
#[unsafe(no_mangle)]
pub extern "C" fn cuInit(_flags: c_uint) -> c_int {
    code::SUCCESS
}

/// `cuDriverGetVersion`.
///
/// # Safety
/// `version` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> c_int {
    // SAFETY: as the caller says.
    guarded(|| unsafe { put(version, 13_000) })
}

/// `cuDeviceGetCount`.
///
/// # Safety
/// `count` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_int {
    // SAFETY: as the caller says.
    guarded(|| unsafe { put(count, 1) })
}

/// `cuDeviceGet`.
///
/// # Safety
/// `device` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> c_int {
    guarded(|| match ordinal {
        // SAFETY: as the caller says.
        0 => unsafe { put(device, 0) },
        _ => code::INVALID_DEVICE,
    })
}

/// `cuDeviceGetName`.
///
/// # Safety
/// `name` must be valid for writes of `bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, bytes: c_int, _device: c_int) -> c_int {
    guarded(|| {
        let n = NAME.len().min(usize::try_from(bytes).unwrap_or(0));
        // SAFETY: as the caller says.
        unsafe { name.cast::<u8>().copy_from(NAME.as_ptr(), n) };
        code::SUCCESS
    })
}

/// `cuDeviceGetUuid_v2`.
///
/// # Safety
/// `uuid` must be valid for a write of 16 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], _device: c_int) -> c_int {
    // SAFETY: as the caller says.
    guarded(|| unsafe { put(uuid, *b"ptxsim-device-00") })
}

/// `cuDeviceTotalMem_v2`.
///
/// # Safety
/// `bytes` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _device: c_int) -> c_int {
    // SAFETY: as the caller says.
    guarded(|| unsafe { put(bytes, device().arena.total() as usize) })
}

/// `cuDeviceGetAttribute`: those of an A100.
///
/// # Safety
/// `value` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(
    value: *mut c_int,
    attribute: c_int,
    _device: c_int,
) -> c_int {
    let found = match attribute {
        // Threads of a block, and its three extents.
        1..=3 => 1024,
        4 => 64,
        // Extents of a grid.
        5 => i32::MAX,
        6 | 7 => 65_535,
        // Shared memory of a block, and what it may ask for; of a multiprocessor.
        8 => SHARED_DEFAULT as i32,
        97 => SHARED_MOST as i32,
        81 => 167_936,
        // Constant memory, warp size, registers of a block and of a multiprocessor.
        9 => 65_536,
        10 => 32,
        12 | 82 => 65_536,
        // Clock in kHz, multiprocessors, memory clock and bus width, cache.
        13 => 1_410_000,
        16 => 108,
        36 => 1_215_000,
        37 => 5120,
        38 => 40 << 20,
        39 => 2048,
        // Compute capability.
        75 => 8,
        76 => 0,
        106 => 32,
        // Unified addresses, memory pools, cooperative launches.
        41 | 95 | 115 => 1,
        _ => 0,
    };
    // SAFETY: as the caller says.
    guarded(|| unsafe { put(value, found) })
}

/// `cuDevicePrimaryCtxRetain`.
///
/// # Safety
/// `context` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut usize, _device: c_int) -> c_int {
    // SAFETY: as the caller says.
    guarded(|| unsafe { put(context, CONTEXT) })
}

/// `cuDevicePrimaryCtxRelease_v2`.
#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: c_int) -> c_int {
    code::SUCCESS
}

/// `cuCtxGetCurrent`.
///
/// # Safety
/// `context` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCurrent(context: *mut usize) -> c_int {
    // SAFETY: as the caller says.
    guarded(|| unsafe { put(context, CURRENT.get()) })
}

/// `cuCtxSetCurrent`.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: usize) -> c_int {
    CURRENT.set(context);
    code::SUCCESS
}

/// `cuCtxSetFlags`.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetFlags(_flags: c_uint) -> c_int {
    code::SUCCESS
}

/// `cuCtxGetStreamPriorityRange`.
///
/// # Safety
/// Both must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetStreamPriorityRange(
    least: *mut c_int,
    greatest: *mut c_int,
) -> c_int {
    guarded(|| {
        // SAFETY: as the caller says.
        unsafe { put(least, 0) };
        // SAFETY: as the caller says.
        unsafe { put(greatest, 0) }
    })
}

/// `cuMemGetInfo_v2`.
///
/// # Safety
/// Both must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> c_int {
    guarded(|| {
        let device = device();
        // SAFETY: as the caller says.
        unsafe { put(free, device.arena.free_bytes() as usize) };
        // SAFETY: as the caller says.
        unsafe { put(total, device.arena.total() as usize) }
    })
}
