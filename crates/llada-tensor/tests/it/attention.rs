//! Fused attention and its gradient.

use std::num::NonZeroUsize;

use llada_tensor::backend::{AttentionArgs, AttentionBackwardArgs, AttentionShape};
use llada_tensor::ops::attention::{backward_cost, cost};
use llada_tensor::{CpuLevel, DType, Device, Precision, Tape, Tensor, Var};
use proptest::prelude::*;

use crate::reference::Attention;
use crate::support::{check_levels, devices, levels, max_error, normal, of, same_bits, widen};

/// Queries, keys, values and the gradient of the output.
pub(crate) struct Inputs {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dy: Vec<f32>,
}

impl Inputs {
    pub(crate) fn new(shape: &Attention) -> Self {
        let q_len = shape.tokens() * shape.n_heads * shape.head_dim;
        let k_len = shape.tokens() * shape.n_kv_heads * shape.head_dim;
        Self {
            q: normal(1, q_len),
            k: normal(2, k_len),
            v: normal(3, k_len),
            dy: normal(4, q_len),
        }
    }

    /// The tokens of one range.
    fn part(&self, shape: &Attention, tokens: std::ops::Range<usize>) -> Self {
        let part = |x: &[f32], heads: usize| {
            let width = heads * shape.head_dim;
            x[tokens.start * width..tokens.end * width].to_vec()
        };
        Self {
            q: part(&self.q, shape.n_heads),
            k: part(&self.k, shape.n_kv_heads),
            v: part(&self.v, shape.n_kv_heads),
            dy: part(&self.dy, shape.n_heads),
        }
    }

    /// Outputs `y`, the log-sum-exp, `dq`, `dk` and `dv`.
    pub(crate) fn run(&self, device: &Device, shape: &Attention) -> Vec<Vec<f32>> {
        self.run_in(device, shape, Precision::F32)
    }

    fn run_in(&self, device: &Device, shape: &Attention, precision: Precision) -> Vec<Vec<f32>> {
        let tokens = shape.tokens();
        let q_shape = [tokens, shape.n_heads * shape.head_dim];
        let k_shape = [tokens, shape.n_kv_heads * shape.head_dim];
        let empty = |shape: &[usize]| Tensor::empty(device, DType::F32, shape).unwrap();
        let (q, k) = (of(device, &q_shape, &self.q), of(device, &k_shape, &self.k));
        let (v, dy) = (
            of(device, &k_shape, &self.v),
            of(device, &q_shape, &self.dy),
        );
        let (mut y, mut lse) = (empty(&q_shape), empty(&[tokens, shape.n_heads]));
        let (mut dq, mut dk, mut dv) = (empty(&q_shape), empty(&k_shape), empty(&k_shape));
        let heads = AttentionShape {
            offsets: &shape.offsets,
            key_offsets: None,
            n_heads: shape.n_heads,
            n_kv_heads: shape.n_kv_heads,
            block_size: shape.block_size,
        };
        let args = AttentionArgs {
            q: &q,
            k: &k,
            v: &v,
            shape: heads,
            precision,
            y: &mut y,
            lse: &mut lse,
        };
        device.backend().attention(args).expect("fits");
        let args = AttentionBackwardArgs {
            q: &q,
            k: &k,
            v: &v,
            shape: heads,
            precision,
            y: &y,
            lse: &lse,
            dy: &dy,
            dq: &mut dq,
            dk: &mut dk,
            dv: &mut dv,
        };
        device.backend().attention_backward(args).expect("fits");
        [y, lse, dq, dk, dv]
            .map(|x| x.to_vec_f32().unwrap())
            .to_vec()
    }
}

pub(crate) fn attention(offsets: &[usize], heads: [usize; 2], head_dim: usize) -> Attention {
    Attention {
        offsets: offsets.to_vec(),
        n_heads: heads[0],
        n_kv_heads: heads[1],
        head_dim,
        block_size: None,
    }
}

/// The longest sum is over a sequence's queries and the query heads of a group, or over a head.
#[track_caller]
fn check(shape: &Attention) {
    let inputs = Inputs::new(shape);
    let [q, k, v, dy] = [&inputs.q, &inputs.k, &inputs.v, &inputs.dy].map(|x| widen(x));
    let exact = [
        &shape.forward(&q, &k, &v)[..],
        &shape.backward(&q, &k, &v, &dy)[..],
    ]
    .concat();
    let longest = shape.offsets.windows(2).map(|w| w[1] - w[0]).max();
    let terms = longest.unwrap_or(0) * shape.n_heads / shape.n_kv_heads + shape.head_dim;
    let Attention {
        offsets,
        n_heads,
        n_kv_heads,
        head_dim,
        block_size,
    } = shape;
    let name =
        format!("attention {offsets:?} {n_heads}/{n_kv_heads}x{head_dim} blocks of {block_size:?}");
    check_levels(&name, terms, &exact, |device| inputs.run(device, shape));
}

#[test]
fn agrees_with_f64() {
    check(&attention(&[0], [1, 1], 4));
    check(&attention(&[0, 1], [1, 1], 2));
    check(&attention(&[0, 0, 5, 5, 18], [2, 1], 16));
    check(&attention(&[0, 95, 191, 288], [2, 2], 8));
    check(&attention(&[0, 200], [4, 2], 72));
    // Causal; blocks smaller and larger than a block of queries, of keys, and than a sequence.
    for size in [1, 5, 32, 96, 100, 150, 1000, usize::MAX] {
        check(&Attention {
            block_size: NonZeroUsize::new(size),
            ..attention(&[0, 7, 200], [2, 1], 20)
        });
    }
}

#[test]
fn a_sequence_does_not_depend_on_its_batch_mates() {
    let shape = attention(&[0, 33, 150, 161], [4, 2], 24);
    let inputs = Inputs::new(&shape);
    let each = [Precision::F32, Precision::Bf16];
    let cases = devices()
        .iter()
        .flat_map(|device| each.map(|p| (device, p)));
    for ((name, device), precision) in cases {
        let together = inputs.run_in(device, &shape, precision);
        for bounds in shape.offsets.windows(2) {
            let (first, end) = (bounds[0], bounds[1]);
            let alone = Attention {
                offsets: vec![0, end - first],
                ..shape.clone()
            };
            let alone = inputs
                .part(&shape, first..end)
                .run_in(device, &alone, precision);
            for (together, alone) in together.iter().zip(&alone) {
                let width = together.len() / shape.tokens();
                same_bits(name, &together[first * width..end * width], alone);
            }
        }
    }
}

/// Some queries of each sequence against all of its keys, as with a cache.
#[test]
fn a_window_of_queries_gets_the_rows_of_the_whole() {
    let shape = attention(&[0, 130, 151], [4, 2], 24);
    let inputs = Inputs::new(&shape);
    let each = [Precision::F32, Precision::Bf16];
    let cases = devices()
        .iter()
        .flat_map(|device| each.map(|p| (device, p)));
    for ((name, device), precision) in cases {
        let whole = &inputs.run_in(device, &shape, precision)[0];
        let (q_width, k_width) = (4 * 24, 2 * 24);
        let rows = |x: &[f32], range: std::ops::Range<usize>| {
            x[range.start * q_width..range.end * q_width].to_vec()
        };
        // 30 queries of the first sequence, all but one of the second.
        let windows = |x: &[f32]| [rows(x, 97..127), rows(x, 131..151)].concat();
        let q = of(device, &[50, q_width], &windows(&inputs.q));
        let [k, v] = [&inputs.k, &inputs.v].map(|x| of(device, &[151, k_width], x));
        let [q, k, v] = [q, k, v].map(Var::constant);
        let shape = AttentionShape {
            offsets: &[0, 30, 50],
            key_offsets: Some(&[0, 130, 151]),
            n_heads: 4,
            n_kv_heads: 2,
            block_size: None,
        };
        let mut tape = Tape::inference(device, precision);
        let y = tape.attention(&q, &k, &v, shape).expect("fits");
        same_bits(name, &y.value().to_vec_f32().unwrap(), &windows(whole));
    }
}

/// The sequence before it has both.
#[test]
fn a_query_without_keys_has_no_output() {
    let each = [Precision::F32, Precision::Bf16];
    let cases = devices()
        .iter()
        .flat_map(|device| each.map(|p| (device, p)));
    for ((name, device), precision) in cases {
        let empty = |shape: &[usize]| Tensor::empty(device, DType::F32, shape).unwrap();
        let q = of(device, &[5, 8], &normal(1, 40));
        let [k, v] = [2, 3].map(|key| of(device, &[3, 4], &normal(key, 12)));
        let (mut y, mut lse) = (empty(&[5, 8]), empty(&[5, 2]));
        let args = AttentionArgs {
            q: &q,
            k: &k,
            v: &v,
            shape: AttentionShape {
                offsets: &[0, 2, 5],
                key_offsets: Some(&[0, 3, 3]),
                n_heads: 2,
                n_kv_heads: 1,
                block_size: None,
            },
            precision,
            y: &mut y,
            lse: &mut lse,
        };
        device.backend().attention(args).expect("fits");
        let [y, lse] = [y, lse].map(|x| x.to_vec_f32().unwrap());
        assert!(y[..16].iter().all(|&x| x != 0.0), "{name}");
        same_bits(name, &y[16..], &[0.0; 24]);
        same_bits(name, &lse[4..], &[f32::NEG_INFINITY; 6]);
    }
}

/// With operands rounded to bf16: a score is off by at most twice the rounding of its terms, a
/// probability by twice the largest such error and its own rounding.
#[track_caller]
fn check_bf16(shape: &Attention) {
    const ROUNDING: f64 = 1.0 / 256.0;
    let inputs = Inputs::new(shape);
    let [q, k, v] = [&inputs.q, &inputs.k, &inputs.v].map(|x| widen(x));
    let exact = shape.forward(&q, &k, &v);
    let largest = |x: &[f64]| x.iter().fold(0.0_f64, |max, x| x.abs().max(max));
    let norm = |x: &[f64]| {
        let rows = x.chunks_exact(shape.head_dim);
        rows.map(|row| row.iter().map(|x| x * x).sum::<f64>().sqrt())
            .fold(0.0, f64::max)
    };
    let score = ROUNDING * norm(&q) * norm(&k) / (shape.head_dim as f64).sqrt();
    let bounds = [(2.0 * score + ROUNDING) * 2.0 * largest(&v), 2.0 * score];
    // Per level one device with one thread and one with two.
    for level in devices().chunks_exact(2) {
        let mut of_level: Option<Vec<Vec<f32>>> = None;
        for (name, device) in level {
            for precision in [Precision::Bf16, Precision::Int8] {
                let mut outputs = inputs.run_in(device, shape, precision);
                outputs.truncate(2);
                for ((output, exact), bound) in outputs.iter().zip(&exact).zip(bounds) {
                    let error = max_error(output, exact);
                    assert!(error <= bound, "{name} {shape:?}: {error:e} > {bound:e}");
                }
                let before = of_level.get_or_insert_with(|| outputs.clone());
                for (x, y) in before.iter().zip(&outputs) {
                    same_bits(name, x, y);
                }
            }
        }
    }
}

#[test]
fn agrees_with_f64_in_bf16() {
    check_bf16(&attention(&[0], [1, 1], 4));
    check_bf16(&attention(&[0, 0, 5, 5, 18], [2, 1], 16));
    check_bf16(&attention(&[0, 95, 191, 488], [2, 2], 8));
    check_bf16(&attention(&[0, 300], [4, 2], 72));
    for size in [1, 5, 32, 256, 300, usize::MAX] {
        check_bf16(&Attention {
            block_size: NonZeroUsize::new(size),
            ..attention(&[0, 7, 400], [2, 1], 20)
        });
    }
}

/// With operands rounded to bf16, by at most a 256th of each, the gradients of each sequence in the
/// root of the mean square: roundings are independent, and a sum is off, relative to itself, by as
/// much as its terms. A term has eight roundings at most: of a query and a key in a score, which is
/// about one; of a value and a gradient of the output; of a probability and a value in the output;
/// and of both operands of the sum.
/// A gradient that cancels is measured against what it is over all sequences.
#[track_caller]
fn check_gradient_bf16(shape: &Attention) {
    const ROUNDING: f64 = 1.0 / 256.0;
    let inputs = Inputs::new(shape);
    let [q, k, v, dy] = [&inputs.q, &inputs.k, &inputs.v, &inputs.dy].map(|x| widen(x));
    let exact = shape.backward(&q, &k, &v, &dy);
    let squares = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>();
    // Per level one device with one thread and one with two.
    for level in devices().chunks_exact(2) {
        let [one, two] = [0, 1].map(|at| inputs.run_in(&level[at].1, shape, Precision::Bf16));
        let name = &level[0].0;
        for ((one, two), exact) in one.iter().zip(&two).skip(2).zip(&exact) {
            same_bits(name, one, two);
            let width = exact.len() / shape.tokens();
            for bounds in shape.offsets.windows(2) {
                let part = bounds[0] * width..bounds[1] * width;
                let share = part.len() as f64 / exact.len() as f64;
                let size = squares(&exact[part.clone()]).max(share * squares(exact));
                let errors = one[part.clone()].iter().zip(&exact[part]);
                let errors: Vec<f64> = errors.map(|(&x, exact)| f64::from(x) - exact).collect();
                let (error, bound) = (squares(&errors).sqrt(), (8.0 * size).sqrt() * ROUNDING);
                assert!(
                    error <= bound,
                    "{name} {shape:?} {bounds:?}: {error:e} > {bound:e}"
                );
            }
        }
    }
}

#[test]
fn gradients_agree_with_f64_in_bf16() {
    // 0, 1, 31, 32, 33, 100, 128 and 300 tokens.
    let ragged = [0, 0, 1, 32, 64, 97, 197, 325, 625];
    for head_dim in [16, 32, 64, 80] {
        check_gradient_bf16(&attention(&ragged, [2, 1], head_dim));
    }
    check_gradient_bf16(&attention(&ragged, [3, 3], 6));
    check_gradient_bf16(&attention(&[0, 70, 145], [6, 2], 40));
    for size in [1, 5, 32, 48, 128, 256, 300, usize::MAX] {
        check_gradient_bf16(&Attention {
            block_size: NonZeroUsize::new(size),
            ..attention(&[0, 7, 140, 540], [2, 1], 20)
        });
    }
}

/// The delta takes the gradient of the output as rounded as the products do: else a query with one
/// key, and the key, would get gradients.
#[test]
fn a_single_key_has_no_slope() {
    const E: usize = 64;
    let shape = attention(&[0, 1], [2, 1], E);
    let inputs = Inputs::new(&shape);
    let largest = |x: &[f32]| x.iter().fold(0.0_f32, |max, x| x.abs().max(max));
    let products = |dy: &[f32]| (dy.iter().zip(&inputs.v).map(|(dy, v)| (dy * v).abs())).sum();
    let terms: Vec<f32> = inputs.dy.chunks_exact(E).map(products).collect();
    // The difference of two sums of as many terms, in `f32`; the key has it of two queries.
    let slope = E as f32 * f32::EPSILON * largest(&terms);
    let operand = largest(&inputs.q).max(largest(&inputs.k));
    let bound = 2.0 * slope * operand / (E as f32).sqrt();
    for (name, device) in devices() {
        let outputs = inputs.run_in(device, &shape, Precision::Bf16);
        for x in &outputs[2..4] {
            assert!(largest(x) <= bound, "{name}: {} > {bound}", largest(x));
        }
    }
}

/// Keys that only pad a block have scores of 0, which are nothing like the others here.
#[test]
fn scores_far_below_zero_have_finite_gradients() {
    let shape = attention(&[0, 33], [2, 1], 16);
    let mut inputs = Inputs::new(&shape);
    inputs.q.fill(30.0);
    inputs.k.iter_mut().for_each(|k| *k = *k / 64.0 - 20.0);
    for (name, device) in devices() {
        for x in inputs.run_in(device, &shape, Precision::Bf16) {
            assert!(x.iter().all(|x| x.is_finite()), "{name}");
        }
    }
}

#[test]
fn training_in_bf16_multiplies_bf16_where_the_machine_does() {
    for (level, of_level) in levels().iter().zip(devices().chunks_exact(2)) {
        let backend = of_level[0].1.backend();
        let expected = match level {
            CpuLevel::Amx | CpuLevel::Avx512Bf16 => Precision::Bf16,
            _ => Precision::F32,
        };
        assert_eq!(backend.attention_gradient(Precision::Bf16), expected);
        assert_eq!(backend.attention_gradient(Precision::F32), Precision::F32);
    }
}

#[test]
fn only_pairs_that_are_seen_cost() {
    let offsets = [0, 0, 5, 18];
    for size in [0, 1, 4, 5, 13, 100, usize::MAX].map(NonZeroUsize::new) {
        let sees = |i: usize, j: usize| size.is_none_or(|size| j / size <= i / size);
        let of_sequence = |n: usize| {
            let seen = |i: usize| (0..n).filter(|&j| sees(i, j)).count();
            (0..n).map(seen).sum::<usize>()
        };
        let pairs = (of_sequence(5) + of_sequence(13)) as u64;
        assert_eq!(cost(&offsets, size, 4, 2, 8).flops, 4 * pairs * 4 * 8);
        assert_eq!(
            backward_cost(&offsets, size, 4, 2, 8).flops,
            10 * pairs * 4 * 8
        );
    }
}

/// Scores of hundreds do not overflow: the output is the value of the best key.
#[test]
fn large_scores_pick_the_best_key() {
    let shape = attention(&[0, 120], [1, 1], 4);
    let mut inputs = Inputs::new(&shape);
    inputs.q.fill(30.0);
    inputs.k.fill(-20.0);
    inputs.k[97 * 4..98 * 4].fill(20.0);
    for (name, device) in devices() {
        let y = &inputs.run(device, &shape)[0];
        for row in y.chunks_exact(4) {
            same_bits(name, row, &inputs.v[97 * 4..98 * 4]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]
    #[test]
    fn odd_shapes(
        lengths in prop::collection::vec(prop_oneof![3 => 0usize..40, 1 => 90usize..201], 1..4),
        n_kv_heads in 1usize..3,
        group in 1usize..4,
        half in 1usize..37,
        block_size in (0usize..120).prop_map(NonZeroUsize::new),
    ) {
        let ends = lengths.iter().scan(0, |end, n| {
            *end += n;
            Some(*end)
        });
        let offsets: Vec<usize> = std::iter::once(0).chain(ends).collect();
        let shape = attention(&offsets, [n_kv_heads * group, n_kv_heads], 2 * half);
        check(&Attention { block_size, ..shape });
    }
}
