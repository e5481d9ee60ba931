//! How close a result must come to that of the scalar code.

use llada_tensor::{DType, Device, Tensor, bf16};

use crate::support::values;

/// Asserts that two results are the same, bit for bit.
#[track_caller]
pub(crate) fn same_bits(what: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{what}: lengths");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!(
            got.to_bits() == expected.to_bits(),
            "{what}: element {i}: got {got}, expected {expected}"
        );
    }
}

/// Asserts that the error of a result against `f64` is at most twice that of the scalar code, and
/// what is expected of a sum of `terms` terms that rounds elsewhere, `4 + sqrt(terms)` units of
/// the largest result (Higham and Mary 2019).
#[track_caller]
pub(crate) fn as_good_as_scalar(
    what: &str,
    terms: usize,
    got: &[f32],
    scalar: &[f32],
    exact: &[f64],
) {
    let largest = exact.iter().fold(1.0, |max: f64, x| x.abs().max(max));
    let unit = f64::from(f32::EPSILON) * largest;
    let bound = 2.0 * max_error(scalar, exact) + (4.0 + (terms as f64).sqrt()) * unit;
    let error = max_error(got, exact);
    assert!(error <= bound, "{what}: {error:e} > {bound:e}");
}

/// Largest absolute difference; infinite if there is a NaN.
#[track_caller]
fn max_error(x: &[f32], exact: &[f64]) -> f64 {
    assert_eq!(x.len(), exact.len(), "lengths");
    let error = |(&x, &exact): (&f32, &f64)| match (f64::from(x) - exact).abs() {
        error if error.is_nan() => f64::INFINITY,
        error => error,
    };
    x.iter().zip(exact).map(error).fold(0.0, f64::max)
}

pub(crate) fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// The nearest `bf16` of each value.
pub(crate) fn rounded(x: &[f32]) -> Vec<f32> {
    x.iter().map(|&x| bf16::from_f32(x).to_f32()).collect()
}

/// Values whose address is no multiple of 16 bytes: kernels must do without vectors.
pub(crate) fn misaligned(device: &Device, values: &[f32]) -> Tensor {
    let padded = [&[f32::NAN], values].concat();
    let all = Tensor::from_f32(device, &[padded.len()], &padded).unwrap();
    all.narrow(0, 1, values.len()).unwrap()
}

/// An output of `shape`, filled with values, so that what is not written shows.
pub(crate) fn output(device: &Device, dtype: DType, shape: &[usize]) -> Tensor {
    let n = shape.iter().product();
    let filled = Tensor::from_f32(device, shape, &values(99, n)).unwrap();
    filled.to_dtype(dtype).unwrap()
}
