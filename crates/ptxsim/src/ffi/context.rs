//! Initialization, the device's description, contexts, and the names of errors.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_uint};

use super::{Out, api};
use crate::device::{DEFAULT_SHARED, Device, MAX_DYNAMIC_SHARED, code};

thread_local! {
    /// The context that is current in this thread; there is one for all.
    static CURRENT: Cell<u64> = const { Cell::new(0) };
}

/// The handle of every context.
const CONTEXT: u64 = 0x51;
const NAME: &CStr = c"ptxsim software CUDA device";

/// Attributes of an A100, by `CUdevice_attribute`; those that are not here are 0.
const ATTRIBUTES: [(c_int, c_int); 38] = [
    (1, 1024),
    (2, 1024),
    (3, 1024),
    (4, 64),
    (5, 0x7fff_ffff),
    (6, 65_535),
    (7, 65_535),
    (8, DEFAULT_SHARED),
    (9, 65_536),
    (10, 32),
    (11, 0x7fff_ffff),
    (12, 65_536),
    (13, 1_410_000),
    (14, 512),
    (15, 1),
    (16, 108),
    (19, 1),
    (31, 1),
    (32, 1),
    (36, 1_215_000),
    (37, 5120),
    (38, 41_943_040),
    (39, 2048),
    (40, 3),
    (41, 1),
    (75, 8),
    (76, 0),
    (78, 1),
    (79, 1),
    (80, 1),
    (81, 167_936),
    (82, 65_536),
    (83, 1),
    (97, MAX_DYNAMIC_SHARED),
    (99, 1),
    (106, 32),
    (111, 1024),
    (115, 1),
];

fn only_device(device: c_int) -> Result<(), i32> {
    if device == 0 {
        Ok(())
    } else {
        Err(code::INVALID_DEVICE)
    }
}

fn create(device: &Device, context: &Out<u64>, ordinal: c_int) -> Result<(), i32> {
    only_device(ordinal)?;
    device.health()?;
    CURRENT.set(CONTEXT);
    context.set(CONTEXT)
}

api! {
    fn cuInit(_flags: c_uint) |_device| { Ok(()) }
    fn cuDriverGetVersion(version: Out<c_int>) |_device| { version.set(13_000) }
    fn cuDeviceGetCount(count: Out<c_int>) |_device| { count.set(1) }
    fn cuDeviceGet(device: Out<c_int>, ordinal: c_int) |_device| {
        only_device(ordinal)?;
        device.set(0)
    }
    fn cuDeviceGetName(name: Out<c_char>, length: c_int, ordinal: c_int) |_device| {
        only_device(ordinal)?;
        let room = usize::try_from(length).map_err(|_| code::INVALID_VALUE)?;
        if name.0.is_null() || room == 0 {
            return Err(code::INVALID_VALUE);
        }
        let text = NAME.to_bytes();
        for i in 0..room.min(text.len() + 1) {
            let last = i + 1 == room || i == text.len();
            let byte = if last { 0 } else { text[i] };
            // SAFETY: the caller says that the name may have `length` bytes, and `i` is less.
            unsafe { name.0.add(i).cast::<u8>().write(byte) };
        }
        Ok(())
    }
    fn cuDeviceGetUuid(uuid: Out<[u8; 16]>, ordinal: c_int) |_device| {
        only_device(ordinal)?;
        uuid.set(*b"ptxsim software\0")
    }
    fn cuDeviceGetUuid_v2(uuid: Out<[u8; 16]>, ordinal: c_int) |_device| {
        only_device(ordinal)?;
        uuid.set(*b"ptxsim software\0")
    }
    fn cuDeviceTotalMem_v2(bytes: Out<usize>, ordinal: c_int) |device| {
        only_device(ordinal)?;
        bytes.set(device.memory.limit)
    }
    fn cuDeviceGetAttribute(value: Out<c_int>, attribute: c_int, ordinal: c_int) |_device| {
        only_device(ordinal)?;
        value.set(ATTRIBUTES.iter().find(|(key, _)| *key == attribute).map_or(0, |&(_, value)| value))
    }
    fn cuDeviceCanAccessPeer(can: Out<c_int>, _a: c_int, _b: c_int) |_device| { can.set(0) }
    fn cuDevicePrimaryCtxRetain(context: Out<u64>, ordinal: c_int) |_device| {
        only_device(ordinal)?;
        context.set(CONTEXT)
    }
    fn cuDevicePrimaryCtxRelease_v2(ordinal: c_int) |_device| { only_device(ordinal) }
    fn cuCtxCreate_v2(context: Out<u64>, _flags: c_uint, ordinal: c_int) |device| {
        create(device, &context, ordinal)
    }
    fn cuCtxCreate_v3(context: Out<u64>, _params: usize, _count: c_int, _flags: c_uint, ordinal: c_int) |device| {
        create(device, &context, ordinal)
    }
    fn cuCtxCreate_v4(context: Out<u64>, _params: usize, _flags: c_uint, ordinal: c_int) |device| {
        create(device, &context, ordinal)
    }
    fn cuCtxDestroy_v2(_context: u64) |_device| { Ok(()) }
    fn cuCtxGetCurrent(context: Out<u64>) |_device| { context.set(CURRENT.get()) }
    fn cuCtxSetCurrent(context: u64) |_device| {
        CURRENT.set(context);
        Ok(())
    }
    fn cuCtxGetDevice(device: Out<c_int>) |_device| { device.set(0) }
    fn cuCtxSynchronize() |device| { device.run_everything() }
    fn cuCtxSetFlags(_flags: c_uint) |_device| { Ok(()) }
    fn cuCtxSetLimit(_limit: c_uint, _value: usize) |_device| { Ok(()) }
    fn cuCtxGetLimit(value: Out<usize>, _limit: c_uint) |_device| { value.set(0) }
    fn cuCtxSetCacheConfig(_config: c_uint) |_device| { Ok(()) }
    fn cuCtxGetCacheConfig(config: Out<c_uint>) |_device| { config.set(0) }
    fn cuCtxGetStreamPriorityRange(least: Out<c_int>, greatest: Out<c_int>) |_device| {
        least.set_if_wanted(0);
        greatest.set_if_wanted(0);
        Ok(())
    }
    fn cuProfilerStart() |_device| { Ok(()) }
    fn cuProfilerStop() |_device| { Ok(()) }
    fn cuGetErrorName(error: c_int, text: Out<*const c_char>) |_device| { text.set(describe(error).0.as_ptr()) }
    fn cuGetErrorString(error: c_int, text: Out<*const c_char>) |_device| { text.set(describe(error).1.as_ptr()) }
}

fn describe(error: c_int) -> (&'static CStr, &'static CStr) {
    match error {
        0 => (c"CUDA_SUCCESS", c"no error"),
        1 => (c"CUDA_ERROR_INVALID_VALUE", c"invalid argument"),
        2 => (c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory"),
        101 => (c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal"),
        209 => (
            c"CUDA_ERROR_NO_BINARY_FOR_GPU",
            c"no kernel image is available for execution on the device",
        ),
        218 => (c"CUDA_ERROR_INVALID_PTX", c"a PTX JIT compilation failed"),
        400 => (c"CUDA_ERROR_INVALID_HANDLE", c"invalid resource handle"),
        500 => (c"CUDA_ERROR_NOT_FOUND", c"named symbol not found"),
        600 => (c"CUDA_ERROR_NOT_READY", c"device not ready"),
        700 => (
            c"CUDA_ERROR_ILLEGAL_ADDRESS",
            c"an illegal memory access was encountered",
        ),
        702 => (
            c"CUDA_ERROR_LAUNCH_TIMEOUT",
            c"the launch timed out and was terminated",
        ),
        716 => (c"CUDA_ERROR_MISALIGNED_ADDRESS", c"misaligned address"),
        719 => (c"CUDA_ERROR_LAUNCH_FAILED", c"unspecified launch failure"),
        801 => (c"CUDA_ERROR_NOT_SUPPORTED", c"operation not supported"),
        900 => (
            c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
            c"operation not permitted when stream is capturing",
        ),
        _ => (c"CUDA_ERROR_UNKNOWN", c"unknown error"),
    }
}
