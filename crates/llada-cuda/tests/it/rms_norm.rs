//! Root-mean-square normalization and its gradient.

use llada_tensor::backend::{RmsNormArgs, RmsNormBackwardArgs};
use llada_tensor::{DType, Device, Tensor};

use crate::bounds::{as_good_as_scalar, misaligned, output, rounded, same_bits, widen};
use crate::support::{cpu, cuda, values};

const EPS: f32 = 1e-5;

/// No columns, less and more than a thread, a warp and a block keep in registers, with and without
/// vectors; one and several chunks of rows.
const SHAPES: [(usize, usize); 8] = [
    (0, 5),
    (1, 1),
    (3, 16),
    (9, 100),
    (65, 36),
    (5, 331),
    (17, 1028),
    (2, 8200),
];

fn forward(device: &Device, rows: usize, d: usize, x: &Tensor, dtype: DType) -> [Vec<f32>; 2] {
    let mut y = output(device, dtype, &[rows, d]);
    let mut rstd = output(device, DType::F32, &[rows]);
    let args = RmsNormArgs {
        x,
        weight: &Tensor::from_f32(device, &[d], &values(2, d)).unwrap(),
        eps: EPS,
        y: &mut y,
        rstd: &mut rstd,
    };
    device.backend().rms_norm(args).unwrap();
    [y, rstd].map(|x| x.to_vec_f32().unwrap())
}

/// `y` and `rstd` in `f64`.
fn exact_forward(x: &[f64], weight: &[f64]) -> [Vec<f64>; 2] {
    let d = weight.len();
    let [mut y, mut rstd] = [Vec::new(), Vec::new()];
    for row in x.chunks_exact(d) {
        let mean = row.iter().map(|x| x * x).sum::<f64>() / d as f64;
        let scale = 1.0 / (mean + f64::from(EPS)).sqrt();
        rstd.push(scale);
        y.extend(row.iter().zip(weight).map(|(x, w)| x * scale * w));
    }
    [y, rstd]
}

/// `dx` and `dweight` in `f64`, the latter added to the weight.
fn exact_backward(x: &[f64], weight: &[f64], rstd: &[f32], dy: &[f64]) -> [Vec<f64>; 2] {
    let d = weight.len();
    let (mut dx, mut dweight) = (Vec::new(), weight.to_vec());
    for ((x, dy), &rstd) in x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(rstd) {
        let rstd = f64::from(rstd);
        let terms = || {
            x.iter()
                .zip(dy)
                .zip(weight)
                .map(|((x, dy), w)| (x * rstd, dy, dy * w))
        };
        let mean = terms().map(|(n, _, g)| n * g).sum::<f64>() / d as f64;
        dx.extend(terms().map(|(n, _, g)| rstd * (g - n * mean)));
        for (sum, (n, dy, _)) in dweight.iter_mut().zip(terms()) {
            *sum += dy * n;
        }
    }
    [dx, dweight]
}

#[test]
fn norms_agree_with_f64() {
    let Some(cuda) = cuda() else { return };
    for (rows, d) in SHAPES {
        let x = values(1, rows * d);
        let norm = |device: &Device| {
            let x = Tensor::from_f32(device, &[rows, d], &x).unwrap();
            forward(device, rows, d, &x, DType::F32)
        };
        let (got, scalar) = (norm(&cuda), norm(&cpu()));
        let exact = exact_forward(&widen(&x), &widen(&values(2, d)));
        for i in 0..2 {
            let name = format!("{rows}x{d} output {i}");
            as_good_as_scalar(&name, d, &got[i], &scalar[i], &exact[i]);
        }
        let x = Tensor::from_f32(&cuda, &[rows, d], &x).unwrap();
        let [y, _] = forward(&cuda, rows, d, &x, DType::Bf16);
        // Without vectors of 8, sums of another order may round elsewhere.
        let expected = rounded(&got[0]);
        for (y, expected) in y.iter().zip(&expected) {
            let unit = expected.abs() / 128.0;
            assert!(
                (y - expected).abs() <= unit,
                "{rows}x{d} bf16: {y} {expected}"
            );
        }
    }
}

#[test]
fn gradients_agree_with_f64() {
    let Some(cuda) = cuda() else { return };
    for (rows, d) in SHAPES {
        let (x, w, dy) = (values(1, rows * d), values(2, d), values(3, rows * d));
        let cpu = cpu();
        let [_, rstd] = {
            let x = Tensor::from_f32(&cpu, &[rows, d], &x).unwrap();
            forward(&cpu, rows, d, &x, DType::F32)
        };
        let gradients = |device: &Device| {
            let of = |shape: &[usize], x: &[f32]| Tensor::from_f32(device, shape, x).unwrap();
            let mut dx = output(device, DType::F32, &[rows, d]);
            // The gradient of the weight is added to what is there: here to the weight.
            let mut dweight = of(&[d], &w);
            let args = RmsNormBackwardArgs {
                x: &of(&[rows, d], &x),
                weight: &of(&[d], &w),
                rstd: &of(&[rows], &rstd),
                dy: &of(&[rows, d], &dy),
                dx: &mut dx,
                dweight: &mut dweight,
            };
            device.backend().rms_norm_backward(args).unwrap();
            [dx, dweight].map(|x| x.to_vec_f32().unwrap())
        };
        let (got, scalar) = (gradients(&cuda), gradients(&cpu));
        let exact = exact_backward(&widen(&x), &widen(&w), &rstd, &widen(&dy));
        for (i, terms) in [d, rows].into_iter().enumerate() {
            let name = format!("{rows}x{d} gradient {i}");
            as_good_as_scalar(&name, terms, &got[i], &scalar[i], &exact[i]);
        }
    }
}

#[test]
fn a_row_depends_on_no_other_row() {
    let Some(cuda) = cuda() else { return };
    let x = Tensor::from_f32(&cuda, &[6, 332], &values(1, 6 * 332)).unwrap();
    let [all, _] = forward(&cuda, 6, 332, &x, DType::F32);
    let row = x.narrow(0, 4, 1).unwrap();
    let [alone, _] = forward(&cuda, 1, 332, &row, DType::F32);
    same_bits("row", &alone, &all[4 * 332..5 * 332]);
}

#[test]
fn rows_need_not_be_aligned() {
    let Some(cuda) = cuda() else { return };
    let x = values(1, 3 * 300);
    let tensor = misaligned(&cuda, &x).reshape(&[3, 300]).unwrap();
    let [y, _] = forward(&cuda, 3, 300, &tensor, DType::F32);
    let [exact, _] = exact_forward(&widen(&x), &widen(&values(2, 300)));
    as_good_as_scalar("misaligned", 300, &y, &rounded_to_f32(&exact), &exact);
}

fn rounded_to_f32(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&x| x as f32).collect()
}
