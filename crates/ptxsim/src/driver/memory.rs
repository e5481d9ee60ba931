//! Allocations, copies and fills.

use std::ffi::{c_int, c_uint, c_void};

use super::{guarded, put};
use crate::device::{Command, DEFAULT_STREAM, HostRange, code, device};

/// `cuMemAlloc_v2`.
///
/// # Safety
/// `pointer` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(pointer: *mut u64, bytes: usize) -> c_int {
    guarded(|| {
        let mut device = device();
        if device.sticky != code::SUCCESS || bytes == 0 {
            return if bytes == 0 {
                code::INVALID_VALUE
            } else {
                device.sticky
            };
        }
        match device.arena.allocate(bytes as u64) {
            // SAFETY: as the caller says.
            Some(address) => unsafe { put(pointer, address) },
            None => code::OUT_OF_MEMORY,
        }
    })
}

/// `cuMemAllocAsync`: at once, since nothing can be in its way.
///
/// # Safety
/// As [`cuMemAlloc_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocAsync(pointer: *mut u64, bytes: usize, _stream: usize) -> c_int {
    // SAFETY: as the caller says.
    unsafe { cuMemAlloc_v2(pointer, bytes) }
}

/// `cuMemFree_v2`: waits for everything first.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(pointer: u64) -> c_int {
    guarded(|| {
        let mut device = device();
        device.run_all();
        if device.arena.free(pointer) {
            code::SUCCESS
        } else {
            code::INVALID_VALUE
        }
    })
}

/// `cuMemFreeAsync`.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeAsync(pointer: u64, stream: usize) -> c_int {
    guarded(|| device().enqueue(stream, Command::Free(pointer)))
}

/// `cuMemHostAlloc`.
///
/// # Safety
/// `pointer` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostAlloc(
    pointer: *mut *mut c_void,
    bytes: usize,
    _flags: c_uint,
) -> c_int {
    guarded(|| {
        let mut memory = vec![0_u64; bytes.div_ceil(8).max(1)].into_boxed_slice();
        let address = memory.as_mut_ptr();
        device().pinned.insert(address as usize, memory);
        // SAFETY: as the caller says.
        unsafe { put(pointer, address.cast()) }
    })
}

/// `cuMemFreeHost`: waits for everything first.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeHost(pointer: usize) -> c_int {
    guarded(|| {
        let mut device = device();
        device.run_all();
        device
            .pinned
            .remove(&pointer)
            .map_or(code::INVALID_VALUE, |_| code::SUCCESS)
    })
}

/// `cuMemcpyHtoDAsync_v2`: pageable bytes are taken now, page-locked ones when the copy is done.
///
/// # Safety
/// `from` must be valid for reads of `bytes` bytes; page-locked memory until the stream is waited
/// for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: u64,
    from: usize,
    bytes: usize,
    stream: usize,
) -> c_int {
    guarded(|| {
        let mut device = device();
        let from = HostRange {
            address: from,
            bytes,
        };
        let command = match device.is_pinned(from.address) {
            true => Command::WritePinned { to, from },
            false => {
                // SAFETY: as the caller says.
                let bytes = unsafe { from.read() };
                Command::Write { to, bytes }
            }
        };
        device.enqueue(stream, command)
    })
}

/// `cuMemcpyHtoD_v2`.
///
/// # Safety
/// `from` must be valid for reads of `bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(to: u64, from: usize, bytes: usize) -> c_int {
    // SAFETY: as the caller says.
    let queued = unsafe { cuMemcpyHtoDAsync_v2(to, from, bytes, DEFAULT_STREAM) };
    if queued != code::SUCCESS {
        return queued;
    }
    guarded(|| device().run_all())
}

/// `cuMemcpyDtoHAsync_v2`: into pageable memory it waits, as the driver does.
///
/// # Safety
/// `to` must be valid for writes of `bytes` bytes; page-locked memory until the stream is waited
/// for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    to: usize,
    from: u64,
    bytes: usize,
    stream: usize,
) -> c_int {
    guarded(|| {
        let mut device = device();
        let pinned = device.is_pinned(to);
        let to = HostRange { address: to, bytes };
        let queued = device.enqueue(stream, Command::Read { from, to });
        if pinned || queued != code::SUCCESS {
            return queued;
        }
        device.run(stream)
    })
}

/// `cuMemcpyDtoH_v2`.
///
/// # Safety
/// `to` must be valid for writes of `bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(to: usize, from: u64, bytes: usize) -> c_int {
    let waited = guarded(|| device().run_all());
    if waited != code::SUCCESS {
        return waited;
    }
    // SAFETY: as the caller says.
    let queued = unsafe { cuMemcpyDtoHAsync_v2(to, from, bytes, DEFAULT_STREAM) };
    if queued != code::SUCCESS {
        return queued;
    }
    guarded(|| device().run_all())
}

/// `cuMemcpyDtoDAsync_v2`.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: usize) -> c_int {
    let bytes = bytes as u64;
    guarded(|| device().enqueue(stream, Command::Copy { to, from, bytes }))
}

/// `cuMemcpyDtoD_v2`.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> c_int {
    cuMemcpyDtoDAsync_v2(to, from, bytes, DEFAULT_STREAM)
}

/// `cuMemsetD8Async`.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8Async(to: u64, value: u8, n: usize, stream: usize) -> c_int {
    let (pattern, n) = (vec![value], n as u64);
    guarded(|| device().enqueue(stream, Command::Fill { to, pattern, n }))
}

/// `cuMemsetD8_v2`.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8_v2(to: u64, value: u8, n: usize) -> c_int {
    cuMemsetD8Async(to, value, n, DEFAULT_STREAM)
}

/// `cuMemsetD32Async`.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD32Async(to: u64, value: c_uint, n: usize, stream: usize) -> c_int {
    let (pattern, n) = (value.to_le_bytes().to_vec(), n as u64);
    guarded(|| device().enqueue(stream, Command::Fill { to, pattern, n }))
}
