//! Devices, random inputs and error bounds shared by the tests.

use std::sync::LazyLock;

use llada_tensor::{CpuConfig, CpuLevel, Device, Philox, Stream, Tensor, bf16};

static LEVELS: LazyLock<Vec<CpuLevel>> = LazyLock::new(|| {
    if amxsim::emulate() == amxsim::Amx::Emulated {
        // SAFETY: the emulator executes AMX instructions from here on.
        #[expect(unsafe_code, reason = "tests at the AMX level without AMX")]
        unsafe {
            CpuLevel::assume_amx();
        }
    }
    let levels = CpuLevel::available();
    if !levels.contains(&CpuLevel::Amx) {
        #[expect(clippy::print_stderr, reason = "tells what is skipped")]
        {
            eprintln!("skipped: the AMX level, it needs AVX512-BF16 and x86-64 Linux");
        }
    }
    levels
});

/// The levels of the machine, the lowest first, and AMX where it can be emulated.
pub(crate) fn levels() -> &'static [CpuLevel] {
    &LEVELS
}

static DEVICES: LazyLock<Vec<(String, Device)>> = LazyLock::new(|| {
    let mut devices = Vec::new();
    for &level in levels() {
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
});

/// Per level of [`levels`], the lowest first, one device with one thread and one with two.
pub(crate) fn devices() -> &'static [(String, Device)] {
    &DEVICES
}

/// The plain code on one thread.
pub(crate) fn scalar() -> &'static Device {
    &DEVICES[0].1
}

/// Standard normal values.
pub(crate) fn normal(seed: u64, n: usize) -> Vec<f32> {
    let rng = Philox::new(seed, Stream::Test);
    (0..n)
        .map(|i| rng.normal_pair([i as u32, 0, 0])[0] as f32)
        .collect()
}

/// Ids below `limit`.
pub(crate) fn ids(seed: u64, n: usize, limit: usize) -> Vec<u32> {
    let rng = Philox::new(seed, Stream::Test);
    (0..n)
        .map(|i| rng.below(limit as u64, [i as u32, 1, 0]) as u32)
        .collect()
}

pub(crate) fn tensor(device: &Device, shape: &[usize], seed: u64) -> Tensor {
    let n = shape.iter().product();
    of(device, shape, &normal(seed, n))
}

pub(crate) fn of(device: &Device, shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_f32(device, shape, values).expect("the shape fits")
}

/// Normal values in `bf16`, with so many elements between the rows.
pub(crate) fn bf16_with_gaps(
    device: &Device,
    [rows, columns]: [usize; 2],
    gap: usize,
    seed: u64,
) -> Tensor {
    let width = columns + gap;
    let values: Vec<bf16> = normal(seed, rows * width)
        .into_iter()
        .map(bf16::from_f32)
        .collect();
    let all = Tensor::from_bf16(device, &[rows, width], &values).expect("fits");
    all.narrow(1, 0, columns).expect("inside")
}

pub(crate) fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Largest absolute difference; infinite if one is NaN, 0 for equal infinities.
#[track_caller]
pub(crate) fn max_error(x: &[f32], exact: &[f64]) -> f64 {
    assert_eq!(x.len(), exact.len(), "lengths");
    let error = |(&x, &y): (&f32, &f64)| {
        let (x, difference) = (f64::from(x), (f64::from(x) - y).abs());
        match difference.is_nan() {
            true if x.is_infinite() && x.total_cmp(&y).is_eq() => 0.0,
            true => f64::INFINITY,
            false => difference,
        }
    };
    x.iter().zip(exact).map(error).fold(0.0, f64::max)
}

/// Runs an op at every level with one and with two threads, and compares each of its outputs with
/// the result in `f64`.
///
/// One unit is the rounding of the largest result, `2^-23 max(1, |exact|)`.
/// - The plain code may be off by `terms + 8` units: a rounding for each of the `terms` of its
///   longest sum (whose terms are about one) and a few for what comes before and after.
/// - Other levels may be off by twice as much as the plain code is, and on top by what is expected
///   of a sum that rounds elsewhere, `4 + sqrt(terms)` units (Higham and Mary 2019): a lucky plain
///   result, such as the exact zero of a gradient that cancels, must not fail them.
/// - The number of threads must not change a bit.
#[track_caller]
pub(crate) fn check_levels(
    name: &str,
    terms: usize,
    exact: &[Vec<f64>],
    op: impl Fn(&Device) -> Vec<Vec<f32>>,
) {
    let plain = op(scalar());
    assert_eq!(plain.len(), exact.len(), "{name}: number of outputs");
    for pair in devices().chunks_exact(2) {
        let (one, two) = (op(&pair[0].1), op(&pair[1].1));
        for (i, exact) in exact.iter().enumerate() {
            let device = &pair[0].0;
            assert_eq!(
                bits(&one[i]),
                bits(&two[i]),
                "{name} output {i}, {device}: threads change it"
            );
            let largest = exact.iter().filter(|x| x.is_finite());
            let unit = f64::from(f32::EPSILON) * largest.fold(1.0, |max, x| x.abs().max(max));
            let plain_error = max_error(&plain[i], exact);
            let elsewhere = 4.0 + (terms as f64).sqrt();
            let cap = (terms as f64 + 8.0) * unit;
            assert!(
                plain_error <= cap,
                "{name} output {i}, scalar: {plain_error:e} > {cap:e}"
            );
            let (error, bound) = (
                max_error(&one[i], exact),
                2.0 * plain_error + elsewhere * unit,
            );
            assert!(
                error <= bound,
                "{name} output {i}, {device}: {error:e} > {bound:e}"
            );
        }
    }
}

/// Asserts that two results are the same, bit for bit.
#[track_caller]
pub(crate) fn same_bits(name: &str, x: &[f32], y: &[f32]) {
    assert_eq!(bits(x), bits(y), "{name}");
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}
