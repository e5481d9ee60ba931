//! Mixture of experts: the choice, the experts, their gradients.

use std::ops::Range;
use std::sync::Arc;

use llada_tensor::backend::{PackedWeight, Step};
use llada_tensor::layers::Weight;
use llada_tensor::ops::matmul::{linear_each, pack};
use llada_tensor::ops::moe::{Router, RouterRule, Routes, pack_expert_codes, pack_experts};
use llada_tensor::quantize::{RowCodes, groups, padded, quantize_rows};
use llada_tensor::{Device, Error, Gradients, Precision, Result, Tape, Tensor, Var};

use crate::bounds::{as_good_as_scalar, same_bits, widen};
use crate::graphs::calls;
use crate::support::{assert_close, cpu, cuda, values};

const SOFTMAX: RouterRule = RouterRule::Softmax;
const PRECISIONS: [Precision; 4] = [
    Precision::F32,
    Precision::Bf16,
    Precision::Int8,
    Precision::Int4,
];

fn router(n_experts: usize, k: usize, rule: RouterRule) -> Router {
    Router { n_experts, k, rule }
}

/// Ids, weights, and the gradient of the logits for one of the weights.
fn route(
    device: &Device,
    router: Router,
    logits: &[f32],
    bias: Option<&[f32]>,
    runs: &[usize],
) -> (Vec<u32>, [Vec<f32>; 2]) {
    let (e, k) = (router.n_experts, router.k);
    let tokens = logits.len() / e;
    let logits = Tensor::from_f32(device, &[tokens, e], logits).unwrap();
    let bias = bias.map(|bias| Tensor::from_f32(device, &[e], bias).unwrap());
    let mut tape = Tape::recording(device, Precision::F32);
    let var = tape.parameter(0, &logits);
    let routes = tape.route(&var, bias.as_ref(), &router, runs).unwrap();
    let weights = routes.weights().clone();
    let mut gradients = Gradients::zeros_like([&logits]).unwrap();
    let head = Tensor::from_f32(device, &[3, k], &values(90, 3 * k)).unwrap();
    let (targets, factors) = (vec![1; tokens], values(91, tokens));
    let loss = tape.cross_entropy(&weights, &Var::constant(head), None, &targets, &factors);
    tape.backward(&loss.unwrap(), &mut gradients).unwrap();
    let read = |x: &Tensor| x.to_vec_f32().unwrap();
    (
        routes.ids().unwrap(),
        [read(weights.value()), read(&gradients.tensors()[0])],
    )
}

#[track_caller]
fn check_route(router: Router, tokens: usize, runs: &[usize]) {
    let Some(device) = cuda() else { return };
    let e = router.n_experts;
    let logits: Vec<f32> = values(1, tokens * e).iter().map(|x| 3.0 * x).collect();
    let bias = values(2, e);
    for bias in [None, Some(&bias[..])] {
        let name = format!("{router:?}, {tokens} tokens");
        let (ids, of_cpu) = route(&cpu(), router, &logits, bias, runs);
        let (got, of_cuda) = route(&device, router, &logits, bias, runs);
        assert_eq!(got, ids, "{name}");
        // A few roundings of values of about one each, and those of the head's logits.
        for (got, expected) in of_cuda.iter().zip(&of_cpu) {
            assert_close(&name, got, expected, 2e-6, 2e-6);
        }
    }
}

#[test]
fn every_rule_chooses_as_the_cpu_does() {
    let scale = 2.5;
    for tokens in [1, 5, 33] {
        for (e, k) in [(3, 1), (8, 8), (17, 4), (300, 8)] {
            check_route(router(e, k, SOFTMAX), tokens, &[]);
        }
        for (e, k, n_group, topk_group) in [
            (16, 3, 4, 2),
            (12, 1, 6, 1),
            (5, 2, 5, 3),
            (9, 4, 1, 1),
            (256, 8, 8, 4),
        ] {
            let rule = RouterRule::Groups {
                n_group,
                topk_group,
                scale,
            };
            check_route(router(e, k, rule), tokens, &[]);
        }
        for (capacity, k) in [(3, 3), (6, 2), (40, 1)] {
            let rule = RouterRule::Capacity { capacity, scale };
            let middle = tokens / 3;
            check_route(router(17, k, rule), tokens, &[0, middle, middle, tokens]);
        }
    }
}

#[test]
fn ties_and_nan_are_those_of_the_cpu() {
    let Some(device) = cuda() else { return };
    let (n_group, topk_group, scale) = (2, 1, 1.0);
    let groups = RouterRule::Groups {
        n_group,
        topk_group,
        scale,
    };
    let capacity = RouterRule::Capacity { capacity: 2, scale };
    let rows = [
        [0.5; 4],
        [f32::NAN, 9.0, -3.0, f32::NEG_INFINITY],
        [1.0, 2.0, 2.0, 1.0],
        [f32::NAN; 4],
    ];
    let runs = [0, 1, 2, 4];
    for rule in [SOFTMAX, groups, capacity] {
        let router = router(4, 2, rule);
        let [of_cpu, of_cuda] = [&cpu(), &device].map(|device| {
            let mut tape = Tape::inference(device, Precision::F32);
            let logits = Tensor::from_f32(device, &[4, 4], rows.as_flattened()).unwrap();
            let routes = tape.route(&Var::constant(logits), None, &router, &runs);
            let routes = routes.unwrap();
            let weights = routes.weights().value().to_vec_f32().unwrap();
            (routes.ids().unwrap(), weights)
        });
        assert_eq!(of_cuda.0, of_cpu.0, "{rule:?}");
        assert_close("weights", &of_cuda.1, &of_cpu.1, 0.0, 1e-6);
    }
}

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
        [values(3, self.t * self.d), values(4, self.t * self.e)]
    }

    /// Shapes of gate, up and down.
    fn shapes(self) -> [[usize; 3]; 3] {
        let Self { d, f, e, .. } = self;
        [[e, f, d], [e, f, d], [e, d, f]]
    }

    fn experts(self) -> [Vec<f32>; 3] {
        let mut key = 5;
        self.shapes().map(|shape| {
            key += 1;
            let scale = 2.0 / (shape[2] as f32).sqrt();
            let values = values(key, shape.iter().product());
            values.into_iter().map(|x| x * scale).collect()
        })
    }

    fn routes(self, tape: &mut Tape, logits: &[f32]) -> Routes {
        let shape = [logits.len() / self.e, self.e];
        let logits = Tensor::from_f32(tape.device(), &shape, logits).unwrap();
        let router = router(self.e, self.k, SOFTMAX);
        tape.route(&Var::constant(logits), None, &router, &[])
            .unwrap()
    }

    fn packed(self, device: &Device, precision: Precision) -> [Arc<dyn PackedWeight>; 3] {
        let (shapes, experts) = (self.shapes(), self.experts());
        [0, 1, 2].map(|i| {
            let k = shapes[i][2];
            let fill = |rows: Range<usize>, out: &mut [f32]| {
                out.copy_from_slice(&experts[i][rows.start * k..rows.end * k]);
            };
            pack_experts(device, shapes[i], precision, &fill).unwrap()
        })
    }

    fn tensors(self, device: &Device) -> [Tensor; 3] {
        let (shapes, experts) = (self.shapes(), self.experts());
        [0, 1, 2].map(|i| Tensor::from_f32(device, &shapes[i], &experts[i]).unwrap())
    }

    fn run(
        self,
        device: &Device,
        precision: Precision,
        [x, logits]: &[Vec<f32>; 2],
        weights: [&Weight<'_>; 3],
    ) -> Result<Vec<f32>> {
        let mut tape = Tape::inference(device, precision);
        let routes = self.routes(&mut tape, logits);
        let x = Tensor::from_f32(device, &[logits.len() / self.e, self.d], x)?;
        tape.experts(&Var::constant(x), &routes, weights)?
            .value()
            .to_vec_f32()
    }

    /// With packed weights.
    fn on(self, device: &Device, precision: Precision, inputs: &[Vec<f32>; 2]) -> Vec<f32> {
        let packed = self.packed(device, precision);
        let weights = packed.each_ref().map(Weight::Packed);
        self.run(device, precision, inputs, weights.each_ref())
            .unwrap()
    }

    fn on_tensors(self, device: &Device, precision: Precision, inputs: &[Vec<f32>; 2]) -> Vec<f32> {
        let weights = self
            .tensors(device)
            .map(|w| Weight::Tensor(Var::constant(w)));
        self.run(device, precision, inputs, weights.each_ref())
            .unwrap()
    }

    /// What dense layers on the same device make of the rows of each expert, added up in ascending
    /// order.
    fn dense(self, device: &Device, precision: Precision, inputs: &[Vec<f32>; 2]) -> Vec<f32> {
        let Self { t, d, f, e, k } = self;
        let (mut tape, experts) = (Tape::inference(device, precision), self.experts());
        let routes = self.routes(&mut tape, &inputs[1]);
        let ids = routes.ids().unwrap();
        let weights = routes.weights().value().to_vec_f32().unwrap();
        let mut y = vec![0.0_f32; t * d];
        for expert in 0..e {
            let pairs: Vec<usize> = (0..t * k).filter(|&at| ids[at] == expert as u32).collect();
            if pairs.is_empty() {
                continue;
            }
            let rows = pairs.iter().flat_map(|at| &inputs[0][at / k * d..][..d]);
            let rows: Vec<f32> = rows.copied().collect();
            let rows = Tensor::from_f32(device, &[pairs.len(), d], &rows).unwrap();
            let [gate, up, down] = [(0, [f, d]), (1, [f, d]), (2, [d, f])].map(|(i, [n, k])| {
                let w = &experts[i][expert * n * k..][..n * k];
                pack(&Tensor::from_f32(device, &[n, k], w).unwrap(), precision).unwrap()
            });
            let [gate, up] = linear_each(&rows, [&gate, &up], precision).unwrap();
            let h = tape
                .swiglu(&Var::constant(gate), &Var::constant(up))
                .unwrap();
            let [o] = linear_each(h.value(), [&down], precision).unwrap();
            for (pair, o) in pairs.iter().zip(o.to_vec_f32().unwrap().chunks(d)) {
                for (y, o) in y[pair / k * d..].iter_mut().zip(o) {
                    *y = weights[*pair].mul_add(*o, *y);
                }
            }
        }
        y
    }

    /// In `f64`.
    fn exact(self, inputs: &[Vec<f32>; 2]) -> Vec<f64> {
        let Self { d, f, k, .. } = self;
        let mut tape = Tape::inference(&cpu(), Precision::F32);
        let routes = self.routes(&mut tape, &inputs[1]);
        let (ids, x) = (routes.ids().unwrap(), widen(&inputs[0]));
        let weights = widen(&routes.weights().value().to_vec_f32().unwrap());
        let experts = self.experts().map(|w| widen(&w));
        let mut y = vec![0.0; x.len()];
        for (pair, (&id, weight)) in ids.iter().zip(weights).enumerate() {
            let x = &x[pair / k * d..][..d];
            let of = |i: usize| &experts[i][id as usize * d * f..][..d * f];
            let dot = |w: &[f64], x: &[f64]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
            let gate = of(0).chunks(d).map(|w| dot(w, x));
            let h = gate
                .zip(of(1).chunks(d))
                .map(|(g, up)| g / (1.0 + (-g).exp()) * dot(up, x));
            let h: Vec<f64> = h.collect();
            for (y, w) in y[pair / k * d..].iter_mut().zip(of(2).chunks(f)) {
                *y += weight * dot(w, &h);
            }
        }
        y
    }
}

/// On a GPU dense products of bf16 may be those of cuBLASLt, which sums in an order of its own.
fn has_the_order_of_dense_layers(precision: Precision) -> bool {
    precision != Precision::Bf16 || !cfg!(real_gpu)
}

/// In `f32` as good as the scalar code; in every precision the bits of dense layers.
#[track_caller]
fn check(case: Case) {
    let Some(device) = cuda() else { return };
    let inputs = case.inputs();
    let got = case.on(&device, Precision::F32, &inputs);
    let scalar = case.on(&cpu(), Precision::F32, &inputs);
    let terms = case.d + case.f + case.k;
    as_good_as_scalar(
        &format!("{case:?}"),
        terms,
        &got,
        &scalar,
        &case.exact(&inputs),
    );
    for precision in PRECISIONS {
        let name = format!("{case:?} {precision:?}");
        let got = case.on(&device, precision, &inputs);
        if has_the_order_of_dense_layers(precision) {
            same_bits(&name, &got, &case.dense(&device, precision, &inputs));
        }
        if !precision.is_integer() {
            same_bits(&name, &got, &case.on_tensors(&device, precision, &inputs));
        }
    }
}

#[test]
fn experts_have_the_bits_of_dense_layers() {
    for sizes in [
        [1, 1, 1, 3, 1],
        [1, 64, 32, 8, 2],
        [5, 33, 17, 3, 3],
        [33, 70, 40, 17, 4],
        [40, 40, 65, 5, 2],
        [10, 24, 17, 270, 2],
    ] {
        check(Case::new(sizes));
    }
}

#[test]
fn nothing_to_do_is_zero() {
    let Some(device) = cuda() else { return };
    for sizes in [[0, 8, 8, 3, 2], [5, 4, 0, 3, 2], [5, 0, 4, 3, 2]] {
        let case = Case::new(sizes);
        for precision in PRECISIONS {
            let y = case.on(&device, precision, &case.inputs());
            assert_eq!(y, vec![0.0; case.t * case.d], "{sizes:?} {precision:?}");
        }
    }
}

/// One expert has all rows, more than a tile; all others have none.
#[test]
fn a_token_does_not_depend_on_other_tokens() {
    let Some(device) = cuda() else { return };
    let case = Case::new([150, 48, 40, 6, 2]);
    let [x, logits] = case.inputs();
    let mut of_two = vec![0.0; logits.len()];
    for row in of_two.chunks_mut(case.e) {
        (row[1], row[4]) = (5.0, 4.0);
    }
    for logits in [logits, of_two] {
        for precision in PRECISIONS {
            let part = |tokens: Range<usize>| {
                let of =
                    |x: &[f32], width: usize| x[tokens.start * width..tokens.end * width].to_vec();
                case.on(&device, precision, &[of(&x, case.d), of(&logits, case.e)])
            };
            let all = part(0..case.t);
            for tokens in [0..1, 20..29, 60..150] {
                let of_all = &all[tokens.start * case.d..tokens.end * case.d];
                same_bits(&format!("{precision:?}"), &part(tokens.clone()), of_all);
            }
        }
    }
}

#[test]
fn codes_of_experts_can_be_kept() {
    let Some(device) = cuda() else { return };
    let case = Case::new([9, 40, 33, 4, 2]);
    let (inputs, experts) = (case.inputs(), case.experts());
    for precision in [Precision::Int8, Precision::Int4] {
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
            quantize_rows(&device, precision, &experts[i], k, out).unwrap();
            let fill = |rows: Range<usize>, out: RowCodes<'_>| {
                let of = |width: usize| rows.start * width..rows.end * width;
                out.codes.copy_from_slice(&codes[of(width)]);
                out.multipliers.copy_from_slice(&multipliers[of(n_groups)]);
                out.scales.copy_from_slice(&scales[of(1)]);
            };
            pack_expert_codes(&device, [e, n, k], precision, &fill).unwrap()
        });
        let weights = kept.each_ref().map(Weight::Packed);
        let got = case.run(&device, precision, &inputs, weights.each_ref());
        same_bits("kept", &got.unwrap(), &case.on(&device, precision, &inputs));
    }
}

#[test]
fn packed_experts_must_fit() {
    let Some(device) = cuda() else { return };
    let case = Case::new([3, 8, 6, 4, 2]);
    let packed = case.packed(&device, Precision::F32);
    let weights = packed.each_ref().map(Weight::Packed);
    let on_cpu = case.packed(&cpu(), Precision::F32);
    let of_cpu = on_cpu.each_ref().map(Weight::Packed);
    // Two experts of twice the rows have as many rows as four.
    let gate = pack_experts(&device, [2, 12, 8], Precision::F32, &|_, out| out.fill(0.0)).unwrap();
    let other = Weight::Packed(&gate);
    let [a, b, c] = weights.each_ref();
    for (precision, weights) in [
        (Precision::Bf16, [a, b, c]),
        (Precision::Int8, [a, b, c]),
        (Precision::F32, of_cpu.each_ref()),
        (Precision::F32, [&other, b, c]),
    ] {
        let error = case
            .run(&device, precision, &case.inputs(), weights)
            .unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
    }
    let x = Tensor::from_f32(&device, &[3, 8], &values(1, 24)).unwrap();
    let error = linear_each(&x, [&packed[0]], Precision::F32).unwrap_err();
    assert!(error.to_string().contains("several experts"), "{error}");
}

/// Gradients of `x`, the logits and the experts.
fn gradients(device: &Device, case: Case, precision: Precision) -> Vec<Vec<f32>> {
    let [x, logits] = case.inputs();
    let of = |shape: &[usize], values: &[f32]| Tensor::from_f32(device, shape, values).unwrap();
    let [gate, up, down] = case.tensors(device);
    let (x, logits) = (of(&[case.t, case.d], &x), of(&[case.t, case.e], &logits));
    let inputs = [x, logits, gate, up, down];
    let mut tape = Tape::recording(device, precision);
    let mut gradients = Gradients::zeros_like(&inputs).unwrap();
    let vars: Vec<Var> = inputs
        .iter()
        .enumerate()
        .map(|(i, x)| tape.parameter(i, x))
        .collect();
    let router = router(case.e, case.k, SOFTMAX);
    let routes = tape.route(&vars[1], None, &router, &[]).unwrap();
    let weights = [2, 3, 4].map(|i| Weight::Tensor(vars[i].clone()));
    let y = tape.experts(&vars[0], &routes, weights.each_ref()).unwrap();
    let head = Var::constant(of(&[3, case.d], &values(9, 3 * case.d)));
    let (targets, factors) = (vec![1; case.t], values(10, case.t));
    let loss = tape.cross_entropy(&y, &head, None, &targets, &factors);
    tape.backward(&loss.unwrap(), &mut gradients).unwrap();
    let read = |x: &Tensor| x.to_vec_f32().unwrap();
    gradients.tensors().iter().map(read).collect()
}

/// Both round in `f32`, 64 times the last place of the largest value at most; in bf16 a value next to
/// the middle of two may be rounded to the other one, which is 2^-7 of it apart.
#[test]
fn gradients_are_those_of_the_cpu() {
    let Some(device) = cuda() else { return };
    for sizes in [[9, 7, 5, 6, 3], [33, 40, 24, 5, 2], [70, 64, 48, 3, 1]] {
        let case = Case::new(sizes);
        for (precision, relative) in [
            (Precision::F32, 64.0 * f32::EPSILON),
            (Precision::Bf16, 1.0 / 128.0),
        ] {
            let [got, expected] =
                [&device, &cpu()].map(|device| gradients(device, case, precision));
            for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                let name = format!("{case:?} {precision:?}, gradient {i}");
                let largest = expected.iter().fold(0.0_f32, |max, x| x.abs().max(max));
                assert!(largest > 0.0, "{name}");
                assert_close(&name, got, expected, relative * largest.max(1.0), 0.0);
            }
        }
    }
}

/// The host is not asked what was chosen: a recording goes with other choices.
#[test]
fn a_recording_can_choose_otherwise() {
    let Some(device) = cuda() else { return };
    let (tokens, case) = (12, Case::new([40, 48, 40, 6, 2]));
    let [x, logits] = case.inputs();
    for precision in PRECISIONS {
        let packed = case.packed(&device, precision);
        let on = |device: &Device, values: &[f32], width: usize| {
            Tensor::from_f32(device, &[case.t, width], values).unwrap()
        };
        let (all_x, all_logits) = (on(&device, &x, case.d), on(&device, &logits, case.e));
        let recorder = device.backend().recorder().unwrap();
        for round in 0..4_u32 {
            let ids: Vec<u32> = (0..tokens).map(|at| (at * 7 + 9 * round) % 40).collect();
            let step = Step {
                key: &[1],
                inputs: &[&ids],
            };
            let before = calls(c"cuGraphLaunch");
            let got = recorder.run(step, &mut || {
                let mut tape = Tape::inference(&device, precision);
                let [x, logits] = [&all_x, &all_logits].map(|x| Var::constant(x.clone()));
                let x = tape.embedding(&x, &ids)?;
                let logits = tape.embedding(&logits, &ids)?;
                let router = router(case.e, case.k, SOFTMAX);
                let routes = tape.route(&logits, None, &router, &[])?;
                let weights = packed.each_ref().map(Weight::Packed);
                let y = tape.experts(&x, &routes, weights.each_ref())?;
                Ok(y.value().clone())
            });
            let launches = calls(c"cuGraphLaunch").zip(before).map(|(a, b)| a - b);
            let recorded = u64::from(round > 0);
            assert!(launches.is_none_or(|n| n == recorded), "{launches:?}");
            let part = |x: &[f32], width: usize| -> Vec<f32> {
                let rows = ids
                    .iter()
                    .flat_map(|&id| &x[id as usize * width..][..width]);
                rows.copied().collect()
            };
            let inputs = [part(&x, case.d), part(&logits, case.e)];
            let expected = case.on(&device, precision, &inputs);
            let name = format!("{precision:?}, round {round}");
            same_bits(&name, &got.unwrap().to_vec_f32().unwrap(), &expected);
        }
    }
}
