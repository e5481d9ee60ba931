//! AdamW and the global norm.

use llada_tensor::backend::AdamWArgs;
use llada_tensor::ops::adamw::{adamw, global_norm};
use llada_tensor::{Device, Tensor};

use crate::bounds::{as_good_as_scalar, misaligned, same_bits, widen};
use crate::support::{cpu, cuda, values};

const RATE: f32 = 3e-3;
const BETAS: [f32; 2] = [0.9, 0.95];
const EPS: f32 = 1e-8;
const DECAY: f32 = 0.1;
const SCALE: f32 = 0.7;
const STEPS: [u64; 3] = [1, 2, 3];

fn gradient(step: u64, n: usize) -> Vec<f32> {
    values(10 + u32::try_from(step).unwrap(), n)
}

/// Three updates of a parameter and its moments.
fn updates(device: &Device, parameter: &[f32]) -> [Vec<f32>; 3] {
    let n = parameter.len();
    let of = |x: &[f32]| Tensor::from_f32(device, &[n], x).unwrap();
    let [mut p, mut m, mut v] = [of(parameter), of(&vec![0.0; n]), of(&vec![0.0; n])];
    for step in STEPS {
        let args = AdamWArgs {
            parameter: &mut p,
            gradient: &of(&gradient(step, n)),
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
        adamw(args).unwrap();
    }
    [p, m, v].map(|x| x.to_vec_f32().unwrap())
}

/// The same with the roundings of the CPU's vector code: products are fused with the sums that it
/// fuses.
fn fused(parameter: &[f32]) -> [Vec<f32>; 3] {
    let n = parameter.len();
    let [beta1, beta2] = BETAS;
    let (mut p, mut m, mut v) = (parameter.to_vec(), vec![0.0_f32; n], vec![0.0_f32; n]);
    for step in STEPS {
        let correction = |beta: f32| 1.0 - f64::from(beta).powf(step as f64);
        let keep = (1.0 - f64::from(RATE) * f64::from(DECAY)) as f32;
        let rate = (f64::from(RATE) / correction(beta1)) as f32;
        let second = (1.0 / correction(beta2).sqrt()) as f32;
        for (i, g) in gradient(step, n).into_iter().enumerate() {
            let g = SCALE * g;
            m[i] = (1.0 - beta1).mul_add(g, beta1 * m[i]);
            v[i] = beta2.mul_add(v[i], (1.0 - beta2) * (g * g));
            p[i] = keep * p[i] - rate * (m[i] / v[i].sqrt().mul_add(second, EPS));
        }
    }
    [p, m, v]
}

/// The same in `f64`.
fn exact(parameter: &[f32]) -> [Vec<f64>; 3] {
    let n = parameter.len();
    let [beta1, beta2] = BETAS.map(f64::from);
    let (mut p, mut m, mut v) = (widen(parameter), vec![0.0; n], vec![0.0; n]);
    for step in STEPS {
        let correction = |beta: f64| 1.0 - beta.powf(step as f64);
        for (i, g) in gradient(step, n).into_iter().enumerate() {
            let g = f64::from(SCALE) * f64::from(g);
            m[i] = beta1 * m[i] + (1.0 - beta1) * g;
            v[i] = beta2 * v[i] + (1.0 - beta2) * g * g;
            let root = (v[i] / correction(beta2)).sqrt() + f64::from(EPS);
            p[i] = p[i] * (1.0 - f64::from(RATE) * f64::from(DECAY))
                - f64::from(RATE) * (m[i] / correction(beta1)) / root;
        }
    }
    [p, m, v]
}

#[test]
fn updates_are_those_of_the_cpu() {
    let Some(cuda) = cuda() else { return };
    for n in [0, 1, 4, 15, 1031, 5000] {
        let parameter = values(1, n);
        let (got, scalar) = (updates(&cuda, &parameter), updates(&cpu(), &parameter));
        let (fused, exact) = (fused(&parameter), exact(&parameter));
        for i in 0..3 {
            let name = format!("{n} output {i}");
            same_bits(&name, &got[i], &fused[i]);
            as_good_as_scalar(&name, 3, &got[i], &scalar[i], &exact[i]);
        }
    }
}

/// At most 16 squares are summed in `f32`, the rest in `f64`.
#[test]
fn the_norm_of_all_tensors_agrees_with_f64() {
    let Some(cuda) = cuda() else { return };
    let sizes = [0, 1, 3, 1023, 4097, 20_003];
    let of = |n: usize| Tensor::from_f32(&cuda, &[n], &values(n as u32, n)).unwrap();
    let mut tensors: Vec<_> = sizes.into_iter().map(of).collect();
    tensors.push(misaligned(&cuda, &values(7, 4000)));
    let all = tensors.iter().flat_map(|x| x.to_vec_f32().unwrap());
    let exact = all.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let norm = global_norm(&tensors).unwrap();
    let relative = (norm / exact - 1.0).abs();
    assert!(
        relative <= 17.0 * f64::from(f32::EPSILON) / 2.0,
        "{relative:e}"
    );
    assert_eq!(global_norm(&tensors).unwrap().to_bits(), norm.to_bits());
}
