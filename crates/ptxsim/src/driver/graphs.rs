//! Graphs: what was asked of a stream while it was captured, in that order.

use std::ffi::{c_int, c_uint};

use super::{guarded, put};
use crate::device::{Command, code, device};

/// `cuStreamBeginCapture_v2`.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamBeginCapture_v2(stream: usize, _mode: c_uint) -> c_int {
    guarded(|| match device().streams.get_mut(&stream) {
        None => code::INVALID_HANDLE,
        Some(stream) if stream.capture.is_some() => code::NOT_PERMITTED,
        Some(stream) => {
            stream.capture = Some(Vec::new());
            code::SUCCESS
        }
    })
}

/// `cuStreamEndCapture`.
///
/// # Safety
/// `graph` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamEndCapture(stream: usize, graph: *mut usize) -> c_int {
    guarded(|| {
        let mut device = device();
        let captured = device
            .streams
            .get_mut(&stream)
            .and_then(|stream| stream.capture.take());
        let Some(commands) = captured else {
            return code::NOT_PERMITTED;
        };
        let handle = device.handle();
        device.graphs.insert(handle, commands);
        // SAFETY: as the caller says.
        unsafe { put(graph, handle) }
    })
}

/// `cuStreamIsCapturing`.
///
/// # Safety
/// `status` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamIsCapturing(stream: usize, status: *mut c_int) -> c_int {
    guarded(|| {
        let device = device();
        let captures = device
            .streams
            .get(&stream)
            .is_some_and(|stream| stream.capture.is_some());
        // SAFETY: as the caller says.
        unsafe { put(status, i32::from(captures)) }
    })
}

/// `cuGraphInstantiateWithFlags`.
///
/// # Safety
/// `exec` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphInstantiateWithFlags(
    exec: *mut usize,
    graph: usize,
    _flags: u64,
) -> c_int {
    guarded(|| {
        let mut device = device();
        let Some(commands) = device.graphs.get(&graph).cloned() else {
            return code::INVALID_HANDLE;
        };
        let handle = device.handle();
        device.graphs.insert(handle, commands);
        // SAFETY: as the caller says.
        unsafe { put(exec, handle) }
    })
}

/// `cuGraphLaunch`.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphLaunch(exec: usize, stream: usize) -> c_int {
    guarded(|| {
        let mut device = device();
        let Some(commands) = device.graphs.get(&exec).cloned() else {
            return code::INVALID_HANDLE;
        };
        device.enqueue(stream, Command::Graph(commands))
    })
}

/// `cuGraphUpload`.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphUpload(_exec: usize, _stream: usize) -> c_int {
    code::SUCCESS
}

/// `cuGraphDestroy`.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphDestroy(graph: usize) -> c_int {
    guarded(|| {
        device()
            .graphs
            .remove(&graph)
            .map_or(code::INVALID_HANDLE, |_| code::SUCCESS)
    })
}

/// `cuGraphExecDestroy`.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphExecDestroy(exec: usize) -> c_int {
    cuGraphDestroy(exec)
}
