//! Matrix products.

use llada_tensor::backend::{MatmulArgs, Rhs};
use llada_tensor::ops::matmul::{matmul, operand, pack};
use llada_tensor::{CpuConfig, DType, Device, Precision, Tensor, bf16};
use proptest::prelude::*;

use crate::support::{
    bf16_with_gaps, devices, levels, max_error, normal, of, same_bits, scalar, tensor,
};

/// `a b` in `f64`, of operands rounded as `precision` says.
fn exact(a: &Tensor, b: &Tensor, precision: Precision) -> Vec<f64> {
    let round = |x: f32| match precision {
        Precision::Bf16 => bf16::from_f32(x).to_f64(),
        _ => f64::from(x),
    };
    let ([m, k], n) = ([a.shape()[0], a.shape()[1]], b.shape()[1]);
    let (a, b) = (a.to_vec_f32().unwrap(), b.to_vec_f32().unwrap());
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            c[i * n + j] = (0..k)
                .map(|l| round(a[i * k + l]) * round(b[l * n + j]))
                .sum();
        }
    }
    c
}

pub(crate) fn product(a: &Tensor, b: Rhs<'_>, n: usize, precision: Precision) -> Vec<f32> {
    let mut c = Tensor::zeros(a.device(), DType::F32, &[a.shape()[0], n]).unwrap();
    matmul(MatmulArgs {
        a,
        b,
        c: &mut c,
        accumulate: false,
        precision,
    })
    .expect("shapes fit");
    c.to_vec_f32().unwrap()
}

/// Every layout of the operands against `f64`. The bound is that of a sum of k products, each
/// with a relative error of at most 2^-23, of magnitude about one.
#[track_caller]
fn check([m, n, k]: [usize; 3]) {
    let bound = 2e-7 * (k as f64 + 1.0) + 1e-6;
    let lefts = [normal(1, m * k), normal(2, m * k)];
    let rights = [normal(3, n * k), normal(4, n * k)];
    // The second of each pair is read transposed.
    let left = |device: &Device| {
        let a_t = of(device, &[k, m], &lefts[1]);
        [
            of(device, &[m, k], &lefts[0]),
            a_t.transpose(0, 1).expect("two axes"),
        ]
    };
    let right = |device: &Device| {
        let w = of(device, &[n, k], &rights[1]);
        let w_t = w.transpose(0, 1).expect("two axes");
        (of(device, &[k, n], &rights[0]), w, w_t)
    };
    for precision in [Precision::F32, Precision::Bf16] {
        let (b, _, w_t) = right(scalar());
        let exact = left(scalar()).map(|a| [exact(&a, &b, precision), exact(&a, &w_t, precision)]);
        for (name, device) in devices() {
            let (b, w, w_t) = right(device);
            let packed = pack(&w, precision).expect("a matrix");
            for (a, [by_b, by_w]) in left(device).iter().zip(&exact) {
                let mut of_weight = Vec::new();
                for (exact, rhs) in [
                    (by_b, Rhs::Matrix(&b)),
                    (by_w, Rhs::Matrix(&w_t)),
                    (by_w, Rhs::Weight(&w)),
                ] {
                    of_weight = product(a, rhs, n, precision);
                    let error = max_error(&of_weight, exact);
                    assert!(
                        error <= bound,
                        "{name} {m}x{n}x{k} {precision:?}: {error:e} > {bound:e}"
                    );
                }
                let of_packed = product(a, Rhs::Packed(&packed), n, precision);
                assert_eq!(of_packed, of_weight, "{name} packed");
            }
        }
    }
}

#[test]
fn agrees_with_f64_in_every_layout() {
    for shape in [
        [1, 1, 1],
        [2, 3, 5],
        [12, 32, 64],
        [13, 33, 65],
        [31, 64, 31],
        [33, 100, 257],
        [64, 31, 513],
        [100, 70, 1100],
        [1, 300, 40],
        [300, 1, 40],
    ] {
        check(shape);
    }
}

#[test]
fn empty_operands_give_zeros() {
    for (_, device) in devices() {
        let a = tensor(device, &[2, 0], 1);
        let b = tensor(device, &[0, 3], 2);
        assert_eq!(product(&a, Rhs::Matrix(&b), 3, Precision::F32), [0.0; 6]);
    }
}

#[test]
fn accumulates_and_batches() {
    for (name, device) in devices() {
        let a = tensor(device, &[3, 5, 7], 1);
        let b = tensor(device, &[3, 9, 7], 2)
            .transpose(1, 2)
            .expect("three axes");
        let mut c = tensor(device, &[3, 5, 9], 3);
        let before = c.to_vec_f32().unwrap();
        let precision = Precision::F32;
        matmul(MatmulArgs {
            a: &a,
            b: Rhs::Matrix(&b),
            c: &mut c,
            accumulate: true,
            precision,
        })
        .expect("shapes fit");
        for at in 0..3 {
            let part = |x: &Tensor| {
                let x = x.narrow(0, at, 1).expect("in range");
                let shape = x.shape()[1..].to_vec();
                Tensor::from_f32(device, &shape, &x.to_vec_f32().unwrap()).expect("fits")
            };
            let exact: Vec<f64> = exact(&part(&a), &part(&b), precision)
                .iter()
                .zip(&before[at * 45..])
                .map(|(x, &y)| x + f64::from(y))
                .collect();
            let error = max_error(&part(&c).to_vec_f32().unwrap(), &exact);
            assert!(error < 1e-5, "{name}: {error:e}");
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_other_rows_or_on_threads() {
    for &level in levels() {
        let device = |threads| {
            Device::cpu(CpuConfig {
                threads,
                level: Some(level),
            })
            .expect("ok")
        };
        for precision in [Precision::F32, Precision::Bf16] {
            let full = {
                let device = device(1);
                let (a, w) = (
                    tensor(&device, &[70, 1300], 1),
                    tensor(&device, &[90, 1300], 2),
                );
                product(&a, Rhs::Weight(&w), 90, precision)
            };
            let device = device(2);
            let (a, w) = (
                tensor(&device, &[70, 1300], 1),
                tensor(&device, &[90, 1300], 2),
            );
            assert_eq!(
                product(&a, Rhs::Weight(&w), 90, precision),
                full,
                "{level:?} threads"
            );
            for row in [0, 31, 33, 69] {
                let one = a.narrow(0, row, 1).expect("in range");
                let y = product(&one, Rhs::Weight(&w), 90, precision);
                assert_eq!(
                    y,
                    full[row * 90..(row + 1) * 90],
                    "{level:?} {precision:?} row {row}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn odd_shapes(m in 1usize..80, n in 1usize..80, k in 1usize..80) {
        check([m, n, k]);
    }
}

/// What is rounded once and stored has the bits of what is rounded while it is packed; a product in
/// the type of operands is the rounded sum.
#[track_caller]
fn check_stored([m, n, k]: [usize; 3]) {
    let precision = Precision::Bf16;
    for (name, device) in devices() {
        let dtype = device.backend().operand_dtype(precision);
        let (a, w) = (tensor(device, &[m, k], 1), tensor(device, &[n, k], 2));
        let (a_t, b) = (tensor(device, &[k, m], 3), tensor(device, &[k, n], 4));
        let stored = [&a, &w, &a_t, &b].map(|x| operand(x, precision).expect("a matrix"));
        let [a_in, w_in, a_t_in, b_in] = &stored;
        for x in [&a, &w, &a_t, &b].iter().zip(&stored) {
            let rounded: Vec<f32> = x.0.to_vec_f32().unwrap();
            let rounded = rounded.iter().map(|&x| bf16::from_f32(x).to_f32());
            let expected = match dtype {
                DType::F32 => x.0.to_vec_f32().unwrap(),
                DType::Bf16 => rounded.collect(),
            };
            same_bits(name, &x.1.to_vec_f32().unwrap(), &expected);
        }
        let turned = |x: &Tensor| x.transpose(0, 1).expect("two axes");
        for (a, b, a_in, b_in) in [
            (&a, Rhs::Weight(&w), a_in, Rhs::Weight(w_in)),
            (&a, Rhs::Matrix(&b), a_in, Rhs::Matrix(b_in)),
            (
                &turned(&a_t),
                Rhs::Matrix(&b),
                &turned(a_t_in),
                Rhs::Matrix(b_in),
            ),
            (
                &turned(&a_t),
                Rhs::Weight(&w),
                &turned(a_t_in),
                Rhs::Weight(w_in),
            ),
        ] {
            let sums = product(a, b, n, precision);
            same_bits(name, &product(a_in, b_in, n, precision), &sums);
            if dtype == DType::F32 {
                continue;
            }
            let rounded: Vec<f32> = sums.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
            for gap in [0, 5] {
                let mut c = bf16_with_gaps(device, [m, n], gap, 9);
                let (a, b, accumulate) = (a_in, b_in, false);
                let args = MatmulArgs {
                    a,
                    b,
                    c: &mut c,
                    accumulate,
                    precision,
                };
                matmul(args).expect("shapes fit");
                same_bits(name, &c.to_vec_f32().unwrap(), &rounded);
            }
        }
    }
}

#[test]
fn stored_operands_have_the_bits_of_rounded_ones() {
    check_stored([1, 1, 1]);
    check_stored([33, 31, 70]);
    check_stored([64, 96, 32]);
    // Several blocks of k, at every level.
    check_stored([35, 40, 2100]);
    check_stored([3, 0, 5]);
    check_stored([2, 3, 0]);
}
