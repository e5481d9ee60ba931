//! Streams and events.

use std::ffi::{c_int, c_uint, c_void};

use super::{Out, api};
use crate::device::code;
use crate::device::stream::Work;

/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: c_uint = 1;

api! {
    fn cuStreamCreate(stream: Out<u64>, flags: c_uint) |device| {
        device.health()?;
        let handle = device.new_stream(flags & NON_BLOCKING == 0);
        stream.set(handle)
    }
    fn cuStreamCreateWithPriority(stream: Out<u64>, flags: c_uint, _priority: c_int) |device| {
        device.health()?;
        let handle = device.new_stream(flags & NON_BLOCKING == 0);
        stream.set(handle)
    }
    fn cuStreamDestroy_v2(stream: u64) |device| { device.destroy_stream(stream) }
    fn cuStreamSynchronize(stream: u64) |device| { device.run_all_of(stream) }
    fn cuStreamQuery(stream: u64) |device| {
        if device.is_idle(stream)? {
            return device.health();
        }
        device.run_one(stream)?;
        Err(code::NOT_READY)
    }
    fn cuStreamWaitEvent(stream: u64, event: u64, _flags: c_uint) |device| { device.wait_event(stream, event) }
    fn cuLaunchHostFunc(stream: u64, function: Option<unsafe extern "C" fn(*mut c_void)>, data: u64) |device| {
        let function = function.ok_or(code::INVALID_VALUE)?;
        device.enqueue(stream, Work::Call { function, data })
    }
    fn cuEventCreate(event: Out<u64>, _flags: c_uint) |device| {
        device.health()?;
        let handle = device.new_event();
        event.set(handle)
    }
    fn cuEventDestroy_v2(event: u64) |device| {
        device.events.remove(&event).map(|_| ()).ok_or(code::INVALID_HANDLE)
    }
    fn cuEventRecord(event: u64, stream: u64) |device| { device.record_event(event, stream) }
    fn cuEventRecordWithFlags(event: u64, stream: u64, _flags: c_uint) |device| {
        device.record_event(event, stream)
    }
    fn cuEventSynchronize(event: u64) |device| { device.synchronize_event(event) }
    fn cuEventQuery(event: u64) |device| { device.query_event(event) }
    fn cuEventElapsedTime(ms: Out<f32>, start: u64, end: u64) |device| { ms.set(device.elapsed(start, end)?) }
    fn cuEventElapsedTime_v2(ms: Out<f32>, start: u64, end: u64) |device| { ms.set(device.elapsed(start, end)?) }
}
