//! Additions and column sums.

use llada_tensor::{DType, Device, Tensor};

use crate::bounds::{as_good_as_scalar, misaligned, output, same_bits, widen};
use crate::support::{cpu, cuda, on_each, values};

const SIZES: [usize; 7] = [0, 1, 3, 4, 1025, 4099, 20_000];

#[test]
fn sums_are_those_of_the_scalar_code() {
    let Some(cuda) = cuda() else { return };
    for n in SIZES {
        let sums = |device: &Device| {
            let [x, z] = [1, 2].map(|key| Tensor::from_f32(device, &[n], &values(key, n)).unwrap());
            let mut y = output(device, DType::F32, &[n]);
            device.backend().add(&x, &z, &mut y).unwrap();
            let sum = y.to_vec_f32().unwrap();
            device.backend().add_into(&x, &mut y).unwrap();
            [sum, y.to_vec_f32().unwrap()].concat()
        };
        same_bits(&format!("add {n}"), &sums(&cuda), &sums(&cpu()));
    }
}

#[test]
fn operands_need_not_be_aligned() {
    let Some(cuda) = cuda() else { return };
    let (x, z) = (values(1, 1030), values(2, 1030));
    let expected: Vec<f32> = x.iter().zip(&z).map(|(x, z)| x + z).collect();
    let mut y = output(&cuda, DType::F32, &[1030]);
    let aligned = Tensor::from_f32(&cuda, &[1030], &x).unwrap();
    let z = misaligned(&cuda, &z);
    cuda.backend().add(&aligned, &z, &mut y).unwrap();
    same_bits("one operand", &y.to_vec_f32().unwrap(), &expected);
    // The output too: the tensor that it is a part of is gone.
    let mut y = misaligned(&cuda, &x);
    cuda.backend().add_into(&z, &mut y).unwrap();
    same_bits("the output", &y.to_vec_f32().unwrap(), &expected);
}

#[test]
fn a_row_is_added_to_every_row() {
    let Some(cuda) = cuda() else { return };
    for (rows, d) in [
        (0, 5),
        (1, 1),
        (2, 1),
        (3, 1),
        (33, 17),
        (70, 64),
        (9, 1028),
    ] {
        let sums = |device: &Device| {
            let x = Tensor::from_f32(device, &[rows, d], &values(1, rows * d)).unwrap();
            let z = Tensor::from_f32(device, &[d], &values(2, d)).unwrap();
            let mut y = output(device, DType::F32, &[rows, d]);
            device.backend().add(&x, &z, &mut y).unwrap();
            y.to_vec_f32().unwrap()
        };
        same_bits(&format!("{rows}x{d}"), &sums(&cuda), &sums(&cpu()));
    }
}

/// The CPU's vector code and the kernel fuse `b y` with the sum, the scalar code does not.
#[test]
fn axpby_rounds_twice() {
    let Some(cuda) = cuda() else { return };
    for n in SIZES {
        let (x, y) = (values(1, n), values(2, n));
        for (a, b) in [(0.3, 0.9), (-2.0, 1.0), (0.7, 0.0)] {
            let combined = |device: &Device| {
                let x = Tensor::from_f32(device, &[n], &x).unwrap();
                let mut y = Tensor::from_f32(device, &[n], &y).unwrap();
                device.backend().axpby(a, &x, b, &mut y).unwrap();
                y.to_vec_f32().unwrap()
            };
            let (name, got) = (format!("axpby {n} {a} {b}"), combined(&cuda));
            let pairs = || x.iter().zip(&y);
            let fused: Vec<f32> = match b {
                0.0 => x.iter().map(|x| a * x).collect(),
                _ => pairs().map(|(&x, &y)| b.mul_add(y, a * x)).collect(),
            };
            same_bits(&name, &got, &fused);
            let [a, b] = [a, b].map(f64::from);
            let exact = pairs().map(|(&x, &y)| a * f64::from(x) + b * f64::from(y));
            let exact: Vec<f64> = exact.collect();
            as_good_as_scalar(&name, 0, &got, &combined(&cpu()), &exact);
        }
    }
}

#[test]
fn axpby_does_not_read_what_it_overwrites() {
    let Some(cuda) = cuda() else { return };
    let x = Tensor::from_f32(&cuda, &[5], &values(1, 5)).unwrap();
    let mut y = Tensor::from_f32(&cuda, &[5], &[f32::NAN; 5]).unwrap();
    cuda.backend().axpby(1.0, &x, 0.0, &mut y).unwrap();
    same_bits("axpby", &y.to_vec_f32().unwrap(), &values(1, 5));
}

#[test]
fn columns_are_added_up() {
    let Some(cuda) = cuda() else { return };
    // One chunk and several, the last one shorter; narrow and wide rows, with and without vectors.
    let shapes = [
        (0, 3),
        (1, 1),
        (5, 4),
        (127, 33),
        (129, 36),
        (300, 5),
        (1000, 1),
    ];
    for (rows, d) in shapes {
        let (x, y) = (values(1, rows * d), values(2, d));
        let mut exact = widen(&y);
        for row in widen(&x).chunks_exact(d) {
            for (sum, x) in exact.iter_mut().zip(row) {
                *sum += x;
            }
        }
        let cpu = cpu();
        let [got, scalar] = on_each([&cuda, &cpu], &[rows, d], &x).map(|x| {
            let mut y = Tensor::from_f32(x.device(), &[d], &y).unwrap();
            x.device().backend().column_sum(&x, &mut y).unwrap();
            y.to_vec_f32().unwrap()
        });
        as_good_as_scalar(&format!("{rows}x{d}"), rows, &got, &scalar, &exact);
    }
}
