//! Gradients of every op on the tape, by central differences.

use std::num::NonZeroUsize;

use llada_tensor::backend::AttentionShape;
use llada_tensor::layers::{Adapter, Linear, Moe, Norm, Weight};
use llada_tensor::ops::moe::{Router, RouterRule};
use llada_tensor::ops::rope::RopeTable;
use llada_tensor::{Device, Gradients, Precision, Tape, Tensor, Var};

use crate::reference::{self, Attention};
use crate::support::{devices, max_error, normal, of, scalar, widen};

/// Compares the tape's gradients of a scalar with central differences of `exact`, the same
/// function in `f64`, at every level.
///
/// The differences are off by about 1e-10 (the step is 1e-5 and all values are about one), the
/// tape by the roundings of `f32`: 64 of the largest gradient are allowed.
#[track_caller]
fn check_gradients(
    name: &str,
    shapes: &[&[usize]],
    loss: impl Fn(&mut Tape, &[Var]) -> Var,
    exact: impl Fn(&[Vec<f64>]) -> f64,
) {
    const STEP: f64 = 1e-5;
    let inputs: Vec<Vec<f32>> = shapes
        .iter()
        .zip(100..)
        .map(|(shape, seed)| normal(seed, shape.iter().product()))
        .collect();
    let mut at: Vec<Vec<f64>> = inputs.iter().map(|x| widen(x)).collect();
    let value = exact(&at);
    let mut differences = Vec::new();
    for i in 0..at.len() {
        let mut slopes = Vec::new();
        for j in 0..at[i].len() {
            let x = at[i][j];
            at[i][j] = x + STEP;
            let above = exact(&at);
            at[i][j] = x - STEP;
            slopes.push((above - exact(&at)) / (2.0 * STEP));
            at[i][j] = x;
        }
        differences.push(slopes);
    }
    let all = differences.iter().flatten().chain([&value]);
    let bound = 64.0 * f64::from(f32::EPSILON) * all.fold(1.0, |max, x| x.abs().max(max));
    for (device_name, device) in devices() {
        let inputs: Vec<Tensor> = shapes
            .iter()
            .zip(&inputs)
            .map(|(shape, x)| of(device, shape, x))
            .collect();
        let mut tape = Tape::recording(device, Precision::F32);
        let mut gradients = Gradients::zeros_like(&inputs).unwrap();
        let vars: Vec<Var> = inputs
            .iter()
            .enumerate()
            .map(|(i, x)| tape.parameter(i, x))
            .collect();
        let loss = loss(&mut tape, &vars);
        let error = max_error(&loss.value().to_vec_f32().unwrap(), &[value]);
        assert!(
            error <= bound,
            "{name}, {device_name}: loss off by {error:e}"
        );
        tape.backward(&loss, &mut gradients).expect("a scalar");
        for (i, exact) in differences.iter().enumerate() {
            let error = max_error(&gradients.tensors()[i].to_vec_f32().unwrap(), exact);
            assert!(
                error <= bound,
                "{name}, {device_name}, input {i}: {error:e} > {bound:e}"
            );
        }
    }
}

const CLASSES: usize = 5;

/// A head, targets and weights that make a scalar of the `rows` rows of an op's output.
struct Score {
    width: usize,
    head: Vec<f32>,
    targets: Vec<u32>,
    weights: Vec<f32>,
}

impl Score {
    fn new(rows: usize, width: usize) -> Self {
        let head = normal(50, CLASSES * width);
        Self {
            width,
            head: head.iter().map(|x| x / (width as f32).sqrt()).collect(),
            targets: (0..rows as u32).map(|i| i % CLASSES as u32).collect(),
            weights: normal(51, rows),
        }
    }

    fn on(&self, tape: &mut Tape, y: &Var) -> Var {
        let head = of(tape.device(), &[CLASSES, self.width], &self.head);
        let head = Var::constant(head);
        tape.cross_entropy(y, &head, None, &self.targets, &self.weights)
            .expect("fits")
    }

    fn exact(&self, y: &[f64]) -> f64 {
        let logits = reference::linear(y, &widen(&self.head), self.width);
        let [losses, _] = reference::cross_entropy(&logits, &self.targets);
        reference::dot(&losses, &widen(&self.weights))
    }
}

#[test]
fn of_add_scaled() {
    let score = Score::new(4, 6);
    check_gradients(
        "add_scaled",
        &[&[4, 6], &[4, 6]],
        |tape, x| {
            let y = tape.add_scaled(&x[0], -1.5, &x[1]).expect("fits");
            score.on(tape, &y)
        },
        |x| {
            let scaled: Vec<f64> = x[1].iter().map(|z| -1.5 * z).collect();
            score.exact(&reference::add(&x[0], &scaled))
        },
    );
}

#[test]
fn of_linear() {
    let score = Score::new(4, 6);
    check_gradients(
        "linear",
        &[&[4, 7], &[6, 7], &[6]],
        |tape, x| {
            let y = tape.linear(&x[0], &x[1], Some(&x[2])).expect("fits");
            score.on(tape, &y)
        },
        |x| score.exact(&reference::add(&reference::linear(&x[0], &x[1], 7), &x[2])),
    );
}

#[test]
fn of_embedding() {
    let (ids, score) = ([2, 0, 2, 2, 4], Score::new(5, 3));
    check_gradients(
        "embedding",
        &[&[5, 3]],
        |tape, x| {
            let y = tape.embedding(&x[0], &ids).expect("fits");
            score.on(tape, &y)
        },
        |x| score.exact(&reference::embedding(&x[0], 3, &ids)),
    );
    // The gather of rows that are the output of another op.
    check_gradients(
        "gather",
        &[&[5, 3], &[5, 3]],
        |tape, x| {
            let sum = tape.add(&x[0], &x[1]).expect("fits");
            let y = tape.embedding(&sum, &ids).expect("fits");
            score.on(tape, &y)
        },
        |x| {
            score.exact(&reference::embedding(
                &reference::add(&x[0], &x[1]),
                3,
                &ids,
            ))
        },
    );
}

#[test]
fn of_add() {
    let score = Score::new(3, 5);
    check_gradients(
        "add",
        &[&[3, 5], &[3, 5], &[5]],
        |tape, x| {
            let y = tape.add(&x[0], &x[1]).expect("fits");
            let y = tape.add(&y, &x[2]).expect("fits");
            // Both inputs are the same value.
            let y = tape.add(&y, &y).expect("fits");
            score.on(tape, &y)
        },
        |x| {
            let y = reference::add(&reference::add(&x[0], &x[1]), &x[2]);
            score.exact(&reference::add(&y, &y))
        },
    );
}

#[test]
fn of_rms_norm() {
    let score = Score::new(4, 19);
    check_gradients(
        "rms_norm",
        &[&[4, 19], &[19]],
        |tape, x| {
            let y = tape.rms_norm(&x[0], &x[1], 1e-5).expect("fits");
            score.on(tape, &y)
        },
        |x| score.exact(&reference::rms_norm(&x[0], &x[1], f64::from(1e-5_f32))[0]),
    );
}

/// Two rows of three heads.
#[test]
fn of_rms_norm_heads() {
    let score = Score::new(2, 15);
    check_gradients(
        "rms_norm_heads",
        &[&[2, 15], &[5]],
        |tape, x| {
            let y = tape.rms_norm_heads(&x[0], &x[1], 1e-5).expect("fits");
            score.on(tape, &y)
        },
        |x| score.exact(&reference::rms_norm(&x[0], &x[1], f64::from(1e-5_f32))[0]),
    );
}

fn table(device: &Device, head_dim: usize) -> RopeTable {
    RopeTable::new(device, 20, head_dim, 100.0).expect("even")
}

fn exact_rope(x: &[f64], width: usize, head_dim: usize, positions: &[u32]) -> Vec<f64> {
    let RopeTable { cos, sin, .. } = table(scalar(), head_dim);
    let [cos, sin] = [cos, sin].map(|x| widen(&x.to_vec_f32().unwrap()));
    reference::rope(x, width, (&cos, &sin, head_dim / 2), positions, 1.0)
}

#[test]
fn of_rope() {
    let (positions, score) = ([0, 7, 19], Score::new(3, 12));
    check_gradients(
        "rope",
        &[&[3, 12]],
        |tape, x| {
            let table = table(tape.device(), 6);
            let y = tape.rope(&x[0], &table, &positions).expect("fits");
            score.on(tape, &y)
        },
        |x| score.exact(&exact_rope(&x[0], 12, 6, &positions)),
    );
}

/// Of heads of 5, 4 are rotated.
#[test]
fn of_rope_of_a_part_of_each_head() {
    let (positions, score) = ([0, 7, 19], Score::new(3, 10));
    check_gradients(
        "partial rope",
        &[&[3, 10]],
        |tape, x| {
            let table = RopeTable::partial(tape.device(), 20, [4, 5], 100.0).expect("even");
            let y = tape.rope(&x[0], &table, &positions).expect("fits");
            score.on(tape, &y)
        },
        |x| {
            let (heads, mut all) = (x[0].as_chunks::<5>().0, Vec::new());
            let first: Vec<f64> = heads.iter().flat_map(|head| head[..4].to_vec()).collect();
            let turned = exact_rope(&first, 8, 4, &positions);
            for (head, turned) in heads.iter().zip(turned.chunks(4)) {
                all.extend([turned, &head[4..]].concat());
            }
            score.exact(&all)
        },
    );
}

#[test]
fn of_swiglu() {
    let score = Score::new(3, 11);
    check_gradients(
        "swiglu",
        &[&[3, 11], &[3, 11]],
        |tape, x| {
            let y = tape.swiglu(&x[0], &x[1]).expect("fits");
            score.on(tape, &y)
        },
        |x| score.exact(&reference::swiglu(&x[0], &x[1])),
    );
}

fn on_tape(shape: &Attention) -> AttentionShape<'_> {
    AttentionShape {
        offsets: &shape.offsets,
        key_offsets: None,
        n_heads: shape.n_heads,
        n_kv_heads: shape.n_kv_heads,
        block_size: shape.block_size,
    }
}

#[test]
fn of_attention() {
    for block_size in [0, 1, 4].map(NonZeroUsize::new) {
        let shape = Attention {
            offsets: vec![0, 3, 3, 9],
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 6,
            block_size,
        };
        let score = Score::new(9, 24);
        check_gradients(
            "attention",
            &[&[9, 24], &[9, 12], &[9, 12]],
            |tape, x| {
                let y = tape.attention(&x[0], &x[1], &x[2], on_tape(&shape));
                score.on(tape, &y.expect("fits"))
            },
            |x| score.exact(&shape.forward(&x[0], &x[1], &x[2])[0]),
        );
    }
}

#[test]
fn of_cross_entropy() {
    let (targets, weights) = ([3, 0, 6, 3], [0.5, -1.0, 2.0, 0.0]);
    check_gradients(
        "cross_entropy",
        &[&[4, 3], &[7, 3], &[7]],
        |tape, x| {
            tape.cross_entropy(&x[0], &x[1], Some(&x[2]), &targets, &weights)
                .expect("fits")
        },
        |x| {
            let logits = reference::add(&reference::linear(&x[0], &x[1], 3), &x[2]);
            let [losses, _] = reference::cross_entropy(&logits, &targets);
            reference::dot(&losses, &weights.map(f64::from))
        },
    );
}

/// A linear layer of a weight alone.
fn layer(weight: &Var) -> Linear<'static> {
    Linear {
        weight: Weight::Tensor(weight.clone()),
        bias: None,
        adapter: None,
    }
}

#[test]
fn of_layers_with_biases_and_an_adapter() {
    let (score, eps, scale) = (Score::new(4, 5), 1e-5, -1.5);
    let shapes: [&[usize]; 7] = [&[4, 3], &[3], &[3], &[5, 3], &[5], &[2, 3], &[5, 2]];
    check_gradients(
        "layers",
        &shapes,
        |tape, p| {
            let [x, weight, bias, w, b, down, up] = p else {
                unreachable!("seven parameters")
            };
            let norm = Norm {
                weight: weight.clone(),
                bias: Some(bias.clone()),
                eps,
            };
            let adapted = Linear {
                bias: Some(b.clone()),
                adapter: Some(Adapter {
                    a: down.clone(),
                    b: up.clone(),
                    scale,
                }),
                ..layer(w)
            };
            let run = |tape: &mut Tape| -> llada_tensor::Result<Var> {
                let [y, z] = tape.norm_linear(x, &norm, [&adapted, &layer(w)])?;
                tape.add(&y, &z)
            };
            let y = run(tape).expect("fits");
            score.on(tape, &y)
        },
        |p| {
            use reference::{add, linear, rms_norm};
            let [x, weight, bias, w, b, down, up] = p else {
                unreachable!("seven parameters")
            };
            let [h, _] = rms_norm(x, weight, f64::from(eps));
            let h = add(&h, bias);
            let z = linear(&linear(&h, down, 3), up, 2);
            let scaled: Vec<f64> = z.iter().map(|z| f64::from(scale) * z).collect();
            let y = add(&add(&linear(&h, w, 3), b), &scaled);
            score.exact(&add(&y, &linear(&h, w, 3)))
        },
    );
}

/// A Transformer block with both residuals, whose embedding is also its head and whose norm
/// weight and value projection are used twice.
#[test]
fn of_a_block_with_tied_parameters() {
    const D: usize = 8;
    let (ids, targets) = ([3, 1, 4, 1, 5], [1, 2, 0, 5, 3]);
    let (positions, weights) = ([0, 1, 2, 0, 1], [0.3, 0.2, 0.1, 0.5, 0.4]);
    let shape = Attention {
        offsets: vec![0, 3, 5],
        n_heads: 2,
        n_kv_heads: 1,
        head_dim: 4,
        block_size: None,
    };
    let eps = 1e-5;
    check_gradients(
        "block",
        &[
            &[6, D],
            &[D],
            &[D, D],
            &[4, D],
            &[4, D],
            &[6, D],
            &[6, D],
            &[D, 6],
        ],
        |tape, p| {
            let [wte, norm, wq, wk, wv, gate, up, down] = p else {
                unreachable!("eight parameters")
            };
            let table = table(tape.device(), 4);
            let run = |tape: &mut Tape| -> llada_tensor::Result<Var> {
                let x = tape.embedding(wte, &ids)?;
                let norm = Norm {
                    weight: norm.clone(),
                    bias: None,
                    eps,
                };
                let [wq, wk, wv, gate, up, down] = [wq, wk, wv, gate, up, down].map(layer);
                let [q, k, v] = tape.norm_linear(&x, &norm, [&wq, &wk, &wv])?;
                let y = tape.rope_attention([&q, &k, &v], &table, &positions, on_tape(&shape))?;
                let x = tape.add(&x, &y)?;
                let y = tape.swiglu_mlp(&x, &norm, [&gate, &up, &down])?;
                let x = tape.add(&x, &y)?;
                tape.cross_entropy(&x, wte, None, &targets, &weights)
            };
            run(tape).expect("fits")
        },
        |p| {
            use reference::{add, linear, rms_norm};
            let [wte, norm, wq, wk, wv, gate, up, down] = p else {
                unreachable!("eight parameters")
            };
            let eps = f64::from(eps);
            let x = reference::embedding(wte, D, &ids);
            let [h, _] = rms_norm(&x, norm, eps);
            let q = exact_rope(&linear(&h, wq, D), D, 4, &positions);
            let k = exact_rope(&linear(&h, wk, D), 4, 4, &positions);
            let [y, _] = shape.forward(&q, &k, &linear(&h, wv, D));
            let x = add(&x, &y);
            let [h, _] = rms_norm(&x, norm, eps);
            let y = reference::swiglu(&linear(&h, gate, D), &linear(&h, up, D));
            let x = add(&x, &linear(&y, down, 6));
            let [losses, _] = reference::cross_entropy(&linear(&x, wte, D), &targets);
            reference::dot(&losses, &weights.map(f64::from))
        },
    );
}

/// All of a mixture of experts, under each rule.
#[test]
fn of_a_mixture_of_experts() {
    const T: usize = 9;
    const D: usize = 7;
    const F: usize = 5;
    const E: usize = 6;
    let (n_group, topk_group, scale, capacity, eps) = (3, 2, 2.5, 3, 1e-5);
    let groups = RouterRule::Groups {
        n_group,
        topk_group,
        scale,
    };
    let rules = [
        (RouterRule::Softmax, 1),
        (RouterRule::Softmax, 3),
        (groups, 1),
        (groups, 3),
        (RouterRule::Capacity { capacity, scale }, 2),
    ];
    let (bias, runs, score) = (normal(60, E), [0, 4, T], Score::new(T, D));
    let shapes: [&[usize]; 9] = [
        &[T, D],
        &[D],
        &[E, D],
        &[E, F, D],
        &[E, F, D],
        &[E, D, F],
        &[F, D],
        &[F, D],
        &[D, F],
    ];
    for (rule, k) in rules {
        let n_experts = E;
        let router = Router { n_experts, k, rule };
        check_gradients(
            &format!("mixture of experts, {rule:?}"),
            &shapes,
            |tape, p| {
                let [x, norm, router_gate, gate, up, down, shared @ ..] = p else {
                    unreachable!("nine parameters")
                };
                let norm = Norm {
                    weight: norm.clone(),
                    bias: None,
                    eps,
                };
                let shared: Vec<Linear<'_>> = shared.iter().map(layer).collect();
                let moe = Moe {
                    gate: Weight::Tensor(router_gate.clone()),
                    bias: Some(of(tape.device(), &[E], &bias)),
                    router,
                    runs: &runs,
                    experts: [gate, up, down].map(|w| Weight::Tensor(w.clone())),
                    shared: Some([&shared[0], &shared[1], &shared[2]]),
                };
                let (y, _) = tape.moe_mlp(x, &norm, &moe).expect("fits");
                score.on(tape, &y)
            },
            |p| {
                use reference::{add, linear, swiglu};
                let [x, norm, router_gate, gate, up, down, a, b, c] = p else {
                    unreachable!("nine parameters")
                };
                let [h, _] = reference::rms_norm(x, norm, f64::from(eps));
                let logits = linear(&h, router_gate, D);
                let scores = reference::router_scores(router, &logits, Some(&bias));
                let (ids, weights) = reference::route(router, &scores, &runs);
                let y = reference::experts(&h, (&ids, &weights, k), [gate, up, down], [D, F]);
                let shared = swiglu(&linear(&h, a, D), &linear(&h, b, D));
                score.exact(&add(&y, &linear(&shared, c, F)))
            },
        );
    }
}

#[test]
fn backward_adds_to_what_is_there() {
    let device = scalar();
    let x = of(device, &[1, 2], &[1.0, 2.0]);
    let head = Var::constant(of(device, &[2, 2], &[1.0, 0.0, 0.0, 1.0]));
    let mut gradients = Gradients::zeros_like([&x]).unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut tape = Tape::recording(device, Precision::F32);
        let var = tape.parameter(0, &x);
        let loss = tape.cross_entropy(&var, &head, None, &[0], &[1.0]);
        tape.backward(&loss.expect("fits"), &mut gradients)
            .expect("a scalar");
        seen.push(gradients.tensors()[0].to_vec_f32().unwrap());
    }
    let doubled: Vec<f32> = seen[0].iter().map(|x| 2.0 * x).collect();
    assert_eq!(seen[1], doubled);
    gradients.zero().expect("not shared");
    assert_eq!(gradients.tensors()[0].to_vec_f32().unwrap(), [0.0, 0.0]);
}

#[test]
fn a_parameter_can_be_the_loss() {
    let x = of(scalar(), &[1], &[3.0]);
    let mut gradients = Gradients::zeros_like([&x]).unwrap();
    let mut tape = Tape::recording(scalar(), Precision::F32);
    let loss = tape.parameter(0, &x);
    tape.backward(&loss, &mut gradients).expect("a scalar");
    assert_eq!(gradients.tensors()[0].to_vec_f32().unwrap(), [1.0]);
}

#[test]
fn gradients_are_named_as_soon_as_they_are_final() {
    let device = scalar();
    let [table, norm, head, unused] = [
        of(device, &[2, 2], &[1.0, 2.0, -1.0, 0.5]),
        of(device, &[2], &[1.0, 3.0]),
        of(device, &[2, 2], &[1.0, 0.5, 0.25, 1.0]),
        of(device, &[1], &[1.0]),
    ];
    let mut gradients = Gradients::zeros_like([&table, &norm, &head, &unused]).unwrap();
    let mut tape = Tape::recording(device, Precision::F32);
    // All are on the tape from the beginning; it is the ops that tell which is final when.
    let parameters = [&table, &norm, &head, &unused];
    let vars = [0, 1, 2, 3].map(|index| tape.parameter(index, parameters[index]));
    let x = tape.embedding(&vars[0], &[0, 1, 1]).unwrap();
    let x = tape.rms_norm(&x, &vars[1], 1e-5).unwrap();
    let x = tape.linear(&x, &vars[2], None).unwrap();
    // Of one used twice, the op that is played last counts.
    let x = tape.rms_norm(&x, &vars[1], 1e-5).unwrap();
    let loss = tape.cross_entropy(&x, &vars[2], None, &[0, 1, 0], &[1.0, 0.5, 2.0]);

    let mut named: Vec<(usize, Vec<f32>)> = Vec::new();
    let is_zero = |x: &Tensor| x.to_vec_f32().unwrap().iter().all(|&x| x == 0.0);
    let mut on_final = |index: usize, gradients: &Gradients| {
        let so_far = gradients.tensors();
        named.push((index, so_far[index].to_vec_f32().unwrap()));
        assert_eq!(is_zero(&so_far[0]), index != 0, "the rest is still to come");
        Ok(())
    };
    tape.backward_with(&loss.unwrap(), &mut gradients, &mut on_final)
        .unwrap();
    let order: Vec<usize> = named.iter().map(|(index, _)| *index).collect();
    assert_eq!(order, [2, 1, 0]);
    for (index, gradient) in named {
        assert_eq!(gradient, gradients.tensors()[index].to_vec_f32().unwrap());
    }
}
