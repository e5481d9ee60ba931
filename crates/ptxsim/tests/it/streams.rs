//! Streams, events, graphs, limits and occupancy.

use cudarc::driver::sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
use cudarc::driver::sys::{CUevent_flags, CUgraphInstantiate_flags_enum, CUstreamCaptureMode};
use cudarc::driver::{LaunchConfig, PushKernelArg};

use crate::device::Device;
use crate::kernels;

fn config(threads: u32, shared: u32) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (1, 1, 1),
        block_dim: (threads, 1, 1),
        shared_mem_bytes: shared,
    }
}

#[test]
fn events_order_streams() {
    let device = Device::new(true);
    let module = device.module(kernels!("basics"));
    let saxpy = module.load_function("saxpy").unwrap();
    let other = device.context.new_stream().unwrap();
    let x = device.stream.clone_htod(&[1.0_f32; 64]).unwrap();
    let mut y = device.stream.clone_htod(&[10.0_f32; 64]).unwrap();
    let start = device
        .stream
        .record_event(Some(CUevent_flags::CU_EVENT_DEFAULT))
        .unwrap();
    for (stream, a) in [(&device.stream, 2.0_f32), (&other, 3.0)] {
        let mut builder = stream.launch_builder(&saxpy);
        builder.arg(&x).arg(&mut y).arg(&a).arg(&64);
        // SAFETY: the arguments fit the kernel.
        unsafe { builder.launch(config(64, 0)) }.unwrap();
    }
    let end = other
        .record_event(Some(CUevent_flags::CU_EVENT_DEFAULT))
        .unwrap();
    assert!(!end.is_complete(), "nothing runs before somebody waits");
    assert_eq!(other.clone_dtoh(&y).unwrap(), [15.0; 64]);
    assert!(start.elapsed_ms(&end).unwrap() >= 0.0);
}

#[test]
fn graphs_run_again_and_again() {
    let device = Device::new(true);
    let saxpy = device
        .module(kernels!("basics"))
        .load_function("saxpy")
        .unwrap();
    let x = device.stream.clone_htod(&[1.0_f32; 64]).unwrap();
    let mut y = device.stream.clone_htod(&[0.0_f32; 64]).unwrap();
    device.finish();
    // SAFETY: only this test uses the context.
    unsafe { device.context.disable_event_tracking() };
    device
        .stream
        .begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED)
        .unwrap();
    for a in [2.0_f32, 0.5] {
        let mut builder = device.stream.launch_builder(&saxpy);
        builder.arg(&x).arg(&mut y).arg(&a).arg(&64);
        // SAFETY: the arguments fit the kernel.
        unsafe { builder.launch(config(64, 0)) }.unwrap();
    }
    let flags = CUgraphInstantiate_flags_enum::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = device.stream.end_capture(flags).unwrap().unwrap();
    assert_eq!(device.stream.clone_dtoh(&y).unwrap(), [0.0; 64]);
    for _ in 0..3 {
        graph.launch().unwrap();
    }
    assert_eq!(device.stream.clone_dtoh(&y).unwrap(), [7.5; 64]);
}

#[test]
fn limits_are_those_of_a_device() {
    let device = Device::new(false);
    assert_eq!(
        device.context.name().unwrap(),
        "ptxsim software CUDA device"
    );
    assert_eq!(device.context.compute_capability().unwrap(), (8, 0));
    let too_big = device.stream.alloc_zeros::<u8>(5 << 30);
    assert!(format!("{:?}", too_big.unwrap_err()).contains("OUT_OF_MEMORY"));
    let kernel = device
        .module(kernels!("bugs"))
        .load_function("shared_out_of_bounds")
        .unwrap();
    let mut y = device.stream.alloc_zeros::<f32>(64).unwrap();
    for (opted, fits) in [(None, false), (Some(100_000), true)] {
        if let Some(bytes) = opted {
            kernel
                .set_attribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes)
                .unwrap();
        }
        let mut builder = device.stream.launch_builder(&kernel);
        builder.arg(&mut y).arg(&0);
        // SAFETY: the arguments fit the kernel.
        let result = unsafe { builder.launch(config(64, 100_000)) };
        assert_eq!(result.is_ok(), fits, "{result:?}");
    }
    assert!(
        kernel
            .set_attribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 170_000)
            .is_err()
    );
    assert_eq!(
        kernel
            .occupancy_max_active_blocks_per_multiprocessor(256, 80_000, None)
            .unwrap(),
        2
    );
    assert_eq!(
        kernel
            .occupancy_max_active_blocks_per_multiprocessor(1024, 0, None)
            .unwrap(),
        2
    );
}
