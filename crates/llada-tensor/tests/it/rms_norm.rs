//! Root-mean-square normalization and its gradient.

use llada_tensor::backend::{RmsNormArgs, RmsNormBackwardArgs};
use llada_tensor::{DType, Tensor, bf16};
use proptest::prelude::*;

use crate::reference;
use crate::support::{check_levels, devices, normal, of, same_bits, widen};

const EPS: f32 = 1e-5;

#[track_caller]
fn check(rows: usize, d: usize) {
    let shape = [rows, d];
    let (x, w, dy) = (normal(1, rows * d), normal(2, d), normal(3, rows * d));
    let (x64, w64, dy64) = (widen(&x), widen(&w), widen(&dy));
    let forward = reference::rms_norm(&x64, &w64, EPS.into());
    check_levels(&format!("rms_norm {rows}x{d}"), d, &forward, |device| {
        let mut y = Tensor::empty(device, DType::F32, &shape).unwrap();
        let mut rstd = Tensor::empty(device, DType::F32, &[rows]).unwrap();
        let args = RmsNormArgs {
            x: &of(device, &shape, &x),
            weight: &of(device, &[d], &w),
            eps: EPS,
            y: &mut y,
            rstd: &mut rstd,
        };
        device.backend().rms_norm(args).expect("fits");
        vec![y.to_vec_f32().unwrap(), rstd.to_vec_f32().unwrap()]
    });
    let [dx, dw] = reference::rms_norm_backward(&x64, &w64, EPS.into(), &dy64);
    // The gradient of the weight is added to what is there: here to the weight.
    let dw = reference::add(&dw, &w64);
    let rstd: Vec<f32> = forward[1].iter().map(|&x| x as f32).collect();
    let name = format!("rms_norm {rows}x{d} backward");
    check_levels(&name, d.max(rows), &[dx, dw], |device| {
        let mut dx = Tensor::empty(device, DType::F32, &shape).unwrap();
        let mut dweight = of(device, &[d], &w);
        let args = RmsNormBackwardArgs {
            x: &of(device, &shape, &x),
            weight: &of(device, &[d], &w),
            rstd: &of(device, &[rows], &rstd),
            dy: &of(device, &shape, &dy),
            dx: &mut dx,
            dweight: &mut dweight,
        };
        device.backend().rms_norm_backward(args).expect("fits");
        vec![dx.to_vec_f32().unwrap(), dweight.to_vec_f32().unwrap()]
    });
}

#[test]
fn agrees_with_f64() {
    check(0, 5);
    check(1, 1);
    check(3, 16);
    check(65, 100);
    // Several tasks and several partial sums, the last ones shorter.
    check(300, 257);
}

#[test]
fn a_row_does_not_depend_on_the_other_rows() {
    let (x, w) = (normal(1, 200 * 331), normal(2, 331));
    for (name, device) in devices() {
        let norm = |x: &[f32]| {
            let shape = [x.len() / 331, 331];
            let mut y = Tensor::empty(device, DType::F32, &shape).unwrap();
            let mut rstd = Tensor::empty(device, DType::F32, &shape[..1]).unwrap();
            let args = RmsNormArgs {
                x: &of(device, &shape, x),
                weight: &of(device, &[331], &w),
                eps: EPS,
                y: &mut y,
                rstd: &mut rstd,
            };
            device.backend().rms_norm(args).expect("fits");
            y.to_vec_f32().unwrap()
        };
        let row = 150 * 331..151 * 331;
        same_bits(name, &norm(&x[row.clone()]), &norm(&x)[row]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn odd_shapes(rows in 0usize..140, d in 1usize..70) {
        check(rows, d);
    }
}

#[test]
fn bf16_has_the_rounded_bits_of_f32() {
    let (rows, d) = (70, 83);
    for (name, device) in devices() {
        let (x, weight) = (normal(1, rows * d), normal(2, d));
        let (x, weight) = (of(device, &[rows, d], &x), of(device, &[d], &weight));
        let [y, rounded] = [DType::F32, DType::Bf16].map(|dtype| {
            let mut y = Tensor::empty(device, dtype, &[rows, d]).unwrap();
            let mut rstd = Tensor::empty(device, DType::F32, &[rows]).unwrap();
            let args = RmsNormArgs {
                x: &x,
                weight: &weight,
                eps: EPS,
                y: &mut y,
                rstd: &mut rstd,
            };
            device.backend().rms_norm(args).expect("fits");
            y.to_vec_f32().unwrap()
        });
        let expected: Vec<f32> = y.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
        same_bits(name, &rounded, &expected);
    }
}
