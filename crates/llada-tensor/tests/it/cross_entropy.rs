//! LM head with cross-entropy, and its gradients.

use llada_tensor::backend::{CrossEntropyBackwardArgs, Rhs};
use llada_tensor::ops::cross_entropy::cross_entropy;
use llada_tensor::ops::matmul::pack;
use llada_tensor::{DType, Precision, Tensor};
use proptest::prelude::*;

use crate::reference;
use crate::support::{check_levels, devices, ids, normal, of, same_bits, widen};

/// Hidden states, a head with logits of about one, a bias and targets.
struct Inputs {
    shape: [usize; 3],
    hidden: Vec<f32>,
    head: Vec<f32>,
    bias: Vec<f32>,
    targets: Vec<u32>,
}

impl Inputs {
    fn new(n: usize, v: usize, d: usize) -> Self {
        let scale = 1.0 / (d as f32).sqrt();
        Self {
            shape: [n, v, d],
            hidden: normal(1, n * d),
            head: normal(2, v * d).iter().map(|x| x * scale).collect(),
            bias: normal(3, v),
            targets: ids(4, n, v),
        }
    }

    fn logits(&self, with_bias: bool) -> Vec<f64> {
        let logits = reference::linear(&widen(&self.hidden), &widen(&self.head), self.shape[2]);
        match with_bias {
            true => reference::add(&logits, &widen(&self.bias)),
            false => logits,
        }
    }
}

#[track_caller]
fn check(n: usize, v: usize, d: usize, with_bias: bool) {
    let inputs = Inputs::new(n, v, d);
    let logits = inputs.logits(with_bias);
    let forward = reference::cross_entropy(&logits, &inputs.targets);
    let precision = Precision::F32;
    let name = format!("cross_entropy {n}x{v}x{d}");
    check_levels(&name, d.max(v), &forward, |device| {
        let head = of(device, &[v, d], &inputs.head);
        let bias = with_bias.then(|| of(device, &[v], &inputs.bias));
        let hidden = of(device, &[n, d], &inputs.hidden);
        let run = |head| cross_entropy(&hidden, head, bias.as_ref(), &inputs.targets, precision);
        let (losses, lse) = run(Rhs::Weight(&head)).expect("fits");
        let packed = pack(&head, precision).expect("a matrix");
        let (of_packed, _) = run(Rhs::Packed(&packed)).expect("fits");
        same_bits(
            "packed",
            &losses.to_vec_f32().unwrap(),
            &of_packed.to_vec_f32().unwrap(),
        );
        vec![losses.to_vec_f32().unwrap(), lse.to_vec_f32().unwrap()]
    });

    let dlosses = normal(5, n);
    let slopes = reference::logit_slopes(&logits, &inputs.targets, &dlosses);
    let (mut dhidden, mut dhead) = (vec![0.0; n * d], widen(&inputs.head));
    let mut dbias = widen(&inputs.bias);
    for (at, &slope) in slopes.iter().enumerate() {
        let (i, w) = (at / v, at % v);
        dbias[w] += slope;
        for e in 0..d {
            dhidden[i * d + e] += slope * f64::from(inputs.head[w * d + e]);
            dhead[w * d + e] += slope * f64::from(inputs.hidden[i * d + e]);
        }
    }
    let exact = [dhidden, dhead, dbias];
    let lse: Vec<f32> = forward[1].iter().map(|&x| x as f32).collect();
    check_levels(&format!("{name} backward"), d.max(n), &exact, |device| {
        let bias = of(device, &[v], &inputs.bias);
        let mut dhidden = Tensor::empty(device, DType::F32, &[n, d]).unwrap();
        // Gradients of parameters are added to what is there.
        let mut dhead = of(device, &[v, d], &inputs.head);
        let mut dbias = of(device, &[v], &inputs.bias);
        let args = CrossEntropyBackwardArgs {
            hidden: &of(device, &[n, d], &inputs.hidden),
            head: &of(device, &[v, d], &inputs.head),
            bias: with_bias.then_some(&bias),
            targets: &inputs.targets,
            dlosses: &dlosses,
            lse: &of(device, &[n], &lse),
            precision,
            dhidden: &mut dhidden,
            dhead: Some(&mut dhead),
            dbias: Some(&mut dbias),
        };
        device.backend().cross_entropy_backward(args).expect("fits");
        [dhidden, dhead, dbias]
            .map(|x| x.to_vec_f32().unwrap())
            .to_vec()
    });
}

#[test]
fn agrees_with_f64() {
    check(1, 1, 1, true);
    check(0, 5, 4, false);
    check(3, 17, 5, true);
    check(40, 300, 33, false);
    // Several tiles of the vocabulary, the last one shorter.
    check(7, 4100, 9, true);
    check(1100, 700, 3, true);
}

/// For up to 128 rows a tile of logits is as wide as it can be; more rows make it narrower, and
/// the sums are taken in another order.
#[test]
fn a_row_does_not_depend_on_the_other_rows() {
    let inputs = Inputs::new(100, 5000, 20);
    for (name, device) in devices() {
        let head = of(device, &[5000, 20], &inputs.head);
        let losses = |first: usize, n: usize| {
            let hidden = of(device, &[n, 20], &inputs.hidden[first * 20..][..n * 20]);
            let targets = &inputs.targets[first..first + n];
            let head = Rhs::Weight(&head);
            let (losses, _) =
                cross_entropy(&hidden, head, None, targets, Precision::F32).expect("fits");
            losses.to_vec_f32().unwrap()
        };
        same_bits(name, &losses(0, 100)[70..73], &losses(70, 3));
    }
}

#[test]
fn large_logits_do_not_overflow() {
    for (name, device) in devices() {
        let hidden = of(device, &[2, 1], &[1e4, -3e4]);
        let head = of(device, &[3, 1], &[1.0, -1.0, 0.5]);
        let head = Rhs::Weight(&head);
        let (losses, lse) =
            cross_entropy(&hidden, head, None, &[0, 0], Precision::F32).expect("fits");
        same_bits(name, &losses.to_vec_f32().unwrap(), &[0.0, 6e4]);
        same_bits(name, &lse.to_vec_f32().unwrap(), &[1e4, 3e4]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn odd_shapes(n in 0usize..40, v in 1usize..90, d in 1usize..40, with_bias: bool) {
        check(n, v, d, with_bias);
    }
}
