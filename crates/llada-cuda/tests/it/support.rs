//! Devices, and how results are compared.

use std::sync::OnceLock;

use llada_cuda::CudaConfig;
use llada_tensor::backend::{MatmulArgs, Rhs};
use llada_tensor::ops::matmul::matmul;
use llada_tensor::{CpuConfig, CpuLevel, DType, Device, Philox, Precision, Stream, Tensor};

/// The specification: the scalar code on one thread.
pub(crate) fn cpu() -> Device {
    let level = Some(CpuLevel::Scalar);
    Device::cpu(CpuConfig { threads: 1, level }).unwrap()
}

/// The CUDA device under test, shared by the tests of a process. Builds without kernels have none:
/// then the caller has nothing to test.
#[expect(clippy::print_stderr, reason = "tells what is skipped")]
pub(crate) fn cuda() -> Option<Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    let config = CudaConfig::from_variables(std::env::var_os);
    let open = || match cfg!(feature = "nvcc") {
        true => Some(llada_cuda::device(0, config).unwrap()),
        false => {
            eprintln!("skipped: built without kernels (feature nvcc)");
            None
        }
    };
    DEVICE.get_or_init(open).clone()
}

/// Reproducible values, uniform in (-1, 1), `key` tells tensors of a test apart.
pub(crate) fn values(key: u32, n: usize) -> Vec<f32> {
    let philox = Philox::new(1, Stream::Test);
    let at = |i: usize| 2.0 * philox.uniform_f32([u32::try_from(i).unwrap(), key, 0]) - 1.0;
    (0..n).map(at).collect()
}

/// The same values on each of the devices.
pub(crate) fn on_each<const N: usize>(
    devices: [&Device; N],
    shape: &[usize],
    values: &[f32],
) -> [Tensor; N] {
    devices.map(|device| Tensor::from_f32(device, shape, values).unwrap())
}

/// Asserts `|got - expected| <= absolute + relative * |expected|` for all elements; a NaN on one
/// side alone fails.
#[track_caller]
pub(crate) fn assert_close(
    what: &str,
    got: &[f32],
    expected: &[f32],
    absolute: f32,
    relative: f32,
) {
    assert_eq!(got.len(), expected.len(), "{what}: lengths");
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let limit = absolute + relative * expected.abs();
        // Infinities are equal, and have no difference.
        let same = got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan());
        assert!(
            same || (got - expected).abs() <= limit,
            "{what}: element {i}: got {got}, expected {expected}, limit {limit}"
        );
    }
}

/// `a w` of a matrix and a weight, on the host.
pub(crate) fn product(a: &Tensor, w: Rhs<'_>, precision: Precision) -> Vec<f32> {
    let (_, n) = w.k_n().unwrap();
    let mut c = Tensor::zeros(a.device(), DType::F32, &[a.shape()[0], n]).unwrap();
    let args = MatmulArgs {
        a,
        b: w,
        c: &mut c,
        accumulate: false,
        precision,
    };
    matmul(args).unwrap();
    c.to_vec_f32().unwrap()
}
