//! Modules and functions.

use std::ffi::{c_int, c_uint};
use std::sync::Arc;

use super::{Name, Out, api};
use crate::device::module::Function;
use crate::device::{Code, Device, code};
use crate::ptx::fatbin::{ptx_of, registers_of};

fn function(device: &Device, handle: u64) -> Result<Arc<Function>, Code> {
    device
        .functions
        .get(&handle)
        .cloned()
        .ok_or(code::INVALID_HANDLE)
}

fn load(device: &mut Device, module: &Out<u64>, image: *const u8) -> Result<(), Code> {
    device.health()?;
    if image.is_null() {
        return Err(code::INVALID_VALUE);
    }
    // SAFETY: the caller passes a whole image, as the driver's interface asks.
    let (text, registers) = unsafe { (ptx_of(image), registers_of(image)) };
    match text {
        Ok(text) => {
            let handle = device.load(&text, registers)?;
            module.set(handle)
        }
        Err(why) => {
            device.complain(&why);
            Err(code::NO_BINARY_FOR_GPU)
        }
    }
}

fn int(value: usize) -> c_int {
    c_int::try_from(value).unwrap_or(c_int::MAX)
}

/// The number of threads in a block, up to 1024, that fills a multiprocessor best.
fn best_block(function: &Function, dynamic: usize, limit: c_int) -> (usize, usize) {
    let most = function.kernel.max_threads as usize;
    let limit = usize::try_from(limit)
        .ok()
        .filter(|&limit| limit > 0)
        .map_or(most, |limit| limit.min(most));
    let sizes = (1..=limit / 32).map(|warps| warps * 32);
    let best = sizes
        .max_by_key(|&size| (function.occupancy(size, dynamic) * size, size))
        .unwrap_or(limit);
    (best, function.occupancy(best, dynamic))
}

api! {
    fn cuModuleLoadData(module: Out<u64>, image: *const u8) |device| { load(device, &module, image) }
    fn cuModuleLoadDataEx(
        module: Out<u64>, image: *const u8, _count: c_uint, _options: usize, _values: usize,
    ) |device| {
        load(device, &module, image)
    }
    fn cuModuleLoadFatBinary(module: Out<u64>, image: *const u8) |device| { load(device, &module, image) }
    fn cuModuleLoad(module: Out<u64>, path: Name) |device| {
        device.health()?;
        let bytes = std::fs::read(path.read()?).map_err(|_| code::INVALID_VALUE)?;
        let mut image = bytes;
        image.push(0);
        load(device, &module, image.as_ptr())
    }
    fn cuModuleUnload(module: u64) |device| {
        device.run_everything()?;
        device.unload(module)
    }
    fn cuModuleGetFunction(function: Out<u64>, module: u64, name: Name) |device| {
        let handle = device.function(module, &name.read()?)?;
        function.set(handle)
    }
    fn cuModuleGetGlobal_v2(address: Out<u64>, bytes: Out<usize>, module: u64, name: Name) |device| {
        let module = device.modules.get(&module).ok_or(code::INVALID_HANDLE)?;
        let &(at, size) = module.variables.get(&name.read()?).ok_or(code::NOT_FOUND)?;
        address.set_if_wanted(at);
        bytes.set_if_wanted(size);
        Ok(())
    }
    fn cuFuncGetAttribute(value: Out<c_int>, attribute: c_int, handle: u64) |device| {
        let function = function(device, handle)?;
        let kernel = &function.kernel;
        value.set(match attribute {
            0 => int(kernel.max_threads as usize),
            1 => int(kernel.static_shared),
            3 => int(kernel.local_bytes),
            4 => int(function.registers as usize),
            5 | 6 => 80,
            8 => function.max_dynamic(),
            9 => -1,
            _ => 0,
        })
    }
    fn cuFuncSetAttribute(handle: u64, attribute: c_int, value: c_int) |device| {
        let function = function(device, handle)?;
        if attribute == 8 { function.set_max_dynamic(value) } else { Ok(()) }
    }
    fn cuFuncSetCacheConfig(_function: u64, _config: c_uint) |_device| { Ok(()) }
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: Out<c_int>, handle: u64, threads: c_int, dynamic: usize,
    ) |device| {
        let threads = usize::try_from(threads).map_err(|_| code::INVALID_VALUE)?;
        blocks.set(int(function(device, handle)?.occupancy(threads, dynamic)))
    }
    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: Out<c_int>, handle: u64, threads: c_int, dynamic: usize, _flags: c_uint,
    ) |device| {
        let threads = usize::try_from(threads).map_err(|_| code::INVALID_VALUE)?;
        blocks.set(int(function(device, handle)?.occupancy(threads, dynamic)))
    }
    fn cuOccupancyMaxPotentialBlockSize(
        grid: Out<c_int>, block: Out<c_int>, handle: u64,
        bytes: Option<unsafe extern "C" fn(c_int) -> usize>, dynamic: usize, limit: c_int,
    ) |device| {
        if bytes.is_some() {
            return Err(code::NOT_SUPPORTED);
        }
        let (size, blocks) = best_block(&*function(device, handle)?, dynamic, limit);
        grid.set(int(108 * blocks))?;
        block.set(int(size))
    }
    fn cuOccupancyAvailableDynamicSMemPerBlock(
        bytes: Out<usize>, handle: u64, blocks: c_int, _threads: c_int,
    ) |device| {
        let function = function(device, handle)?;
        let blocks = usize::try_from(blocks).ok().filter(|&n| n > 0).ok_or(code::INVALID_VALUE)?;
        let share = (167_936 / blocks).saturating_sub(1024 + function.kernel.static_shared);
        let most = usize::try_from(function.max_dynamic()).unwrap_or(0);
        bytes.set(share.min(most))
    }
}
