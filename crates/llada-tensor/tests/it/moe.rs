//! The experts of a mixture, and that nothing depends on what it must not.

use std::ops::Range;
use std::sync::Arc;

use llada_tensor::backend::PackedWeight;
use llada_tensor::layers::{Linear, Moe, Norm, Weight};
use llada_tensor::ops::matmul::{linear_each, pack};
use llada_tensor::ops::moe::{RouterRule, Routes, pack_expert_codes, pack_experts};
use llada_tensor::quantize::{RowCodes, groups, padded, quantize_rows};
use llada_tensor::{CpuConfig, CpuLevel, Device, Error, Gradients, Precision, Tape, Tensor, Var};
use proptest::prelude::*;

use crate::reference;
use crate::routing::{SOFTMAX, route, router};
use crate::support::{check_levels, devices, levels, normal, of, same_bits, scalar, tensor, widen};

/// Sizes `[T, D, F, E, k]` of a test.
#[derive(Debug, Clone, Copy)]
struct Case {
    t: usize,
    d: usize,
    f: usize,
    e: usize,
    k: usize,
}

impl Case {
    const fn new([t, d, f, e, k]: [usize; 5]) -> Self {
        Self { t, d, f, e, k }
    }

    /// `x` and the logits.
    fn inputs(self) -> [Vec<f32>; 2] {
        [normal(3, self.t * self.d), normal(4, self.t * self.e)]
    }

    /// Shapes of gate, up and down.
    fn shapes(self) -> [[usize; 3]; 3] {
        let Self { d, f, e, .. } = self;
        [[e, f, d], [e, f, d], [e, d, f]]
    }

    /// Gate, up and down, such that outputs are about one.
    fn experts(self) -> [Vec<f32>; 3] {
        let mut seed = 5;
        self.shapes().map(|shape| {
            seed += 1;
            let scale = 1.0 / (shape[2] as f32).sqrt();
            let values = normal(seed, shape.iter().product());
            values.into_iter().map(|x| x * scale).collect()
        })
    }

    fn routes(self, tape: &mut Tape, logits: &[f32]) -> Routes {
        let device = tape.device().clone();
        let logits = Var::constant(of(&device, &[logits.len() / self.e, self.e], logits));
        tape.route(&logits, None, &router(self.e, self.k, SOFTMAX), &[])
            .expect("fits")
    }

    fn packed(
        self,
        device: &Device,
        experts: &[Vec<f32>; 3],
        precision: Precision,
    ) -> [Arc<dyn PackedWeight>; 3] {
        let shapes = self.shapes();
        [0, 1, 2].map(|i| {
            let fill = |rows: Range<usize>, out: &mut [f32]| {
                let k = shapes[i][2];
                out.copy_from_slice(&experts[i][rows.start * k..rows.end * k]);
            };
            let packed = pack_experts(device, shapes[i], precision, &fill).expect("fits");
            let [e, n, k] = shapes[i];
            assert_eq!([packed.n(), packed.k()], [e * n, k]);
            packed
        })
    }

    /// The op, with packed weights.
    fn on(
        self,
        device: &Device,
        precision: Precision,
        [x, logits]: &[Vec<f32>; 2],
        experts: &[Vec<f32>; 3],
    ) -> Vec<f32> {
        let mut tape = Tape::inference(device, precision);
        let routes = self.routes(&mut tape, logits);
        let packed = self.packed(device, experts, precision);
        let weights = packed.each_ref().map(Weight::Packed);
        let x = Var::constant(of(device, &[logits.len() / self.e, self.d], x));
        let y = tape.experts(&x, &routes, weights.each_ref());
        y.expect("fits").value().to_vec_f32().unwrap()
    }

    /// The op, with weights as tensors.
    fn on_tensors(
        self,
        device: &Device,
        precision: Precision,
        [x, logits]: &[Vec<f32>; 2],
        experts: &[Vec<f32>; 3],
    ) -> Vec<f32> {
        let mut tape = Tape::inference(device, precision);
        let routes = self.routes(&mut tape, logits);
        let shapes = self.shapes();
        let weights = [0, 1, 2].map(|i| {
            let weight = of(device, &shapes[i], &experts[i]);
            Weight::Tensor(Var::constant(weight))
        });
        let x = Var::constant(of(device, &[self.t, self.d], x));
        let y = tape.experts(&x, &routes, weights.each_ref());
        y.expect("fits").value().to_vec_f32().unwrap()
    }

    /// What dense layers make of the rows of each expert, added up in ascending order.
    fn dense(
        self,
        (device, level): (&Device, CpuLevel),
        precision: Precision,
        [x, logits]: &[Vec<f32>; 2],
        experts: &[Vec<f32>; 3],
    ) -> Vec<f32> {
        let Self { t, d, f, e, k } = self;
        let mut tape = Tape::inference(device, precision);
        let routes = self.routes(&mut tape, logits);
        let ids = routes.ids().unwrap();
        let route_weights = routes.weights().value().to_vec_f32().unwrap();
        let mut y = vec![0.0; t * d];
        for expert in 0..e {
            let pairs: Vec<usize> = (0..t * k).filter(|&at| ids[at] == expert as u32).collect();
            if pairs.is_empty() || d * f == 0 {
                continue;
            }
            let rows = pairs.iter().flat_map(|at| &x[at / k * d..][..d]);
            let rows: Vec<f32> = rows.copied().collect();
            let rows = of(device, &[pairs.len(), d], &rows);
            let [gate, up, down] = [(0, [f, d]), (1, [f, d]), (2, [d, f])].map(|(i, [n, k])| {
                let w = of(device, &[n, k], &experts[i][expert * n * k..][..n * k]);
                pack(&w, precision).expect("a matrix")
            });
            let [gate, up] = linear_each(&rows, [&gate, &up], precision).expect("fits");
            let h = tape.swiglu(&Var::constant(gate), &Var::constant(up));
            let [o] = linear_each(h.expect("fits").value(), [&down], precision).expect("fits");
            for (pair, o) in pairs.iter().zip(o.to_vec_f32().unwrap().chunks(d)) {
                for (y, o) in y[pair / k * d..].iter_mut().zip(o) {
                    let weight = route_weights[*pair];
                    *y = match level {
                        CpuLevel::Scalar => weight * o + *y,
                        _ => weight.mul_add(*o, *y),
                    };
                }
            }
        }
        y
    }
}

const PRECISIONS: [Precision; 4] = [
    Precision::F32,
    Precision::Bf16,
    Precision::Int8,
    Precision::Int4,
];

/// In `f32` against `f64`; in every precision the bits of dense layers.
#[track_caller]
fn check(case: Case) {
    let (inputs, experts) = (case.inputs(), case.experts());
    let (ids, weights) = route(
        scalar(),
        router(case.e, case.k, SOFTMAX),
        &inputs[1],
        None,
        &[],
    );
    let wide = experts.each_ref().map(|w| widen(w));
    let exact = reference::experts(
        &widen(&inputs[0]),
        (&ids, &widen(&weights), case.k),
        wide.each_ref().map(|w| &w[..]),
        [case.d, case.f],
    );
    let name = format!("{case:?}");
    check_levels(&name, case.d + case.f + case.k, &[exact], |device| {
        vec![case.on(device, Precision::F32, &inputs, &experts)]
    });
    for (&level, pair) in levels().iter().zip(devices().chunks(2)) {
        for precision in PRECISIONS {
            let (name, device) = &pair[0];
            let name = format!("{name} {case:?} {precision:?}");
            let dense = case.dense((device, level), precision, &inputs, &experts);
            for (_, device) in pair {
                let y = case.on(device, precision, &inputs, &experts);
                same_bits(&name, &y, &dense);
                if !precision.is_integer() {
                    let y = case.on_tensors(device, precision, &inputs, &experts);
                    same_bits(&format!("{name}, tensors"), &y, &dense);
                }
            }
        }
    }
}

#[test]
fn experts_agree_with_f64_and_with_dense_layers() {
    for sizes in [
        [0, 8, 8, 3, 2],
        [1, 1, 1, 3, 1],
        [1, 64, 32, 8, 2],
        [5, 33, 17, 3, 3],
        [5, 0, 4, 3, 2],
        [5, 4, 0, 3, 2],
        [33, 70, 40, 17, 4],
        [70, 40, 65, 5, 2],
        [70, 300, 97, 4, 1],
        [140, 64, 96, 3, 3],
    ] {
        check(Case::new(sizes));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn odd_sizes(t in 0_usize..50, d in 1_usize..80, f in 1_usize..80, e in 3_usize..18, k in 1_usize..4) {
        check(Case::new([t, d, f, e, k]));
    }
}

/// Logits with which every token takes the same experts.
fn logits_for(case: Case, taken: &[usize]) -> Vec<f32> {
    let mut logits = vec![0.0; case.t * case.e];
    for row in logits.chunks_mut(case.e) {
        for &e in taken {
            row[e] = 5.0;
        }
    }
    logits
}

#[test]
fn all_tokens_can_take_one_expert_and_others_are_not_read() {
    let case = Case::new([70, 40, 33, 5, 1]);
    let ([x, _], mut experts) = (case.inputs(), case.experts());
    let inputs = [x, logits_for(case, &[3])];
    for (at, w) in experts.iter_mut().enumerate() {
        let n = case.shapes()[at][1..].iter().product::<usize>();
        for (i, w) in w.iter_mut().enumerate() {
            if i / n != 3 {
                *w = f32::NAN;
            }
        }
    }
    for (&level, pair) in levels().iter().zip(devices().chunks(2)) {
        for precision in PRECISIONS {
            let (name, device) = &pair[1];
            let y = case.on(device, precision, &inputs, &experts);
            assert!(y.iter().all(|x| x.is_finite()), "{name} {precision:?}");
            let dense = case.dense((device, level), precision, &inputs, &experts);
            same_bits(name, &y, &dense);
        }
    }
}

#[test]
fn a_token_depends_neither_on_other_tokens_nor_on_threads() {
    let case = Case::new([77, 96, 72, 6, 2]);
    let (inputs, experts) = (case.inputs(), case.experts());
    for &level in levels() {
        let device = |threads| {
            let level = Some(level);
            Device::cpu(CpuConfig { threads, level }).expect("available")
        };
        for precision in PRECISIONS {
            let name = format!("{} {precision:?}", level.name());
            let all = case.on(&device(1), precision, &inputs, &experts);
            for threads in [2, 3] {
                let y = case.on(&device(threads), precision, &inputs, &experts);
                same_bits(&name, &y, &all);
            }
            for tokens in [0..1, 20..29, 33..77] {
                let part =
                    |x: &[f32], width: usize| x[tokens.start * width..tokens.end * width].to_vec();
                let some = [part(&inputs[0], case.d), part(&inputs[1], case.e)];
                let y = case.on(&device(2), precision, &some, &experts);
                same_bits(&name, &y, &part(&all, case.d));
            }
        }
    }
}

#[test]
fn codes_of_experts_can_be_kept() {
    let case = Case::new([9, 40, 33, 4, 2]);
    let (inputs, experts) = (case.inputs(), case.experts());
    for precision in [Precision::Int8, Precision::Int4] {
        for (name, device) in devices() {
            let mut tape = Tape::inference(device, precision);
            let routes = case.routes(&mut tape, &inputs[1]);
            let kept = [0, 1, 2].map(|i| {
                let [e, n, k] = case.shapes()[i];
                let (rows, width, n_groups) = (e * n, padded(k), groups(precision, k));
                let (mut codes, mut scales) = (vec![0; rows * width], vec![0.0; rows]);
                let mut multipliers = vec![0; rows * n_groups];
                let out = RowCodes {
                    codes: &mut codes,
                    multipliers: &mut multipliers,
                    scales: &mut scales,
                };
                quantize_rows(device, precision, &experts[i], k, out).expect("fits");
                let fill = |rows: Range<usize>, out: RowCodes<'_>| {
                    let of = |width: usize| rows.start * width..rows.end * width;
                    out.codes.copy_from_slice(&codes[of(width)]);
                    out.multipliers.copy_from_slice(&multipliers[of(n_groups)]);
                    out.scales.copy_from_slice(&scales[of(1)]);
                };
                pack_expert_codes(device, [e, n, k], precision, &fill).expect("fits")
            });
            let x = Var::constant(of(device, &[case.t, case.d], &inputs[0]));
            let weights = kept.each_ref().map(Weight::Packed);
            let y = tape.experts(&x, &routes, weights.each_ref()).expect("fits");
            let expected = case.on(device, precision, &inputs, &experts);
            same_bits(name, &y.value().to_vec_f32().unwrap(), &expected);
        }
    }
}

/// A single expert is a dense gated network, and its gradients have the same bits.
#[test]
fn one_expert_has_the_gradients_of_dense_layers() {
    const T: usize = 37;
    const D: usize = 41;
    const F: usize = 35;
    let stacked: [&[usize]; 4] = [&[T, D], &[1, F, D], &[1, F, D], &[1, D, F]];
    let dense: [&[usize]; 4] = [&[T, D], &[F, D], &[F, D], &[D, F]];
    for precision in [Precision::F32, Precision::Bf16] {
        for (name, device) in devices() {
            let run = |shapes: [&[usize]; 4], op: &dyn Fn(&mut Tape, &[Var]) -> Var| {
                let seeds = 1..;
                let inputs: Vec<Tensor> = shapes
                    .iter()
                    .zip(seeds)
                    .map(|(shape, seed)| tensor(device, shape, seed))
                    .collect();
                let mut tape = Tape::recording(device, precision);
                let mut gradients = Gradients::zeros_like(&inputs).unwrap();
                let vars: Vec<Var> = inputs
                    .iter()
                    .enumerate()
                    .map(|(i, x)| tape.parameter(i, x))
                    .collect();
                let y = op(&mut tape, &vars);
                let head = Var::constant(tensor(device, &[3, D], 9));
                let (targets, weights) = ([1; T], normal(10, T));
                let loss = tape.cross_entropy(&y, &head, None, &targets, &weights);
                tape.backward(&loss.expect("fits"), &mut gradients)
                    .expect("a scalar");
                let all = gradients.tensors().iter().map(|x| x.to_vec_f32().unwrap());
                all.collect::<Vec<_>>()
            };
            let of_expert = run(stacked, &|tape, p| {
                let logits = Var::constant(of(device, &[T, 1], &[0.0; T]));
                let routes = tape.route(&logits, None, &router(1, 1, SOFTMAX), &[]);
                let weights = [1, 2, 3].map(|i| Weight::Tensor(p[i].clone()));
                let y = tape.experts(&p[0], &routes.expect("fits"), weights.each_ref());
                y.expect("fits")
            });
            let of_layers = run(dense, &|tape, p| {
                let gate = tape.linear(&p[0], &p[1], None).expect("fits");
                let up = tape.linear(&p[0], &p[2], None).expect("fits");
                let h = tape.swiglu(&gate, &up).expect("fits");
                tape.linear(&h, &p[3], None).expect("fits")
            });
            for (x, y) in of_expert.iter().zip(&of_layers) {
                same_bits(&format!("{name} {precision:?}"), x, y);
            }
        }
    }
}

/// The layer is its ops in a row, with the router's product in `f32`.
#[test]
fn a_layer_adds_the_routed_and_the_shared_expert() {
    let case = Case::new([21, 40, 33, 5, 2]);
    let (inputs, experts) = (case.inputs(), case.experts());
    let (n_group, topk_group, scale, eps) = (5, 3, 2.5, 1e-6);
    let rule = RouterRule::Groups {
        n_group,
        topk_group,
        scale,
    };
    for precision in PRECISIONS {
        for (name, device) in devices() {
            let router = router(case.e, case.k, rule);
            let gate = tensor(device, &[case.e, case.d], 11);
            let bias = tensor(device, &[case.e], 12);
            let packed = case.packed(device, &experts, precision);
            let [gate_s, up_s, down_s] = [0, 1, 2].map(|i| {
                let [_, n, k] = case.shapes()[i];
                let w = of(device, &[n, k], &experts[i][..n * k]);
                pack(&w, precision).expect("a matrix")
            });
            let layers = [&gate_s, &up_s, &down_s].map(|w| Linear {
                weight: Weight::Packed(w),
                bias: None,
                adapter: None,
            });
            let [a, b, c] = layers.each_ref();
            let norm = Norm {
                weight: Var::constant(tensor(device, &[case.d], 13)),
                bias: None,
                eps,
            };
            let packed_gate = pack(&gate, Precision::F32).expect("a matrix");
            let moe = |weight| Moe {
                gate: weight,
                bias: Some(bias.clone()),
                router,
                runs: &[],
                experts: packed.each_ref().map(Weight::Packed),
                shared: Some([a, b, c]),
            };
            let mut tape = Tape::inference(device, precision);
            let x = Var::constant(of(device, &[case.t, case.d], &inputs[0]));
            let run = |tape: &mut Tape, moe: &Moe<'_>| -> Result<[Vec<f32>; 2], Error> {
                let (y, routes) = tape.moe_mlp(&x, &norm, moe)?;
                Ok([
                    y.value().to_vec_f32()?,
                    routes.weights().value().to_vec_f32()?,
                ])
            };
            let of_packed = run(&mut tape, &moe(Weight::Packed(&packed_gate))).expect("fits");
            let weight = Weight::Tensor(Var::constant(gate.clone()));
            let of_tensor = run(&mut tape, &moe(weight)).expect("fits");
            let steps = |tape: &mut Tape| -> Result<[Vec<f32>; 2], Error> {
                let h = tape.norm(&x, &norm)?;
                let [logits] = linear_each(h.value(), [&packed_gate], Precision::F32)?;
                let routes = tape.route(&Var::constant(logits), Some(&bias), &router, &[])?;
                let weights = packed.each_ref().map(Weight::Packed);
                let y = tape.experts(&h, &routes, weights.each_ref())?;
                let shared = tape.swiglu_mlp(&x, &norm, [a, b, c])?;
                let y = tape.add(&y, &shared)?;
                Ok([
                    y.value().to_vec_f32()?,
                    routes.weights().value().to_vec_f32()?,
                ])
            };
            let expected = steps(&mut tape).expect("fits");
            for at in [0, 1] {
                same_bits(name, &of_packed[at], &expected[at]);
                same_bits(name, &of_tensor[at], &expected[at]);
            }
        }
    }
}

#[test]
fn experts_need_weights_that_fit() {
    let case = Case::new([3, 8, 6, 4, 2]);
    let (inputs, experts) = (case.inputs(), case.experts());
    let device = scalar();
    let run = |precision, weights: [&Weight<'_>; 3], width: usize| -> Result<Var, Error> {
        let mut tape = Tape::inference(device, precision);
        let routes = case.routes(&mut tape, &inputs[1]);
        let x = Var::constant(tensor(device, &[case.t, width], 9));
        tape.experts(&x, &routes, weights)
    };
    let packed = case.packed(device, &experts, Precision::F32);
    let [gate, up, down] = packed.each_ref().map(Weight::Packed);
    let tensors = case
        .shapes()
        .map(|shape| Weight::Tensor(Var::constant(tensor(device, &shape, 1))));
    let [a, b, c] = tensors.each_ref();
    assert!(run(Precision::F32, [&gate, &up, &down], 8).is_ok());
    assert!(run(Precision::F32, [a, b, c], 8).is_ok());
    for weights in [[&gate, &up, &up], [&down, &up, &down], [a, c, c], [a, b, a]] {
        let wrong = run(Precision::F32, weights, 8);
        assert!(
            matches!(wrong, Err(Error::ShapeMismatch { .. })),
            "{wrong:?}"
        );
    }
    let wrong = run(Precision::F32, [&gate, &up, &down], 7);
    assert!(
        matches!(wrong, Err(Error::ShapeMismatch { .. })),
        "{wrong:?}"
    );
    // Two experts of twice the rows have as many rows as four.
    let [fill_gate, fill_up] = [0, 1].map(|i| {
        let values = &experts[i];
        pack_experts(device, [2, 12, 8], Precision::F32, &|rows, out| {
            out.copy_from_slice(&values[rows.start * 8..rows.end * 8]);
        })
        .expect("fits")
    });
    let others = [Weight::Packed(&fill_gate), Weight::Packed(&fill_up)];
    for (precision, weights) in [
        (Precision::F32, [&gate, &up, c]),
        (Precision::Int8, [a, b, c]),
        (Precision::Bf16, [&gate, &up, &down]),
        (Precision::Int4, [&gate, &up, &down]),
        (Precision::F32, [&others[0], &others[1], &down]),
    ] {
        let wrong = run(precision, weights, 8);
        assert!(
            matches!(wrong, Err(Error::InvalidArgument { .. })),
            "{wrong:?}"
        );
    }
    // A stack of experts is no matrix.
    let x: Tensor = tensor(device, &[3, 8], 1);
    let wrong = linear_each(&x, [&packed[0]], Precision::F32);
    assert!(
        matches!(wrong, Err(Error::InvalidArgument { .. })),
        "{wrong:?}"
    );
}
