//! A tensor-core product with asynchronous copies, against f64, and what the counters say of it.

use cudarc::driver::{LaunchConfig, PushKernelArg};
use half::bf16;

use crate::device::{Device, set_stats, stats};
use crate::kernels;

struct Problem {
    m: usize,
    n: usize,
    k: usize,
    a: Vec<bf16>,
    b: Vec<bf16>,
}

impl Problem {
    fn new(m: usize, n: usize, k: usize) -> Self {
        let value = |i: usize, by: usize| bf16::from_f32(((i * by % 257) as f32 - 128.0) / 64.0);
        let a = (0..m * k).map(|i| value(i, 73)).collect();
        let b = (0..n * k).map(|i| value(i, 151)).collect();
        Self { m, n, k, a, b }
    }

    /// Runs a kernel of `gemm.cu`; the result, if it did not fail.
    fn run(&self, device: &Device, kernel: &str) -> Option<Vec<f32>> {
        let kernel = device
            .module(kernels!("gemm"))
            .load_function(kernel)
            .unwrap();
        let a = device.stream.clone_htod(&self.a).unwrap();
        let b = device.stream.clone_htod(&self.b).unwrap();
        // SAFETY: the kernel writes all of it.
        let mut c = unsafe { device.stream.alloc::<f32>(self.m * self.n) }.unwrap();
        let (n, k) = (self.n as i32, self.k as i32);
        let config = LaunchConfig {
            grid_dim: (self.n as u32 / 64, self.m as u32 / 64, 1),
            block_dim: (128, 1, 1),
            shared_mem_bytes: 0,
        };
        let mut builder = device.stream.launch_builder(&kernel);
        builder.arg(&a).arg(&b).arg(&mut c).arg(&n).arg(&k);
        // SAFETY: the arguments fit the kernel.
        unsafe { builder.launch(config) }.unwrap();
        device.stream.clone_dtoh(&c).ok()
    }
}

#[test]
fn product_agrees_with_f64() {
    let problem = Problem::new(128, 192, 96);
    for check in [false, true] {
        let device = Device::new(check);
        let c = problem.run(&device, "gemm").unwrap();
        for row in 0..problem.m {
            for column in 0..problem.n {
                let term = |i: usize| {
                    problem.a[row * problem.k + i].to_f64()
                        * problem.b[column * problem.k + i].to_f64()
                };
                let want: f64 = (0..problem.k).map(term).sum();
                let error = (f64::from(c[row * problem.n + column]) - want).abs();
                assert!(error <= 1e-4, "({row}, {column}) is off by {error}");
            }
        }
    }
}

#[test]
fn a_missing_wait_gives_old_bytes() {
    let problem = Problem::new(64, 64, 64);
    let device = Device::new(false);
    let c = problem.run(&device, "gemm_without_wait").unwrap();
    assert!(
        c.iter().any(|x| x.is_nan()),
        "copies that nobody waits for must not have landed"
    );
}

/// A counter of the one kernel that ran.
fn counter(name: &str) -> u64 {
    let json = stats();
    let (_, rest) = json.split_once(&format!("\"{name}\":")).unwrap();
    rest.split(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn counters_show_bank_conflicts() {
    for (swizzle, wanted) in [(1, 1.0), (0, 8.0)] {
        let device = Device::new(false);
        set_stats(true);
        let kernel = device
            .module(kernels!("gemm"))
            .load_function("column_reads")
            .unwrap();
        let mut y = device.stream.alloc_zeros::<f32>(32).unwrap();
        let config = LaunchConfig {
            grid_dim: (1, 1, 1),
            block_dim: (32, 1, 1),
            shared_mem_bytes: 0,
        };
        let mut builder = device.stream.launch_builder(&kernel);
        builder.arg(&mut y).arg(&swizzle);
        // SAFETY: the arguments fit the kernel.
        unsafe { builder.launch(config) }.unwrap();
        device.finish();
        let ratio = counter("shared_wavefronts") as f64 / counter("shared_wavefronts_ideal") as f64;
        assert!(
            (ratio - wanted).abs() <= 1e-9,
            "swizzle {swizzle}: {ratio} wavefronts for 1"
        );
    }
}

#[test]
fn counters_count_a_product() {
    let problem = Problem::new(64, 64, 64);
    let device = Device::new(false);
    set_stats(true);
    problem.run(&device, "gemm").unwrap();
    // Four warps, two steps of 32 of k: two products of 16 for each of eight tiles of 8 columns.
    assert_eq!(counter("mma"), 4 * 2 * 2 * 8);
    assert_eq!(counter("ldmatrix"), 4 * 2 * 2 * 9);
    assert_eq!(counter("cp_async_bytes"), 2 * 64 * 64 * 2);
    assert_eq!(counter("barriers"), 4);
    assert_eq!(counter("launches"), 1);
    assert!(counter("instructions") > 0);
}
