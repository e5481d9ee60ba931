//! Memory of the device and of the host, copies, and memory pools.

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::{c_int, c_uint};

use super::{Out, api};
use crate::device::stream::{LEGACY, Work};
use crate::device::{Code, Device, code};

/// Alignment of page-locked host memory.
const PAGE: usize = 4096;

fn allocate(device: &mut Device, address: &Out<u64>, bytes: usize) -> Result<(), Code> {
    device.health()?;
    if bytes == 0 {
        return Err(code::INVALID_VALUE);
    }
    let mut found = device.memory.allocate(bytes);
    if found.is_none() {
        // Queued work may free memory.
        device.run_everything()?;
        found = device.memory.allocate(bytes);
    }
    address.set(found.ok_or(code::OUT_OF_MEMORY)?)
}

fn upload(
    device: &mut Device,
    dst: u64,
    src: *const u8,
    bytes: usize,
    stream: u64,
) -> Result<(), Code> {
    if bytes == 0 {
        return Ok(());
    }
    let late = device.is_pinned(src as u64, bytes) || device.capture_of(stream)?.is_some();
    if late {
        return device.enqueue(
            stream,
            Work::UploadLate {
                dst,
                src: src as u64,
                bytes,
            },
        );
    }
    // SAFETY: the caller passes that many bytes.
    let bytes = unsafe { std::slice::from_raw_parts(src, bytes) }.into();
    device.enqueue(stream, Work::Upload { dst, bytes })
}

fn download(
    device: &mut Device,
    dst: *mut u8,
    src: u64,
    bytes: usize,
    stream: u64,
) -> Result<(), Code> {
    if bytes == 0 {
        return device.health();
    }
    let pinned = device.is_pinned(dst as u64, bytes);
    let captured = device.capture_of(stream)?.is_some();
    device.enqueue(
        stream,
        Work::Download {
            dst: dst as u64,
            src,
            bytes,
        },
    )?;
    if !pinned && !captured {
        // A copy to pageable memory returns when it is done.
        return device.run_all_of(stream);
    }
    if pinned && device.options.check && !captured {
        // Until the copy runs, nobody may rely on what is there: make that visible.
        // SAFETY: the caller passes that many bytes.
        unsafe { std::ptr::write_bytes(dst, 0xff, bytes) };
    }
    Ok(())
}

fn host_layout(bytes: usize) -> Result<Layout, Code> {
    Layout::from_size_align(bytes.max(1), PAGE).map_err(|_| code::INVALID_VALUE)
}

api! {
    fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) |device| {
        free.set(device.memory.limit - device.memory.used)?;
        total.set(device.memory.limit)
    }
    fn cuMemAlloc_v2(address: Out<u64>, bytes: usize) |device| { allocate(device, &address, bytes) }
    fn cuMemAllocAsync(address: Out<u64>, bytes: usize, _stream: u64) |device| {
        allocate(device, &address, bytes)
    }
    fn cuMemAllocFromPoolAsync(address: Out<u64>, bytes: usize, _pool: u64, _stream: u64) |device| {
        allocate(device, &address, bytes)
    }
    fn cuMemAllocManaged(address: Out<u64>, bytes: usize, _flags: c_uint) |device| {
        allocate(device, &address, bytes)?;
        // SAFETY: `allocate` has written the address of that many bytes. Managed memory is the host's to write.
        let start = unsafe { *address.0 };
        device.memory.host_range(start, bytes, true).map_err(|_| code::UNKNOWN)
    }
    fn cuMemFree_v2(address: u64) |device| {
        if address == 0 {
            return Ok(());
        }
        device.run_everything()?;
        if device.memory.free(address) { Ok(()) } else { Err(code::INVALID_VALUE) }
    }
    fn cuMemFreeAsync(address: u64, stream: u64) |device| { device.enqueue(stream, Work::Free { address }) }
    fn cuMemHostAlloc(address: Out<u64>, bytes: usize, _flags: c_uint) |device| {
        // SAFETY: the layout has at least one byte.
        let start = unsafe { alloc(host_layout(bytes)?) } as u64;
        if start == 0 {
            return Err(code::OUT_OF_MEMORY);
        }
        device.pinned.insert(start, bytes);
        address.set(start)
    }
    fn cuMemFreeHost(address: u64) |device| {
        // Copies that are under way may still use it.
        let result = device.run_everything();
        let bytes = device.pinned.remove(&address).ok_or(code::INVALID_VALUE)?;
        // SAFETY: `cuMemHostAlloc` allocated it with this layout, and it is freed once.
        unsafe { dealloc(address as *mut u8, host_layout(bytes)?) };
        result
    }
    fn cuMemHostGetDevicePointer_v2(_address: Out<u64>, _host: u64, _flags: c_uint) |_device| {
        Err(code::NOT_SUPPORTED)
    }
    fn cuMemHostRegister_v2(address: u64, bytes: usize, _flags: c_uint) |device| {
        device.pinned.insert(address, bytes);
        Ok(())
    }
    fn cuMemHostUnregister(address: u64) |device| {
        device.run_everything()?;
        device.pinned.remove(&address).map(|_| ()).ok_or(code::INVALID_VALUE)
    }
    fn cuMemcpyHtoD_v2(dst: u64, src: *const u8, bytes: usize) |device| {
        upload(device, dst, src, bytes, LEGACY)?;
        device.run_all_of(LEGACY)
    }
    fn cuMemcpyHtoDAsync_v2(dst: u64, src: *const u8, bytes: usize, stream: u64) |device| {
        upload(device, dst, src, bytes, stream)
    }
    fn cuMemcpyDtoH_v2(dst: *mut u8, src: u64, bytes: usize) |device| {
        download(device, dst, src, bytes, LEGACY)?;
        device.run_all_of(LEGACY)
    }
    fn cuMemcpyDtoHAsync_v2(dst: *mut u8, src: u64, bytes: usize, stream: u64) |device| {
        download(device, dst, src, bytes, stream)
    }
    fn cuMemcpyDtoD_v2(dst: u64, src: u64, bytes: usize) |device| {
        device.enqueue(LEGACY, Work::Copy { dst, src, bytes })
    }
    fn cuMemcpyDtoDAsync_v2(dst: u64, src: u64, bytes: usize, stream: u64) |device| {
        device.enqueue(stream, Work::Copy { dst, src, bytes })
    }
    fn cuMemcpyPeerAsync(dst: u64, _dc: u64, src: u64, _sc: u64, bytes: usize, stream: u64) |device| {
        device.enqueue(stream, Work::Copy { dst, src, bytes })
    }
    fn cuMemsetD8_v2(dst: u64, value: u8, count: usize) |device| {
        device.enqueue(LEGACY, Work::Set { dst, value: u32::from(value), width: 1, count })
    }
    fn cuMemsetD8Async(dst: u64, value: u8, count: usize, stream: u64) |device| {
        device.enqueue(stream, Work::Set { dst, value: u32::from(value), width: 1, count })
    }
    fn cuMemsetD16_v2(dst: u64, value: u16, count: usize) |device| {
        device.enqueue(LEGACY, Work::Set { dst, value: u32::from(value), width: 2, count })
    }
    fn cuMemsetD16Async(dst: u64, value: u16, count: usize, stream: u64) |device| {
        device.enqueue(stream, Work::Set { dst, value: u32::from(value), width: 2, count })
    }
    fn cuMemsetD32_v2(dst: u64, value: u32, count: usize) |device| {
        device.enqueue(LEGACY, Work::Set { dst, value, width: 4, count })
    }
    fn cuMemsetD32Async(dst: u64, value: u32, count: usize, stream: u64) |device| {
        device.enqueue(stream, Work::Set { dst, value, width: 4, count })
    }
    fn cuMemPrefetchAsync_v2(_address: u64, _bytes: usize, _place: u64, _flags: c_uint, _stream: u64) |_device| {
        Ok(())
    }
    fn cuMemAdvise_v2(_address: u64, _bytes: usize, _advice: c_uint, _place: u64) |_device| { Ok(()) }
    fn cuStreamAttachMemAsync(_stream: u64, _address: u64, _bytes: usize, _flags: c_uint) |_device| { Ok(()) }
    fn cuDeviceGetDefaultMemPool(pool: Out<u64>, _ordinal: c_int) |_device| { pool.set(0x71) }
    fn cuDeviceGetMemPool(pool: Out<u64>, _ordinal: c_int) |_device| { pool.set(0x71) }
    fn cuDeviceSetMemPool(_ordinal: c_int, _pool: u64) |_device| { Ok(()) }
    fn cuMemPoolCreate(pool: Out<u64>, _properties: usize) |device| {
        let handle = device.handle();
        pool.set(handle)
    }
    fn cuMemPoolDestroy(_pool: u64) |_device| { Ok(()) }
    fn cuMemPoolTrimTo(_pool: u64, _keep: usize) |_device| { Ok(()) }
    fn cuMemPoolSetAttribute(_pool: u64, _attribute: c_uint, _value: usize) |_device| { Ok(()) }
    fn cuMemPoolGetAttribute(_pool: u64, attribute: c_uint, value: Out<u64>) |device| {
        // Attributes 1 to 3 are switches of 4 bytes; the others count bytes, in 8.
        if attribute < 4 {
            return Out(value.0.cast::<c_int>()).set(1);
        }
        value.set(if attribute == 4 { 0 } else { device.memory.used as u64 })
    }
}
