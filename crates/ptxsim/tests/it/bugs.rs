//! Planted bugs, each found in check mode, with the place and the reason.

use cudarc::driver::{LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;

use crate::device::{Device, last_error};
use crate::kernels;

/// The line of `bugs.cu` that holds a text.
fn line_of(text: &str) -> usize {
    let source = include_str!("../kernels/bugs.cu");
    source.lines().position(|line| line.contains(text)).unwrap() + 1
}

fn config(threads: u32, shared: u32) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (1, 1, 1),
        block_dim: (threads, 1, 1),
        shared_mem_bytes: shared,
    }
}

/// Runs a kernel that takes one pointer, and gives the code and the message.
fn run(kernel: &str, threads: u32) -> (String, String) {
    let device = Device::new(true);
    let kernel = device
        .module(kernels!("bugs"))
        .load_function(kernel)
        .unwrap();
    let mut y = device.stream.alloc_zeros::<f32>(128).unwrap();
    let mut builder = device.stream.launch_builder(&kernel);
    builder.arg(&mut y);
    // SAFETY: the argument fits the kernel; what it does wrong, the device catches.
    unsafe { builder.launch(config(threads, 0)) }.unwrap();
    outcome(&device)
}

fn outcome(device: &Device) -> (String, String) {
    let code = match device.stream.synchronize() {
        Ok(()) => "success".to_owned(),
        Err(error) => format!("{error:?}"),
    };
    // The error stays.
    let again = device.stream.synchronize().is_err();
    assert_eq!(again, code != "success");
    (code, last_error())
}

#[track_caller]
fn found((code, message): (String, String), wanted_code: &str, wanted: &[&str]) {
    assert!(code.contains(wanted_code), "{code}: {message}");
    for part in wanted {
        assert!(message.contains(part), "{part:?} is missing in: {message}");
    }
}

fn at(text: &str) -> String {
    format!("bugs.cu:{}", line_of(text))
}

#[test]
fn missing_barrier() {
    // The warp that runs first reads what the other one writes later; both places are named.
    let parts = [
        "race: write after a read by thread 0",
        &at("missing __syncthreads"),
        &at("also the other half"),
    ];
    found(run("missing_barrier", 64), "LAUNCH_FAILED", &parts);
    assert_eq!(run("with_barrier", 64).0, "success");
}

#[test]
fn shared_out_of_bounds() {
    let device = Device::new(true);
    let kernel = device
        .module(kernels!("bugs"))
        .load_function("shared_out_of_bounds")
        .unwrap();
    let mut y = device.stream.alloc_zeros::<f32>(64).unwrap();
    let mut builder = device.stream.launch_builder(&kernel);
    builder.arg(&mut y).arg(&4);
    // SAFETY: the arguments fit the kernel; what it does wrong, the device catches.
    unsafe { builder.launch(config(64, 256)) }.unwrap();
    let parts = [
        "out of bounds: write to shared memory",
        &at("beyond the end"),
        "thread (60, 0, 0)",
        "256 bytes",
    ];
    found(outcome(&device), "ILLEGAL_ADDRESS", &parts);
}

#[test]
fn global_out_of_bounds() {
    let device = Device::new(true);
    let kernel = device
        .module(kernels!("bugs"))
        .load_function("fill")
        .unwrap();
    let mut y = device.stream.alloc_zeros::<f32>(100).unwrap();
    let mut builder = device.stream.launch_builder(&kernel);
    builder.arg(&mut y).arg(&101);
    // SAFETY: the arguments fit the kernel; what it does wrong, the device catches.
    unsafe { builder.launch(config(128, 0)) }.unwrap();
    let parts = [
        "kernel fill",
        "write to global memory",
        "out of bounds: byte 400",
        &at("for a wrong n"),
        "(100, 0, 0)",
    ];
    found(outcome(&device), "ILLEGAL_ADDRESS", &parts);
}

#[test]
fn use_after_free() {
    use cudarc::driver::DevicePtr;
    let device = Device::new(true);
    let kernel = device
        .module(kernels!("bugs"))
        .load_function("fill")
        .unwrap();
    let y = device.stream.alloc_zeros::<f32>(128).unwrap();
    let address = y.device_ptr(&device.stream).0;
    drop(y);
    let mut builder = device.stream.launch_builder(&kernel);
    builder.arg(&address).arg(&128);
    // SAFETY: the arguments fit the kernel; what it does wrong, the device catches.
    unsafe { builder.launch(config(128, 0)) }.unwrap();
    found(
        outcome(&device),
        "ILLEGAL_ADDRESS",
        &["use after free", "fill", &at("for a wrong n")],
    );
}

#[test]
fn uninitialized_global() {
    let device = Device::new(true);
    let kernel = device
        .module(kernels!("bugs"))
        .load_function("copy")
        .unwrap();
    // SAFETY: that nobody writes it is the point.
    let x = unsafe { device.stream.alloc::<f32>(64) }.unwrap();
    let mut y = device.stream.alloc_zeros::<f32>(64).unwrap();
    let mut builder = device.stream.launch_builder(&kernel);
    builder.arg(&x).arg(&mut y).arg(&64);
    // SAFETY: the arguments fit the kernel; what it does wrong, the device catches.
    unsafe { builder.launch(config(64, 0)) }.unwrap();
    found(
        outcome(&device),
        "ILLEGAL_ADDRESS",
        &["uninitialized read: byte 0", &at("y[i] = x[i]")],
    );
}

#[test]
fn uninitialized_shared() {
    let parts = [
        "uninitialized read of shared memory",
        &at("was never written"),
        "thread (32, 0, 0)",
    ];
    found(run("uninitialized_shared", 64), "ILLEGAL_ADDRESS", &parts);
}

#[test]
fn misaligned() {
    let device = Device::new(true);
    let kernel = device
        .module(kernels!("bugs"))
        .load_function("misaligned")
        .unwrap();
    let x = device.stream.alloc_zeros::<f32>(64).unwrap();
    let mut y = device.stream.alloc_zeros::<f32>(64).unwrap();
    let mut builder = device.stream.launch_builder(&kernel);
    builder.arg(&x).arg(&mut y);
    // SAFETY: the arguments fit the kernel; what it does wrong, the device catches.
    unsafe { builder.launch(config(32, 0)) }.unwrap();
    found(
        outcome(&device),
        "MISALIGNED_ADDRESS",
        &["misaligned read of global memory: 16 bytes"],
    );
}

#[test]
fn missing_wait_for_a_copy() {
    let device = Device::new(true);
    let kernel = device
        .module(kernels!("gemm"))
        .load_function("gemm_without_wait")
        .unwrap();
    let a = device.stream.alloc_zeros::<half::bf16>(64 * 64).unwrap();
    let mut c = device.stream.alloc_zeros::<f32>(64 * 64).unwrap();
    let mut builder = device.stream.launch_builder(&kernel);
    builder.arg(&a).arg(&a).arg(&mut c).arg(&64).arg(&64);
    // SAFETY: the arguments fit the kernel; what it does wrong, the device catches.
    unsafe { builder.launch(config(128, 0)) }.unwrap();
    found(
        outcome(&device),
        "LAUNCH_FAILED",
        &["missing wait", "cp.async", "gemm.cu:"],
    );
}

#[test]
fn divergent_barrier() {
    let parts = ["divergent barrier 0", "threads had exited", &at("pass by")];
    found(run("divergent_barrier", 64), "LAUNCH_FAILED", &parts);
}

#[test]
fn deadlocked_shuffle() {
    let parts = [
        "deadlock",
        "0xffffffff",
        "0x0000ffff",
        &at("that wait at the barrier"),
    ];
    found(run("deadlocked_shuffle", 32), "LAUNCH_FAILED", &parts);
}

#[test]
fn trap() {
    found(
        run("asserts", 32),
        "LAUNCH_FAILED",
        &["trap", "thread (7, 0, 0)"],
    );
}

#[test]
fn unknown_instruction_is_a_load_error_with_its_line() {
    let device = Device::new(true);
    let text = kernels!("bugs").replacen("bar.sync", "bar.frobnicate", 1);
    let line = text
        .lines()
        .position(|line| line.contains("frobnicate"))
        .unwrap()
        + 1;
    let error = device.context.load_module(Ptx::from_src(text)).unwrap_err();
    assert!(format!("{error:?}").contains("INVALID_PTX"), "{error:?}");
    let message = last_error();
    assert!(
        message.contains(&format!("line {line}: ")) && message.contains("bar.frobnicate"),
        "{message}"
    );
}

#[test]
fn pinned_memory_read_before_the_stream_is_waited_for() {
    let device = Device::new(true);
    let kernel = device
        .module(kernels!("bugs"))
        .load_function("fill")
        .unwrap();
    let mut y = device.stream.alloc_zeros::<f32>(64).unwrap();
    // SAFETY: it is written below before it is read.
    let mut host = unsafe { device.context.alloc_pinned::<f32>(64) }.unwrap();
    host.as_mut_slice().unwrap().fill(-1.0);
    let pointer = host.as_ptr().unwrap();
    let mut builder = device.stream.launch_builder(&kernel);
    builder.arg(&mut y).arg(&64);
    // SAFETY: the arguments fit the kernel.
    unsafe { builder.launch(config(64, 0)) }.unwrap();
    device.stream.memcpy_dtoh(&y, &mut host).unwrap();
    // SAFETY: the memory is there; that the copy has not happened is the point.
    let early = unsafe { pointer.add(5).read_volatile() };
    assert!(
        early.is_nan(),
        "the copy must not have happened yet: {early}"
    );
    device.finish();
    // SAFETY: as above, after the copy.
    let late = unsafe { pointer.add(5).read_volatile() };
    assert_eq!(late.to_bits(), 5.0_f32.to_bits());
}
