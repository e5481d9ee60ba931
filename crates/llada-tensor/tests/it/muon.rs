//! Muon and the orthogonalization inside it.

use llada_tensor::Precision;
use llada_tensor::ops::muon::{MuonArgs, muon, orthogonalize};
use proptest::prelude::*;

use crate::support::{check_levels, normal, of, scalar, tensor, widen};

/// `a b` for `a: [m, k]`, `b: [k, n]`.
fn product(a: &[f64], b: &[f64], [m, k, n]: [usize; 3]) -> Vec<f64> {
    let element = |i: usize, j: usize| (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
    (0..m * n).map(|at| element(at / n, at % n)).collect()
}

fn transposed(x: &[f64], [n, k]: [usize; 2]) -> Vec<f64> {
    (0..n * k).map(|at| x[at % n * k + at / n]).collect()
}

/// Five Newton-Schulz iterations in `f64`, always on the wide side.
fn exact_orthogonal(x: &[f64], [n, k]: [usize; 2]) -> Vec<f64> {
    if n > k {
        return transposed(&exact_orthogonal(&transposed(x, [n, k]), [k, n]), [k, n]);
    }
    let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt() + 1e-7;
    let mut x: Vec<f64> = x.iter().map(|x| x / norm).collect();
    for _ in 0..5 {
        let gram = product(&x, &transposed(&x, [n, k]), [n, k, n]);
        let square = product(&gram, &gram, [n, n, n]);
        let mix = |(s, s2): (&f64, &f64)| -4.775 * s + 2.0315 * s2;
        let polynomial: Vec<f64> = gram.iter().zip(&square).map(mix).collect();
        let bent = product(&polynomial, &x, [n, n, k]);
        x = x.iter().zip(&bent).map(|(x, y)| 3.4445 * x + y).collect();
    }
    x
}

/// The iteration amplifies small singular values up to 3.4445^5 = 485 times, and with them the
/// roundings of the products: these count as so many more terms.
#[track_caller]
fn check(n: usize, k: usize) {
    let [parameter, first, second] = [1, 2, 3].map(|seed| normal(seed, n * k));
    let (rate, beta, decay, scale) = (0.01f32, 0.95f32, 0.1f32, 0.7f32);
    let (mut p, mut m) = (widen(&parameter), vec![0.0; n * k]);
    for gradient in [&first, &second] {
        let new = (1.0 - f64::from(beta)) * f64::from(scale);
        let mut u = vec![0.0; n * k];
        for (i, &g) in gradient.iter().enumerate() {
            m[i] = f64::from(beta) * m[i] + new * f64::from(g);
            u[i] = f64::from(beta) * m[i] + new * f64::from(g);
        }
        let step = f64::from(rate) * 0.2 * (n.max(k) as f64).sqrt();
        let keep = 1.0 - f64::from(rate) * f64::from(decay);
        for (p, u) in p.iter_mut().zip(exact_orthogonal(&u, [n, k])) {
            *p = keep * *p - step * u;
        }
    }
    check_levels(
        &format!("muon {n}x{k}"),
        500 + n.max(k),
        &[p, m],
        |device| {
            let (mut p, mut m) = (
                of(device, &[n, k], &parameter),
                of(device, &[n, k], &vec![0.0; n * k]),
            );
            for gradient in [&first, &second] {
                let args = MuonArgs {
                    parameter: &mut p,
                    gradient: &of(device, &[n, k], gradient),
                    momentum: &mut m,
                    learning_rate: rate,
                    beta,
                    weight_decay: decay,
                    gradient_scale: scale,
                    precision: Precision::F32,
                };
                muon(args).expect("fits");
            }
            [p, m].map(|x| x.to_vec_f32().unwrap()).to_vec()
        },
    );
}

#[test]
fn agrees_with_f64_on_wide_tall_and_square_matrices() {
    for [n, k] in [
        [1, 1],
        [1, 7],
        [9, 1],
        [16, 16],
        [17, 40],
        [40, 17],
        [64, 33],
    ] {
        check(n, k);
    }
}

/// What the iteration is for: `x xᵀ` is near the identity, in bf16 as well.
#[test]
fn rows_become_orthonormal() {
    for precision in [Precision::F32, Precision::Bf16] {
        let (n, k) = (24, 96);
        let x = orthogonalize(&tensor(scalar(), &[n, k], 5), precision).expect("a matrix");
        let x = widen(&x.to_vec_f32().unwrap());
        let gram = product(&x, &transposed(&x, [n, k]), [n, k, n]);
        for (at, value) in gram.iter().enumerate() {
            let expected = if at / n == at % n { 0.9 } else { 0.0 };
            assert!(
                (value - expected).abs() < 0.45,
                "{precision:?} {at}: {value}"
            );
        }
    }
}

#[test]
fn zero_stays_zero_and_shapes_are_checked() {
    let zero = of(scalar(), &[3, 5], &[0.0; 15]);
    let same = orthogonalize(&zero, Precision::F32).expect("a matrix");
    assert_eq!(same.to_vec_f32().unwrap(), [0.0; 15]);
    let vector = of(scalar(), &[5], &[1.0; 5]);
    assert!(orthogonalize(&vector, Precision::F32).is_err());
    let error = muon(MuonArgs {
        parameter: &mut zero.clone(),
        gradient: &of(scalar(), &[5, 3], &[0.0; 15]),
        momentum: &mut zero.clone(),
        learning_rate: 0.1,
        beta: 0.9,
        weight_decay: 0.0,
        gradient_scale: 1.0,
        precision: Precision::F32,
    })
    .expect_err("another shape");
    assert!(error.to_string().contains("muon"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn odd_shapes(n in 1usize..40, k in 1usize..40) {
        check(n, k);
    }
}
