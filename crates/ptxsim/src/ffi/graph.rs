//! Stream capture and graphs.

use std::ffi::{c_int, c_uint};

use super::{Out, api};

api! {
    fn cuStreamBeginCapture_v2(stream: u64, _mode: c_uint) |device| { device.begin_capture(stream) }
    fn cuStreamEndCapture(stream: u64, graph: Out<u64>) |device| {
        let handle = device.end_capture(stream)?;
        graph.set(handle)
    }
    fn cuStreamIsCapturing(stream: u64, status: Out<c_int>) |device| {
        let capturing = device.capture_of(stream)?.is_some();
        status.set(c_int::from(capturing))
    }
    fn cuThreadExchangeStreamCaptureMode(_mode: Out<c_uint>) |_device| { Ok(()) }
    fn cuGraphInstantiateWithFlags(executable: Out<u64>, graph: u64, _flags: u64) |device| {
        let handle = device.instantiate(graph)?;
        executable.set(handle)
    }
    fn cuGraphUpload(_executable: u64, _stream: u64) |_device| { Ok(()) }
    fn cuGraphLaunch(executable: u64, stream: u64) |device| { device.launch_graph(executable, stream) }
    fn cuGraphGetNodes(graph: u64, nodes: Out<u64>, count: Out<usize>) |device| {
        if !nodes.0.is_null() {
            return Err(crate::device::code::NOT_SUPPORTED);
        }
        count.set(device.graphs.len(graph)?)
    }
    fn cuGraphDestroy(graph: u64) |device| { device.graphs.destroy(graph) }
    fn cuGraphExecDestroy(executable: u64) |device| { device.graphs.destroy_executable(executable) }
}
