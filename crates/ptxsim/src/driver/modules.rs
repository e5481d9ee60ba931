//! Modules, functions and launches.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use super::{guarded, put};
use crate::device::{Command, Function, Launch, SHARED_DEFAULT, SHARED_MOST, code, device};
use crate::fatbin;

/// `cuModuleLoadData`: a fatbin that was not compressed, or PTX.
///
/// # Safety
/// `image` must be a whole fatbin, or a text that ends with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(module: *mut usize, image: *const u8) -> c_int {
    guarded(|| {
        // SAFETY: both kinds of images are longer than a fatbin's header.
        let header = unsafe { image.cast::<[u8; 16]>().read_unaligned() };
        let text = match fatbin::length(&header) {
            Some(bytes) => {
                // SAFETY: a fatbin is as long as its header says.
                fatbin::ptx(unsafe { std::slice::from_raw_parts(image, bytes) })
            }
            None if header.starts_with(b"\x7fELF") => None,
            // SAFETY: all else is text that ends with a zero.
            None => Some(
                unsafe { CStr::from_ptr(image.cast()) }
                    .to_string_lossy()
                    .into_owned(),
            ),
        };
        let mut device = device();
        let Some(text) = text else {
            device.report("the image holds no PTX (build it with -no-compress and PTX)".to_owned());
            return code::NO_BINARY;
        };
        match device.load(&text) {
            // SAFETY: as the caller says.
            Ok(handle) => unsafe { put(module, handle) },
            Err(error) => error,
        }
    })
}

/// `cuModuleUnload`: waits for everything first.
#[unsafe(no_mangle)]
pub extern "C" fn cuModuleUnload(module: usize) -> c_int {
    guarded(|| {
        let mut device = device();
        device.run_all();
        device
            .modules
            .remove(&module)
            .map_or(code::INVALID_HANDLE, |_| code::SUCCESS)
    })
}

/// `cuModuleGetFunction`.
///
/// # Safety
/// `name` must be a text, `function` valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: *mut usize,
    module: usize,
    name: *const c_char,
) -> c_int {
    guarded(|| {
        // SAFETY: as the caller says.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        let mut device = device();
        let Some(found) = device.modules.get(&module) else {
            return code::INVALID_HANDLE;
        };
        let Some(kernel) = found.kernels.iter().position(|kernel| kernel.name == name) else {
            return code::NOT_FOUND;
        };
        let handle = device.handle();
        let dynamic_bytes = SHARED_DEFAULT;
        device.functions.insert(
            handle,
            Function {
                module,
                kernel,
                dynamic_bytes,
            },
        );
        // SAFETY: as the caller says.
        unsafe { put(function, handle) }
    })
}

/// `cuModuleGetGlobal_v2`.
///
/// # Safety
/// `name` must be a text, the others valid for a write or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetGlobal_v2(
    pointer: *mut u64,
    bytes: *mut usize,
    module: usize,
    name: *const c_char,
) -> c_int {
    guarded(|| {
        // SAFETY: as the caller says.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        let device = device();
        let Some(found) = device.modules.get(&module) else {
            return code::INVALID_HANDLE;
        };
        let Some((variable, address)) = found.globals.iter().find(|(v, _)| v.name == name) else {
            return code::NOT_FOUND;
        };
        // SAFETY: as the caller says.
        unsafe { put(bytes, variable.bytes as usize) };
        // SAFETY: as the caller says.
        unsafe { put(pointer, *address) }
    })
}

/// `cuFuncSetAttribute`: the most dynamic shared memory.
#[unsafe(no_mangle)]
pub extern "C" fn cuFuncSetAttribute(function: usize, attribute: c_int, value: c_int) -> c_int {
    const MAX_DYNAMIC_SHARED: c_int = 8;
    guarded(|| {
        let mut device = device();
        let Some(function) = device.functions.get_mut(&function) else {
            return code::INVALID_HANDLE;
        };
        match u32::try_from(value) {
            Ok(bytes) if attribute == MAX_DYNAMIC_SHARED && bytes <= SHARED_MOST => {
                function.dynamic_bytes = bytes;
                code::SUCCESS
            }
            _ if attribute == MAX_DYNAMIC_SHARED => code::INVALID_VALUE,
            _ => code::SUCCESS,
        }
    })
}

/// `cuFuncGetAttribute`.
///
/// # Safety
/// `value` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncGetAttribute(
    value: *mut c_int,
    attribute: c_int,
    function: usize,
) -> c_int {
    guarded(|| {
        let device = device();
        let Some(function) = device.functions.get(&function) else {
            return code::INVALID_HANDLE;
        };
        let kernel = device
            .modules
            .get(&function.module)
            .map(|m| &m.kernels[function.kernel]);
        let Some(kernel) = kernel else {
            return code::INVALID_HANDLE;
        };
        let found = match attribute {
            0 => kernel.max_threads as i32,
            1 => kernel.shared_bytes as i32,
            3 => kernel.local_bytes as i32,
            5 | 6 => 80,
            8 => function.dynamic_bytes as i32,
            _ => 0,
        };
        // SAFETY: as the caller says.
        unsafe { put(value, found) }
    })
}

/// `cuFuncSetCacheConfig`.
#[unsafe(no_mangle)]
pub extern "C" fn cuFuncSetCacheConfig(_function: usize, _config: c_uint) -> c_int {
    code::SUCCESS
}

/// `cuOccupancyMaxActiveBlocksPerMultiprocessor`: by threads and shared memory alone, since how many
/// registers ptxas would give a thread is not known.
///
/// # Safety
/// `blocks` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    blocks: *mut c_int,
    _function: usize,
    threads: c_int,
    dynamic_bytes: usize,
) -> c_int {
    guarded(|| {
        let by_threads = 2048 / threads.max(1);
        let by_memory = 167_936 / (dynamic_bytes as i32 + 1024);
        // SAFETY: as the caller says.
        unsafe { put(blocks, by_threads.min(by_memory).min(32)) }
    })
}

/// `cuLaunchKernel`.
///
/// # Safety
/// `parameters` must have a valid pointer for every parameter of the kernel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: usize,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    dynamic_bytes: c_uint,
    stream: usize,
    parameters: *const *const c_void,
    _extra: *const *const c_void,
) -> c_int {
    guarded(|| {
        let mut device = device();
        let Some(function) = device.functions.get(&function) else {
            return code::INVALID_HANDLE;
        };
        let (module, index, allowed) = (function.module, function.kernel, function.dynamic_bytes);
        let Some(kernel) = device
            .modules
            .get(&module)
            .map(|module| &module.kernels[index])
        else {
            return code::INVALID_HANDLE;
        };
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let threads = block.iter().map(|&n| u64::from(n)).product::<u64>();
        let is_valid = !grid.contains(&0)
            && grid_x < 1 << 31
            && grid_y <= 65_535
            && grid_z <= 65_535
            && (1..=u64::from(kernel.max_threads.min(1024))).contains(&threads)
            && dynamic_bytes <= allowed
            && kernel.shared_bytes + u64::from(dynamic_bytes) <= u64::from(SHARED_MOST);
        if !is_valid {
            return code::INVALID_VALUE;
        }
        let mut bytes = vec![0; kernel.parameter_bytes as usize];
        for (i, &(offset, size)) in kernel.parameters.iter().enumerate() {
            let (at, size) = (offset as usize, size as usize);
            // SAFETY: as the caller says.
            unsafe {
                let from = parameters.add(i).read().cast::<u8>();
                bytes[at..at + size].as_mut_ptr().copy_from(from, size);
            }
        }
        let launch = Launch {
            module,
            kernel: index,
            grid,
            block,
            dynamic_bytes,
            parameters: bytes,
        };
        device.enqueue(stream, Command::Launch(launch))
    })
}
