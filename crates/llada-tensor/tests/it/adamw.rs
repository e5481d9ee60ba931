//! AdamW and the global norm.

use llada_tensor::backend::AdamWArgs;
use llada_tensor::ops::adamw::{adamw, global_norm};
use proptest::prelude::*;

use crate::support::{check_levels, devices, normal, of, tensor, widen};

const RATE: f32 = 3e-3;
const BETAS: [f32; 2] = [0.9, 0.95];
const EPS: f32 = 1e-8;
const DECAY: f32 = 0.1;
const SCALE: f32 = 0.7;

/// Three updates in `f64`; returns the parameter and both moments.
fn exact(parameter: &[f32], gradients: &[Vec<f32>]) -> Vec<Vec<f64>> {
    let mut p = widen(parameter);
    let (mut m, mut v) = (vec![0.0; p.len()], vec![0.0; p.len()]);
    let [beta1, beta2] = BETAS.map(f64::from);
    let (rate, decay, eps) = (f64::from(RATE), f64::from(DECAY), f64::from(EPS));
    for (gradient, step) in gradients.iter().zip(1..) {
        for (i, &g) in gradient.iter().enumerate() {
            let g = f64::from(SCALE) * f64::from(g);
            m[i] = beta1 * m[i] + (1.0 - beta1) * g;
            v[i] = beta2 * v[i] + (1.0 - beta2) * g * g;
            let (m, v) = (
                m[i] / (1.0 - beta1.powi(step)),
                v[i] / (1.0 - beta2.powi(step)),
            );
            p[i] = p[i] * (1.0 - rate * decay) - rate * m / (v.sqrt() + eps);
        }
    }
    vec![p, m, v]
}

#[track_caller]
fn check(n: usize) {
    let parameter = normal(1, n);
    let gradients = [2, 3, 4].map(|seed| normal(seed, n));
    let exact = exact(&parameter, &gradients);
    check_levels(&format!("adamw {n}"), 3, &exact, |device| {
        let mut p = of(device, &[n], &parameter);
        let [mut m, mut v] = [0, 1].map(|_| of(device, &[n], &vec![0.0; n]));
        for (gradient, step) in gradients.iter().zip(1..) {
            let args = AdamWArgs {
                parameter: &mut p,
                gradient: &of(device, &[n], gradient),
                first_moment: &mut m,
                second_moment: &mut v,
                learning_rate: RATE,
                beta1: BETAS[0],
                beta2: BETAS[1],
                eps: EPS,
                weight_decay: DECAY,
                gradient_scale: SCALE,
                step,
            };
            adamw(args).expect("fits");
        }
        [p, m, v].map(|x| x.to_vec_f32().unwrap()).to_vec()
    });
}

#[test]
fn agrees_with_f64() {
    for n in [0, 1, 15, 16, 17, 70_001] {
        check(n);
    }
}

/// Runs of 1,024 squares are summed in `f32`: each sum is off by at most as many roundings.
#[test]
fn the_norm_of_all_tensors_agrees_with_f64() {
    let mut expected: Option<Vec<u64>> = None;
    for (name, device) in devices() {
        let sizes = [0, 1, 1023, 1025, 70_001];
        let tensors: Vec<_> = sizes
            .iter()
            .map(|&n| tensor(device, &[n], n as u64))
            .collect();
        let squares = |x: &f32| f64::from(*x).powi(2);
        let exact: f64 = tensors
            .iter()
            .flat_map(|x| x.to_vec_f32().unwrap())
            .map(|x| squares(&x))
            .sum();
        let norm = global_norm(&tensors).expect("contiguous");
        let relative = (norm / exact.sqrt() - 1.0).abs();
        assert!(
            relative < 1024.0 * f64::from(f32::EPSILON) / 2.0,
            "{name}: {relative:e}"
        );
        let bits = vec![norm.to_bits()];
        match name.contains("2 threads") {
            true => assert_eq!(expected.as_ref(), Some(&bits), "{name}: threads change it"),
            false => expected = Some(bits),
        }
    }
    let none = global_norm(&[]).expect("no tensor");
    assert!(none.abs() < f64::MIN_POSITIVE, "the norm of nothing is 0");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn odd_lengths(n in 0usize..200) {
        check(n);
    }
}
