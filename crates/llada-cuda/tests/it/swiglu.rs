//! SwiGLU and its gradient.

use llada_tensor::backend::{SwigluArgs, SwigluBackwardArgs};
use llada_tensor::{DType, Device, Tensor};

use crate::bounds::{as_good_as_scalar, misaligned, output, rounded, same_bits, widen};
use crate::support::{cpu, cuda, values};

fn forward(gate: &Tensor, up: &Tensor, dtype: DType) -> Vec<f32> {
    let mut y = output(gate.device(), dtype, gate.shape());
    let y_out = &mut y;
    let args = SwigluArgs { gate, up, y: y_out };
    gate.device().backend().swiglu(args).unwrap();
    y.to_vec_f32().unwrap()
}

fn backward(device: &Device, gate: &[f32], up: &[f32], dy: &[f32]) -> [Vec<f32>; 2] {
    let shape = [gate.len()];
    let of = |x: &[f32]| Tensor::from_f32(device, &shape, x).unwrap();
    let [mut dgate, mut dup] = [(); 2].map(|()| output(device, DType::F32, &shape));
    let args = SwigluBackwardArgs {
        gate: &of(gate),
        up: &of(up),
        dy: &of(dy),
        dgate: &mut dgate,
        dup: &mut dup,
    };
    device.backend().swiglu_backward(args).unwrap();
    [dgate, dup].map(|x| x.to_vec_f32().unwrap())
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[track_caller]
fn check(n: usize) {
    let Some(cuda) = cuda() else { return };
    let gate: Vec<f32> = values(1, n).iter().map(|x| 9.0 * x).collect();
    let (up, dy) = (values(2, n), values(3, n));
    let terms = || {
        let inputs = gate.iter().zip(&up).zip(&dy);
        inputs.map(|((&gate, &up), &dy)| [gate, up, dy].map(f64::from))
    };
    let y: Vec<f64> = terms().map(|[g, u, _]| g * sigmoid(g) * u).collect();
    let dgate = |[g, u, dy]: [f64; 3]| dy * u * sigmoid(g) * (1.0 + g * (1.0 - sigmoid(g)));
    let dup = |[g, _, dy]: [f64; 3]| dy * g * sigmoid(g);

    let cpu = cpu();
    let [got, scalar] = [&cuda, &cpu].map(|device| {
        let of = |x: &[f32]| Tensor::from_f32(device, &[n], x).unwrap();
        forward(&of(&gate), &of(&up), DType::F32)
    });
    as_good_as_scalar(&format!("forward {n}"), 4, &got, &scalar, &y);
    few_roundings(&format!("forward {n}"), &got, &y);
    let of = |x: &[f32]| Tensor::from_f32(&cuda, &[n], x).unwrap();
    let narrow = forward(&of(&gate), &of(&up), DType::Bf16);
    same_bits(&format!("bf16 {n}"), &narrow, &rounded(&got));

    let [got, scalar] = [&cuda, &cpu].map(|device| backward(device, &gate, &up, &dy));
    let exact: [Vec<f64>; 2] = [terms().map(dgate).collect(), terms().map(dup).collect()];
    for i in 0..2 {
        let name = format!("gradient {i} of {n}");
        as_good_as_scalar(&name, 8, &got[i], &scalar[i], &exact[i]);
    }
    few_roundings(&format!("dup of {n}"), &got[1], &exact[1]);
}

/// The exponential is off by at most 2 units in the last place, up to 4 roundings, and one
/// rounding each come from sum, quotient and two products: an approximate exponential, whose error
/// grows with its argument, is further off.
#[track_caller]
fn few_roundings(name: &str, got: &[f32], exact: &[f64]) {
    for (&got, &exact) in got.iter().zip(exact) {
        let error = (f64::from(got) - exact).abs();
        let bound = 8.0 * f64::from(f32::EPSILON) / 2.0 * exact.abs();
        assert!(error <= bound, "{name}: {got} instead of {exact}");
    }
}

#[test]
fn agrees_with_f64() {
    for n in [0, 1, 3, 4, 9, 1030, 6001] {
        check(n);
    }
}

#[test]
fn operands_need_not_be_aligned() {
    let Some(cuda) = cuda() else { return };
    let (gate, up) = (values(1, 100), values(2, 100));
    let of = |x: &[f32]| Tensor::from_f32(&cuda, &[100], x).unwrap();
    for dtype in [DType::F32, DType::Bf16] {
        let expected = forward(&of(&gate), &of(&up), dtype);
        let got = forward(&of(&gate), &misaligned(&cuda, &up), dtype);
        same_bits(&format!("{dtype:?}"), &got, &expected);
    }
}

#[test]
fn far_ends_are_zero_and_the_identity() {
    let Some(cuda) = cuda() else { return };
    let gate = [-1e30, -200.0, -95.0, 95.0, 200.0, 1e30];
    let of = |x: &[f32]| Tensor::from_f32(&cuda, &[x.len()], x).unwrap();
    let y = forward(&of(&gate), &of(&[1.0; 6]), DType::F32);
    let slopes = backward(&cuda, &gate, &[1.0; 6], &[1.0; 6]);
    for (y, expected) in y.iter().zip([0.0, 0.0, 0.0, 95.0, 200.0, 1e30_f32]) {
        assert!((y - expected).abs() <= 1e-6 * expected + 1e-6, "{y}");
    }
    for (slope, expected) in slopes[0].iter().zip([0.0, 0.0, 0.0, 1.0, 1.0, 1.0_f32]) {
        assert!((slope - expected).abs() <= 1e-6, "{slope}");
    }
    assert!(widen(&slopes[1]).iter().all(|x| x.is_finite()));
}
