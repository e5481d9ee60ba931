//! The driver's C interface: what `cudarc` calls.
//!
//! Every function returns a code of the driver API; a panic inside becomes `CUDA_ERROR_UNKNOWN`.

pub mod graphs;
pub mod memory;
pub mod modules;
pub mod queries;

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::device::{Event, Stream, code, device};

/// Runs the body of an entry.
fn guarded(body: impl FnOnce() -> i32) -> c_int {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(code::UNKNOWN)
}

/// Writes a result where the caller wants it.
///
/// # Safety
/// `to` must be null or valid for a write.
unsafe fn put<T>(to: *mut T, value: T) -> i32 {
    if to.is_null() {
        return code::INVALID_VALUE;
    }
    // SAFETY: as the caller says.
    unsafe { to.write(value) };
    code::SUCCESS
}

/// `cuStreamCreate`.
///
/// # Safety
/// `stream` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut usize, _flags: c_uint) -> c_int {
    guarded(|| {
        let mut device = device();
        let handle = device.handle();
        device.streams.insert(handle, Stream::default());
        // SAFETY: as the caller says.
        unsafe { put(stream, handle) }
    })
}

/// `cuStreamCreateWithPriority`.
///
/// # Safety
/// As [`cuStreamCreate`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreateWithPriority(
    stream: *mut usize,
    flags: c_uint,
    _priority: c_int,
) -> c_int {
    // SAFETY: as the caller says.
    unsafe { cuStreamCreate(stream, flags) }
}

/// `cuStreamDestroy_v2`: what is queued is still done.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(stream: usize) -> c_int {
    guarded(|| {
        let mut device = device();
        device.run(stream);
        device
            .streams
            .remove(&stream)
            .map_or(code::INVALID_HANDLE, |_| code::SUCCESS)
    })
}

/// `cuStreamSynchronize`.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(stream: usize) -> c_int {
    guarded(|| device().run(stream))
}

/// `cuStreamQuery`: never ready before somebody waits.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamQuery(stream: usize) -> c_int {
    guarded(|| match device().streams.get(&stream) {
        None => code::INVALID_HANDLE,
        Some(stream) if stream.queue.is_empty() => code::SUCCESS,
        Some(_) => code::NOT_READY,
    })
}

/// `cuStreamWaitEvent`.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWaitEvent(stream: usize, event: usize, _flags: c_uint) -> c_int {
    guarded(|| device().enqueue(stream, crate::device::Command::Wait(event)))
}

/// `cuCtxSynchronize`.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> c_int {
    guarded(|| device().run_all())
}

/// `cuEventCreate`.
///
/// # Safety
/// `event` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: *mut usize, _flags: c_uint) -> c_int {
    guarded(|| {
        let mut device = device();
        let handle = device.handle();
        device.events.insert(handle, Event::default());
        // SAFETY: as the caller says.
        unsafe { put(event, handle) }
    })
}

/// `cuEventDestroy_v2`.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventDestroy_v2(event: usize) -> c_int {
    guarded(|| {
        device()
            .events
            .remove(&event)
            .map_or(code::INVALID_HANDLE, |_| code::SUCCESS)
    })
}

/// `cuEventRecord`.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(event: usize, stream: usize) -> c_int {
    guarded(|| {
        let mut device = device();
        match device.events.get_mut(&event) {
            Some(event) => event.pending = Some(stream),
            None => return code::INVALID_HANDLE,
        }
        device.enqueue(stream, crate::device::Command::Record(event))
    })
}

/// `cuEventSynchronize`.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventSynchronize(event: usize) -> c_int {
    guarded(|| {
        let mut device = device();
        match device.events.get(&event) {
            None => code::INVALID_HANDLE,
            Some(Event {
                pending: Some(stream),
                ..
            }) => {
                let stream = *stream;
                device.run(stream)
            }
            Some(_) => device.sticky,
        }
    })
}

/// `cuEventQuery`.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventQuery(event: usize) -> c_int {
    guarded(|| match device().events.get(&event) {
        None => code::INVALID_HANDLE,
        Some(event) if event.pending.is_some() => code::NOT_READY,
        Some(_) => code::SUCCESS,
    })
}

/// `cuEventElapsedTime_v2`: the time that the simulation took.
///
/// # Safety
/// `milliseconds` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime_v2(
    milliseconds: *mut f32,
    start: usize,
    end: usize,
) -> c_int {
    guarded(|| {
        let device = device();
        let at = |event: usize| device.events.get(&event).and_then(|event| event.at);
        let (Some(start), Some(end)) = (at(start), at(end)) else {
            return code::NOT_READY;
        };
        // SAFETY: as the caller says.
        unsafe {
            put(
                milliseconds,
                end.saturating_duration_since(start).as_secs_f32() * 1e3,
            )
        }
    })
}

/// `cuEventElapsedTime`.
///
/// # Safety
/// As [`cuEventElapsedTime_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime(
    milliseconds: *mut f32,
    start: usize,
    end: usize,
) -> c_int {
    // SAFETY: as the caller says.
    unsafe { cuEventElapsedTime_v2(milliseconds, start, end) }
}

fn error_name(error: c_int) -> &'static CStr {
    match error {
        code::SUCCESS => c"CUDA_SUCCESS",
        code::INVALID_VALUE => c"CUDA_ERROR_INVALID_VALUE",
        code::OUT_OF_MEMORY => c"CUDA_ERROR_OUT_OF_MEMORY",
        code::INVALID_DEVICE => c"CUDA_ERROR_INVALID_DEVICE",
        code::NO_BINARY => c"CUDA_ERROR_NO_BINARY_FOR_GPU",
        code::INVALID_PTX => c"CUDA_ERROR_INVALID_PTX",
        code::INVALID_HANDLE => c"CUDA_ERROR_INVALID_HANDLE",
        code::NOT_FOUND => c"CUDA_ERROR_NOT_FOUND",
        code::NOT_READY => c"CUDA_ERROR_NOT_READY",
        code::ILLEGAL_ADDRESS => c"CUDA_ERROR_ILLEGAL_ADDRESS",
        code::MISALIGNED_ADDRESS => c"CUDA_ERROR_MISALIGNED_ADDRESS",
        code::LAUNCH_FAILED => c"CUDA_ERROR_LAUNCH_FAILED",
        code::NOT_PERMITTED => c"CUDA_ERROR_NOT_PERMITTED",
        code::CAPTURE_UNSUPPORTED => c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
        _ => c"CUDA_ERROR_UNKNOWN",
    }
}

/// `cuGetErrorName`.
///
/// # Safety
/// `name` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(error: c_int, name: *mut *const c_char) -> c_int {
    // SAFETY: as the caller says; the text is static.
    guarded(|| unsafe { put(name, error_name(error).as_ptr()) })
}

/// `cuGetErrorString`.
///
/// # Safety
/// As [`cuGetErrorName`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(error: c_int, text: *mut *const c_char) -> c_int {
    // SAFETY: as the caller says.
    unsafe { cuGetErrorName(error, text) }
}

/// Turns check mode on or off, for what is allocated from now on.
#[unsafe(no_mangle)]
pub extern "C" fn ptxsim_set_check(on: c_int) -> c_int {
    guarded(|| {
        device().set_checked(on != 0);
        code::SUCCESS
    })
}

/// Copies the text of the last error into `text`, at most `bytes` bytes with a final zero, and
/// forgets the error that ended the context, so that a test can go on.
///
/// # Safety
/// `text` must be valid for writes of `bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ptxsim_take_error(text: *mut u8, bytes: usize) -> c_int {
    guarded(|| {
        let mut device = device();
        device.sticky = code::SUCCESS;
        let error = std::mem::take(&mut device.last_error);
        let n = error.len().min(bytes.saturating_sub(1));
        // SAFETY: as the caller says.
        unsafe {
            text.copy_from(error.as_ptr(), n);
            text.add(n).write(0);
        }
        code::SUCCESS
    })
}

/// Copies the counts of all kernels into `text`, a line of JSON each; returns how many bytes there
/// are, which may be more than fit.
///
/// # Safety
/// `text` must be valid for writes of `bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ptxsim_stats_json(text: *mut u8, bytes: usize) -> usize {
    let device = device();
    let lines = device
        .stats
        .iter()
        .map(|(kernel, stats)| stats.json(kernel));
    let all = lines.collect::<Vec<_>>().join("\n");
    // SAFETY: as the caller says.
    unsafe { text.copy_from(all.as_ptr(), all.len().min(bytes)) };
    all.len()
}
