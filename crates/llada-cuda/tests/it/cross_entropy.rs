//! Cross-entropy of an LM head against `f64`, with no larger an error than the CPU's.

use llada_tensor::backend::Rhs;
use llada_tensor::ops::cross_entropy::cross_entropy;
use llada_tensor::{Device, Precision, Tensor};

use crate::support::{cpu, cuda, values};

/// Hidden states, a head and targets.
struct Inputs {
    shape: [usize; 3],
    hidden: Vec<f32>,
    head: Vec<f32>,
    bias: Vec<f32>,
    targets: Vec<u32>,
}

impl Inputs {
    /// Values that bf16 holds exactly if `is_bf16`, so that both precisions have one exact result.
    fn new([rows, vocab_size, d]: [usize; 3], is_bf16: bool) -> Self {
        let of = |key, n| -> Vec<f32> {
            let round = |x: f32| match is_bf16 {
                true => (x * 64.0).round() / 64.0,
                false => x,
            };
            values(key, n).into_iter().map(round).collect()
        };
        // The last entry is among them.
        let target = |i: usize| u32::try_from(vocab_size - 1 - i * 37 % vocab_size).unwrap();
        Self {
            shape: [rows, vocab_size, d],
            hidden: of(1, rows * d),
            head: of(2, vocab_size * d),
            bias: of(3, vocab_size),
            targets: (0..rows).map(target).collect(),
        }
    }

    fn run(&self, device: &Device, precision: Precision) -> [Vec<f32>; 2] {
        let [rows, vocab_size, d] = self.shape;
        let of = |shape: &[usize], values: &[f32]| Tensor::from_f32(device, shape, values).unwrap();
        let head = of(&[vocab_size, d], &self.head);
        let (losses, lse) = cross_entropy(
            &of(&[rows, d], &self.hidden),
            Rhs::Weight(&head),
            Some(&of(&[vocab_size], &self.bias)),
            &self.targets,
            precision,
        )
        .unwrap();
        [losses, lse].map(|x| x.to_vec_f32().unwrap())
    }

    /// Losses and log-sum-exps.
    fn exact(&self) -> [Vec<f64>; 2] {
        let [rows, vocab_size, d] = self.shape;
        let logit = |row: usize, entry: usize| -> f64 {
            let (x, w) = (&self.hidden[row * d..][..d], &self.head[entry * d..][..d]);
            let products = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w));
            products.sum::<f64>() + f64::from(self.bias[entry])
        };
        let lse = |row: usize| {
            let sum: f64 = (0..vocab_size).map(|entry| logit(row, entry).exp()).sum();
            sum.ln()
        };
        let lses: Vec<f64> = (0..rows).map(lse).collect();
        let loss = |row: usize| lses[row] - logit(row, self.targets[row] as usize);
        [(0..rows).map(loss).collect(), lses.clone()]
    }
}

fn max_error(got: &[f32], exact: &[f64]) -> f64 {
    assert_eq!(got.len(), exact.len());
    let errors = got
        .iter()
        .zip(exact)
        .map(|(&x, y)| (f64::from(x) - y).abs());
    errors.fold(0.0, |a, b| if b.is_nan() { b } else { a.max(b) })
}

/// At most twice the error of the CPU's scalar code, and two roundings of the result.
#[track_caller]
fn check(shape: [usize; 3]) {
    let Some(device) = cuda() else { return };
    let cpu = cpu();
    for (is_bf16, precision) in [(false, Precision::F32), (true, Precision::Bf16)] {
        let inputs = Inputs::new(shape, is_bf16);
        let exact = inputs.exact();
        let (got, expected) = (inputs.run(&device, precision), inputs.run(&cpu, precision));
        for (what, ((got, expected), exact)) in ["loss", "lse"]
            .iter()
            .zip(got.iter().zip(&expected).zip(&exact))
        {
            let largest = exact.iter().fold(1.0, |a: f64, b| a.max(b.abs()));
            let limit = 2.0 * max_error(expected, exact) + 2.0 * largest * f64::from(f32::EPSILON);
            let error = max_error(got, exact);
            assert!(
                error <= limit,
                "{shape:?} {precision:?} {what}: {error} > {limit}"
            );
        }
    }
}

#[test]
fn losses_are_those_of_the_cpu() {
    check([0, 5, 8]);
    check([1, 1, 24]);
    check([5, 300, 64]);
    check([17, 129, 200]);
    check([70, 260, 40]);
    check([130, 140, 16]);
    check([3, 130, 7]);
    check([2, 8192 + 130, 8]);
}

#[test]
fn a_row_does_not_depend_on_the_other_rows() {
    let Some(device) = cuda() else { return };
    let mut inputs = Inputs::new([130, 300, 72], false);
    for precision in [Precision::F32, Precision::Bf16] {
        let all = inputs.run(&device, precision);
        let again = inputs.run(&device, precision);
        assert_eq!(all[0], again[0]);
        let one = Inputs {
            shape: [1, 300, 72],
            hidden: inputs.hidden[69 * 72..][..72].to_vec(),
            targets: vec![inputs.targets[69]],
            head: std::mem::take(&mut inputs.head),
            bias: std::mem::take(&mut inputs.bias),
        };
        let alone = one.run(&device, precision);
        assert_eq!(alone, [vec![all[0][69]], vec![all[1][69]]]);
        (inputs.head, inputs.bias) = (one.head, one.bias);
    }
}
