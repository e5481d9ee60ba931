//! Arithmetic, control flow, warp-wide instructions, atomics and variables, against Rust.

use cudarc::driver::{CudaSlice, LaunchConfig, PushKernelArg};

use crate::device::Device;
use crate::kernels;

fn shape(grid: u32, block: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (grid, 1, 1), block_dim: (block, 1, 1), shared_mem_bytes: 0 }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Args {
    x: u64,
    y: u64,
    n: i32,
    table: [f32; 16],
}

// SAFETY: plain data, laid out as the kernel's argument.
unsafe impl cudarc::driver::DeviceRepr for Args {}

fn address<T>(slice: &CudaSlice<T>, device: &Device) -> u64 {
    use cudarc::driver::DevicePtr;
    slice.device_ptr(&device.stream).0
}

/// Relative error, or absolute below 1.
#[track_caller]
fn close(name: &str, got: f64, want: f64, tolerance: f64) {
    let error = (got - want).abs() / want.abs().max(1.0);
    assert!(error <= tolerance, "{name}: {got} for {want}, off by {error:e}");
}

#[test]
fn math_functions_agree_with_f64() {
    let device = Device::new(true);
    let kernel = device.module(kernels!("basics")).load_function("math").unwrap();
    let n = 200;
    let x: Vec<f32> = (0..n).map(|i| 0.05 + 0.0317 * i as f32).collect();
    let x_device = device.stream.clone_htod(&x).unwrap();
    let y_device = device.stream.alloc_zeros::<f64>(21 * n).unwrap();
    let table: [f32; 16] = std::array::from_fn(|i| i as f32 * 1.5 - 3.0);
    let args = Args { x: address(&x_device, &device), y: address(&y_device, &device), n: n as i32, table };
    // SAFETY: the arguments fit the kernel.
    unsafe { device.stream.launch_builder(&kernel).arg(&args).launch(shape(4, 64)) }.unwrap();
    device.finish();
    let y = device.stream.clone_dtoh(&y_device).unwrap();
    for (i, &v) in x.iter().enumerate() {
        let d = f64::from(v);
        let at = |row: usize| y[row * n + i];
        let single = 4e-7;
        close("expf", at(0), d.exp(), 2e-7 * 4.0);
        close("logf", at(1), d.ln(), single);
        close("sinf", at(2), d.sin(), single);
        close("cosf", at(3), d.cos(), single);
        close("tanhf", at(4), d.tanh(), single);
        close("powf", at(5), d.powf(1.5), 1e-6);
        close("rsqrtf", at(7), 1.0 / d.sqrt(), single);
        close("division", at(8), d / f64::from(3.1_f32), single);
        close("exp", at(9), d.exp(), 1e-15);
        close("log", at(10), d.ln(), 1e-15);
        close("sqrt", at(11), d.sqrt() / 1.7, 1e-15);
        close("pow", at(12), d.powf(3.3), 4e-15);
        close("sin", at(13), d.sin(), 1e-15);
        close("__expf", at(14), d.exp(), 2e-6);
        close("function", at(15), f64::from(v * table[v as usize & 15] + n as f32), single);
        close("constant", at(16), f64::from(1 << (i & 3)), 0.0);
        close("pointer", at(17), f64::from(b"abcd"[2 * (i & 1) + (i >> 1 & 1)]), 0.0);
        close("fmaxf", at(18), f64::from(v.max(2.0) - v.min(2.0)), 0.0);
        close("sin of a large f64", at(19), (d * 1e9).sin(), 1e-14);
        close("sinf of a large f32", at(20), f64::from(v * 1e7).sin(), single);
    }
}
