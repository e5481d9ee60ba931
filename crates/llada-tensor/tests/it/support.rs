//! Devices, random inputs and error bounds shared by the tests.

use llada_tensor::{CpuConfig, CpuLevel, Device, Philox, Stream, Tensor};

/// One device per level of the machine, with one and with two threads.
pub(crate) fn devices() -> Vec<(String, Device)> {
    let mut devices = Vec::new();
    for level in CpuLevel::available() {
        for threads in [1, 2] {
            let device = Device::cpu(CpuConfig {
                threads,
                level: Some(level),
            })
            .expect("available");
            devices.push((device.backend().name(), device));
        }
    }
    devices
}

/// Standard normal values.
pub(crate) fn normal(seed: u64, n: usize) -> Vec<f32> {
    let rng = Philox::new(seed, Stream::Test);
    (0..n)
        .map(|i| rng.normal_pair([i as u32, 0, 0])[0] as f32)
        .collect()
}

pub(crate) fn tensor(device: &Device, shape: &[usize], seed: u64) -> Tensor {
    let n = shape.iter().product();
    Tensor::from_f32(device, shape, &normal(seed, n)).expect("the shape fits")
}

pub(crate) fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Largest absolute difference.
#[track_caller]
pub(crate) fn max_error(x: &[f32], exact: &[f64]) -> f64 {
    assert_eq!(x.len(), exact.len(), "lengths");
    x.iter()
        .zip(exact)
        .map(|(&x, y)| (f64::from(x) - y).abs())
        .fold(0.0, f64::max)
}
