//! Cross-entropy of an LM head against `f64`, with no larger an error than the CPU's.

use llada_tensor::backend::{CrossEntropyBackwardArgs, Rhs};
use llada_tensor::ops::cross_entropy::cross_entropy;
use llada_tensor::{Device, Precision, Tensor};

use crate::support::{assert_close, cpu, cuda, product, values};

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

/// Gradients of hidden states, head and bias, added to ones where they are added to.
fn gradients(inputs: &Inputs, device: &Device, precision: Precision) -> [Vec<f32>; 3] {
    let [rows, vocab_size, d] = inputs.shape;
    let of = |shape: &[usize], values: &[f32]| Tensor::from_f32(device, shape, values).unwrap();
    let ones = |shape: &[usize]| of(shape, &vec![1.0; shape.iter().product()]);
    let hidden = of(&[rows, d], &inputs.hidden);
    let head = of(&[vocab_size, d], &inputs.head);
    let bias = of(&[vocab_size], &inputs.bias);
    let rhs = Rhs::Weight(&head);
    let (_, lse) = cross_entropy(&hidden, rhs, Some(&bias), &inputs.targets, precision).unwrap();
    // What was there before must not matter to the gradient of the hidden states.
    let [mut dhidden, mut dhead] = [ones(&[rows, d]), ones(&[vocab_size, d])];
    let mut dbias = ones(&[vocab_size]);
    let args = CrossEntropyBackwardArgs {
        hidden: &hidden,
        head: &head,
        bias: Some(&bias),
        targets: &inputs.targets,
        dlosses: &inputs.dlosses(),
        lse: &lse,
        precision,
        dhidden: &mut dhidden,
        dhead: Some(&mut dhead),
        dbias: Some(&mut dbias),
    };
    device.backend().cross_entropy_backward(args).unwrap();
    [dhidden, dhead, dbias].map(|x| x.to_vec_f32().unwrap())
}

impl Inputs {
    fn dlosses(&self) -> Vec<f32> {
        values(5, self.shape[0])
    }

    /// What [`gradients`] should be.
    fn exact_gradients(&self) -> [Vec<f64>; 3] {
        let [rows, vocab_size, d] = self.shape;
        let [_, lses] = self.exact();
        let (mut dhidden, mut dhead) = (vec![0.0; rows * d], vec![1.0; vocab_size * d]);
        let (mut dbias, dlosses) = (vec![1.0; vocab_size], self.dlosses());
        for row in 0..rows {
            let x = &self.hidden[row * d..][..d];
            for entry in 0..vocab_size {
                let w = &self.head[entry * d..][..d];
                let products = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w));
                let logit = products.sum::<f64>() + f64::from(self.bias[entry]);
                let is_target = f64::from(u8::from(entry == self.targets[row] as usize));
                let slope = f64::from(dlosses[row]) * ((logit - lses[row]).exp() - is_target);
                dbias[entry] += slope;
                for c in 0..d {
                    dhidden[row * d + c] += slope * f64::from(w[c]);
                    dhead[entry * d + c] += slope * f64::from(x[c]);
                }
            }
        }
        [dhidden, dhead, dbias]
    }
}

/// At most twice the error of the CPU's scalar code, and two roundings of the result; in bf16 the
/// slopes are rounded too, by both.
#[track_caller]
fn check_gradients(shape: [usize; 3]) {
    let Some(device) = cuda() else { return };
    let cpu = cpu();
    for (is_bf16, precision) in [(false, Precision::F32), (true, Precision::Bf16)] {
        let inputs = Inputs::new(shape, is_bf16);
        let exact = inputs.exact_gradients();
        let got = gradients(&inputs, &device, precision);
        let expected = gradients(&inputs, &cpu, precision);
        for (what, ((got, expected), exact)) in ["dhidden", "dhead", "dbias"]
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
fn gradients_are_those_of_the_cpu() {
    check_gradients([0, 5, 8]);
    check_gradients([1, 1, 24]);
    check_gradients([5, 300, 64]);
    check_gradients([17, 129, 40]);
    check_gradients([70, 131, 24]);
    check_gradients([130, 140, 16]);
    check_gradients([3, 130, 7]);
    // Several parts.
    check_gradients([2, 8192 + 130, 8]);
}

#[test]
fn gradients_are_the_same_each_time() {
    let Some(device) = cuda() else { return };
    let inputs = Inputs::new([17, 140, 24], false);
    for precision in [Precision::F32, Precision::Bf16] {
        let got = gradients(&inputs, &device, precision);
        assert_eq!(got, gradients(&inputs, &device, precision));
    }
}

/// Heads in the device's own layout: values, and integers, whose logits are products of their own,
/// against the device's own products.
#[test]
fn losses_of_packed_heads_are_those_of_their_products() {
    let Some(device) = cuda() else { return };
    let [rows, vocab_size, d] = [19, 300, 64];
    let inputs = Inputs::new([rows, vocab_size, d], false);
    for precision in [
        Precision::F32,
        Precision::Bf16,
        Precision::Int8,
        Precision::Int4,
    ] {
        let fill = |rows: std::ops::Range<usize>, out: &mut [f32]| {
            out.copy_from_slice(&inputs.head[rows.start * d..rows.end * d]);
        };
        let head = device.backend().pack([vocab_size, d], precision, &fill);
        let (head, targets) = (head.unwrap(), &inputs.targets);
        let hidden = Tensor::from_f32(&device, &[rows, d], &inputs.hidden).unwrap();
        let head = Rhs::Packed(&head);
        let (losses, lse) = cross_entropy(&hidden, head, None, targets, precision).unwrap();
        let logits = product(&hidden, head, precision);
        let expected = logits
            .chunks_exact(vocab_size)
            .zip(targets)
            .map(|(row, &target)| {
                let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
                [sum.ln() - f64::from(row[target as usize]), sum.ln()]
            });
        let expected: Vec<[f32; 2]> = expected.map(|pair| pair.map(|x| x as f32)).collect();
        // The logits may differ by the roundings of a sum of 64 products of at most one.
        let limit = 64.0 * 8.0 * f32::EPSILON;
        for (i, got) in [losses, lse].into_iter().enumerate() {
            let expected: Vec<f32> = expected.iter().map(|pair| pair[i]).collect();
            let what = format!("{precision:?} {i}");
            assert_close(&what, &got.to_vec_f32().unwrap(), &expected, limit, 0.0);
        }
    }
}
