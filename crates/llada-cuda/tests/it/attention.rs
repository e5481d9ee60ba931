//! Fused attention and its gradient, against `f64` and the CPU's scalar code.

use std::num::NonZeroUsize;

use llada_tensor::backend::{AttentionArgs, AttentionBackwardArgs, AttentionShape};
use llada_tensor::{DType, Device, Precision, Tensor};

use crate::support::{cpu, cuda, values};

/// Heads, sequences and masks of a case.
#[derive(Debug, Clone)]
struct Case {
    offsets: Vec<usize>,
    /// Boundaries of the keys, if they are not those of the queries.
    key_offsets: Option<Vec<usize>>,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    block_size: Option<NonZeroUsize>,
}

fn case(offsets: &[usize], [n_heads, n_kv_heads]: [usize; 2], head_dim: usize) -> Case {
    Case {
        offsets: offsets.to_vec(),
        key_offsets: None,
        n_heads,
        n_kv_heads,
        head_dim,
        block_size: None,
    }
}

/// Queries, keys, values and the gradient of the output.
struct Inputs {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dy: Vec<f32>,
}

impl Case {
    fn of_keys(&self) -> &[usize] {
        self.key_offsets.as_deref().unwrap_or(&self.offsets)
    }

    fn q_shape(&self) -> [usize; 2] {
        [
            self.offsets[self.offsets.len() - 1],
            self.n_heads * self.head_dim,
        ]
    }

    fn k_shape(&self) -> [usize; 2] {
        let tokens = self.of_keys()[self.offsets.len() - 1];
        [tokens, self.n_kv_heads * self.head_dim]
    }

    /// Uniform values, the queries three times as large, so that scores differ by a few units.
    fn inputs(&self) -> Inputs {
        let (n_q, n_k) = (
            self.q_shape().iter().product(),
            self.k_shape().iter().product(),
        );
        Inputs {
            q: values(1, n_q).iter().map(|x| 3.0 * x).collect(),
            k: values(2, n_k),
            v: values(3, n_k),
            dy: values(4, n_q),
        }
    }

    /// Whether there is a gradient to compare: it does not depend on the precision.
    fn has_gradient(&self, precision: Precision) -> bool {
        precision == Precision::F32 && self.key_offsets.is_none()
    }

    /// Outputs `y`, the log-sum-exp, and if there is a gradient `dq`, `dk` and `dv`.
    fn run(&self, device: &Device, precision: Precision, inputs: &Inputs) -> Vec<Vec<f32>> {
        let (q_shape, k_shape) = (self.q_shape(), self.k_shape());
        let of = |shape: &[usize], x: &[f32]| Tensor::from_f32(device, shape, x).unwrap();
        let (q, dy) = (of(&q_shape, &inputs.q), of(&q_shape, &inputs.dy));
        let (k, v) = (of(&k_shape, &inputs.k), of(&k_shape, &inputs.v));
        let empty = |shape: &[usize]| Tensor::empty(device, DType::F32, shape).unwrap();
        let (mut y, mut lse) = (empty(&q_shape), empty(&[q_shape[0], self.n_heads]));
        let shape = AttentionShape {
            offsets: &self.offsets,
            key_offsets: self.key_offsets.as_deref(),
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            block_size: self.block_size,
        };
        let args = AttentionArgs {
            q: &q,
            k: &k,
            v: &v,
            shape,
            precision,
            y: &mut y,
            lse: &mut lse,
        };
        device.backend().attention(args).unwrap();
        if !self.has_gradient(precision) {
            return [y, lse].map(|x| x.to_vec_f32().unwrap()).to_vec();
        }
        let [dq, dk, dv] = backward([&q, &k, &v], [&y, &lse, &dy], shape, precision);
        [y, lse, dq, dk, dv]
            .map(|x| x.to_vec_f32().unwrap())
            .to_vec()
    }

    /// The same in `f64`, by the formulas.
    fn exact(&self, precision: Precision, inputs: &Inputs) -> Vec<Vec<f64>> {
        let has_gradient = self.has_gradient(precision);
        let [q, k, v, dy] = [&inputs.q, &inputs.k, &inputs.v, &inputs.dy].map(|x| widen(x));
        let e = self.head_dim;
        let scale = 1.0 / (e as f64).sqrt();
        let [mut y, mut dq] = [vec![0.0; q.len()], vec![0.0; q.len()]];
        let [mut dk, mut dv] = [vec![0.0; k.len()], vec![0.0; k.len()]];
        let mut all_lse = Vec::new();
        for (queries, keys) in self.offsets.windows(2).zip(self.of_keys().windows(2)) {
            for (i, head) in
                (queries[0]..queries[1]).flat_map(|i| (0..self.n_heads).map(move |head| (i, head)))
            {
                let mine = (i * self.n_heads + head) * e..(i * self.n_heads + head + 1) * e;
                let kv_head = head / (self.n_heads / self.n_kv_heads);
                let place = |j: usize| (j * self.n_kv_heads + kv_head) * e;
                let sees = |j: usize| {
                    let block = |at: usize| self.block_size.map(|size| at / size);
                    block(j - keys[0]) <= block(i - queries[0])
                };
                let score = |j: usize| match sees(j) {
                    true => dot(&q[mine.clone()], &k[place(j)..][..e]) * scale,
                    false => f64::NEG_INFINITY,
                };
                let scores: Vec<f64> = (keys[0]..keys[1]).map(score).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                let lse = if max > f64::NEG_INFINITY {
                    max + sum.ln()
                } else {
                    max
                };
                all_lse.push(lse);
                if max == f64::NEG_INFINITY {
                    continue;
                }
                for (j, s) in (keys[0]..).zip(&scores) {
                    add_scaled(&mut y[mine.clone()], &v[place(j)..][..e], (s - lse).exp());
                }
                if !has_gradient {
                    continue;
                }
                let delta = dot(&dy[mine.clone()], &y[mine.clone()]);
                for (j, s) in (keys[0]..).zip(&scores) {
                    let (p, at) = ((s - lse).exp(), place(j)..place(j) + e);
                    let ds = p * (dot(&dy[mine.clone()], &v[at.clone()]) - delta) * scale;
                    add_scaled(&mut dq[mine.clone()], &k[at.clone()], ds);
                    add_scaled(&mut dk[at.clone()], &q[mine.clone()], ds);
                    add_scaled(&mut dv[at], &dy[mine.clone()], p);
                }
            }
        }
        match has_gradient {
            true => vec![y, all_lse, dq, dk, dv],
            false => vec![y, all_lse],
        }
    }
}

fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

fn add_scaled(y: &mut [f64], x: &[f64], factor: f64) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += factor * x;
    }
}

/// Largest absolute difference; infinite if one is NaN, 0 for equal infinities.
fn max_error(x: &[f32], exact: &[f64]) -> f64 {
    assert_eq!(x.len(), exact.len(), "lengths");
    let error = |(&x, &y): (&f32, &f64)| {
        let (x, difference) = (f64::from(x), (f64::from(x) - y).abs());
        match difference.is_nan() {
            true if x.is_infinite() && x.total_cmp(&y).is_eq() => 0.0,
            true => f64::INFINITY,
            false => difference,
        }
    };
    x.iter().zip(exact).map(error).fold(0.0, f64::max)
}

#[track_caller]
fn same_bits(what: &str, x: &[f32], y: &[f32]) {
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(x), bits(y), "{what}");
}

/// In `f32` the error against `f64` is at most twice that of the scalar code, and what is expected
/// of a sum that rounds elsewhere: a unit for each step of a random walk over its terms, and four.
#[track_caller]
fn check(case: &Case) {
    let Some(cuda) = cuda() else { return };
    let inputs = case.inputs();
    let exact = case.exact(Precision::F32, &inputs);
    let [scalar, got] = [cpu(), cuda].map(|device| case.run(&device, Precision::F32, &inputs));
    let longest = case.of_keys().windows(2).map(|w| w[1] - w[0]).max();
    let group = case.n_heads / case.n_kv_heads;
    let terms = longest.unwrap_or(0) * group + case.head_dim;
    for (i, exact) in exact.iter().enumerate() {
        let finite = exact.iter().filter(|x| x.is_finite());
        let unit = f64::from(f32::EPSILON) * finite.fold(1.0, |max, x| x.abs().max(max));
        let bound = 2.0 * max_error(&scalar[i], exact) + (4.0 + (terms as f64).sqrt()) * unit;
        let error = max_error(&got[i], exact);
        assert!(error <= bound, "{case:?} output {i}: {error:e} > {bound:e}");
    }
}

/// With operands rounded to bf16: a score is off by at most twice the rounding of its terms, a
/// probability by twice the largest such error and its own rounding.
#[track_caller]
fn check_bf16(case: &Case) {
    const ROUNDING: f64 = 1.0 / 256.0;
    let Some(cuda) = cuda() else { return };
    let inputs = case.inputs();
    let exact = case.exact(Precision::Bf16, &inputs);
    let largest = |x: &[f32]| widen(x).iter().fold(0.0_f64, |max, x| x.abs().max(max));
    let norm = |x: &[f32]| {
        let rows = widen(x);
        let rows = rows.chunks_exact(case.head_dim);
        rows.map(|row| dot(row, row).sqrt()).fold(0.0, f64::max)
    };
    let score = ROUNDING * norm(&inputs.q) * norm(&inputs.k) / (case.head_dim as f64).sqrt();
    let bounds = [
        (2.0 * score + ROUNDING) * 2.0 * largest(&inputs.v),
        2.0 * score,
    ];
    let got = case.run(&cuda, Precision::Bf16, &inputs);
    for ((got, exact), bound) in got.iter().zip(&exact).zip(bounds) {
        let error = max_error(got, exact);
        assert!(error <= bound, "{case:?}: {error:e} > {bound:e}");
    }
}

#[test]
fn f32_agrees_with_f64() {
    check(&case(&[0], [1, 1], 4));
    check(&case(&[0, 1], [1, 1], 1));
    check(&case(&[0, 0, 5, 5, 18], [2, 1], 12));
    check(&case(&[0, 64, 129], [2, 2], 20));
    check(&case(&[0, 30, 100], [4, 2], 33));
}

#[test]
fn f32_agrees_with_f64_for_wide_heads() {
    check(&case(&[0, 70], [1, 1], 128));
    check(&case(&[0, 3, 68], [2, 1], 130));
    check(&case(&[0, 9], [1, 1], 256));
}

/// Causal; blocks smaller and larger than a tile, and than a sequence.
#[test]
fn f32_blocks_are_not_seen_from_before() {
    for size in [1, 5, 64, 100, 1000, usize::MAX] {
        check(&Case {
            block_size: NonZeroUsize::new(size),
            ..case(&[0, 7, 140], [2, 1], 8)
        });
    }
}

#[test]
fn bf16_agrees_with_f64() {
    for head_dim in [64, 128] {
        check_bf16(&case(&[0], [1, 1], head_dim));
        check_bf16(&case(&[0, 1], [1, 1], head_dim));
        check_bf16(&case(&[0, 0, 5, 69, 133], [2, 1], head_dim));
        check_bf16(&case(&[0, 300], [4, 2], head_dim));
    }
    // No kernel for tensor cores.
    check_bf16(&case(&[0, 30], [2, 1], 20));
}

/// Enough blocks for tiles of 128 queries.
#[test]
fn bf16_agrees_with_f64_in_large_tiles() {
    check_bf16(&case(&[0, 129, 130], [28, 2], 128));
    check_bf16(&case(&[0, 70, 161], [54, 1], 64));
}

#[test]
fn bf16_blocks_are_not_seen_from_before() {
    for size in [1, 5, 64, 100, 1000, usize::MAX] {
        check_bf16(&Case {
            block_size: NonZeroUsize::new(size),
            ..case(&[0, 7, 200], [2, 1], 64)
        });
    }
}

/// Also with fewer queries than keys, more, and none of either.
#[test]
fn windows_see_all_keys() {
    for head_dim in [12, 64] {
        let window = Case {
            key_offsets: Some(vec![0, 70, 80, 80, 99, 299]),
            ..case(&[0, 30, 50, 53, 53, 60], [4, 2], head_dim)
        };
        check(&window);
        check_bf16(&window);
    }
}

/// The rows of a sequence have the same bits whatever is computed beside them, and whichever
/// tiles the batch is large enough for.
#[test]
fn a_sequence_does_not_depend_on_its_batch_mates() {
    let Some(cuda) = cuda() else { return };
    // 112 blocks of 128 queries together, 56 or fewer alone.
    for (head_dim, precision) in [(8, Precision::F32), (64, Precision::Bf16)] {
        let heads = if head_dim == 64 { 28 } else { 2 };
        let shape = case(&[0, 33, 180, 191], [heads, 2], head_dim);
        let inputs = shape.inputs();
        let together = shape.run(&cuda, precision, &inputs);
        for bounds in shape.offsets.windows(2) {
            let (first, end) = (bounds[0], bounds[1]);
            let part = |x: &[f32], heads: usize| {
                let width = heads * head_dim;
                x[first * width..end * width].to_vec()
            };
            let alone = Inputs {
                q: part(&inputs.q, heads),
                k: part(&inputs.k, 2),
                v: part(&inputs.v, 2),
                dy: part(&inputs.dy, heads),
            };
            let alone = case(&[0, end - first], [heads, 2], head_dim).run(&cuda, precision, &alone);
            for (together, alone) in together.iter().zip(&alone) {
                let width = together.len() / shape.q_shape()[0];
                same_bits("alone", &together[first * width..end * width], alone);
            }
        }
    }
}

/// Some queries of each sequence against all of its keys, as with a cache.
#[test]
fn a_window_of_queries_gets_the_rows_of_the_whole() {
    let Some(cuda) = cuda() else { return };
    for (head_dim, precision) in [(8, Precision::F32), (128, Precision::Bf16)] {
        let whole = case(&[0, 130, 151], [2, 1], head_dim);
        let inputs = whole.inputs();
        let rows = |x: &[f32]| {
            let width = 2 * head_dim;
            [&x[97 * width..127 * width], &x[131 * width..151 * width]].concat()
        };
        let y = rows(&whole.run(&cuda, precision, &inputs)[0]);
        let window = Case {
            key_offsets: Some(whole.offsets.clone()),
            ..case(&[0, 30, 50], [2, 1], head_dim)
        };
        let inputs = Inputs {
            q: rows(&inputs.q),
            dy: rows(&inputs.dy),
            ..inputs
        };
        same_bits("window", &window.run(&cuda, precision, &inputs)[0], &y);
    }
}

/// Scores of hundreds do not overflow: the output is the value of the best key.
#[test]
fn large_scores_pick_the_best_key() {
    let Some(cuda) = cuda() else { return };
    for (head_dim, precision) in [(4, Precision::F32), (64, Precision::Bf16)] {
        let shape = case(&[0, 120], [1, 1], head_dim);
        let mut inputs = shape.inputs();
        inputs.q.fill(30.0);
        inputs.k.fill(-20.0);
        let best = 97 * head_dim..98 * head_dim;
        inputs.k[best.clone()].fill(20.0);
        // Small integers are values of bf16, and sums do not keep the sign of a zero.
        inputs
            .v
            .iter_mut()
            .for_each(|x| *x = (2.0 * *x).round() + 0.0);
        let y = &shape.run(&cuda, precision, &inputs)[0];
        for row in y.chunks_exact(head_dim) {
            same_bits("best", row, &inputs.v[best.clone()]);
        }
    }
}

/// They do not fit into the registers of a block.
#[test]
fn heads_of_more_than_256_columns_are_an_error() {
    let Some(cuda) = cuda() else { return };
    let wide = Tensor::zeros(&cuda, DType::F32, &[1, 257]).unwrap();
    let mut y = Tensor::empty(&cuda, DType::F32, &[1, 257]).unwrap();
    let mut lse = Tensor::empty(&cuda, DType::F32, &[1, 1]).unwrap();
    let shape = AttentionShape {
        offsets: &[0, 1],
        key_offsets: None,
        n_heads: 1,
        n_kv_heads: 1,
        block_size: None,
    };
    let args = AttentionArgs {
        q: &wide,
        k: &wide,
        v: &wide,
        shape,
        precision: Precision::F32,
        y: &mut y,
        lse: &mut lse,
    };
    let error = cuda.backend().attention(args).unwrap_err();
    assert_eq!(
        error.to_string(),
        "attention: CUDA kernels have head dimensions up to 256"
    );
}

/// The gradients of `q`, `k` and `v`.
fn backward(
    [q, k, v]: [&Tensor; 3],
    [y, lse, dy]: [&Tensor; 3],
    shape: AttentionShape<'_>,
    precision: Precision,
) -> [Tensor; 3] {
    let empty = |x: &Tensor| Tensor::empty(x.device(), DType::F32, x.shape()).unwrap();
    let [mut dq, mut dk, mut dv] = [q, k, v].map(empty);
    let args = AttentionBackwardArgs {
        q,
        k,
        v,
        shape,
        precision,
        y,
        lse,
        dy,
        dq: &mut dq,
        dk: &mut dk,
        dv: &mut dv,
    };
    q.device().backend().attention_backward(args).unwrap();
    [dq, dk, dv]
}

/// Seventy queries of three query heads and one of keys, behind a sequence of nine; returns `dq`,
/// `dk` and `dv`.
fn gradient(
    device: &Device,
    head_dim: usize,
    block_size: Option<NonZeroUsize>,
    precision: Precision,
) -> [Vec<f32>; 3] {
    let of = |key: u32, heads: usize| {
        let shape = [79, heads * head_dim];
        Tensor::from_f32(device, &shape, &values(key, 79 * heads * head_dim)).unwrap()
    };
    let (q, k, v, dy) = (of(1, 3), of(2, 1), of(3, 1), of(4, 3));
    let empty = |shape: &[usize]| Tensor::empty(device, DType::F32, shape).unwrap();
    let (mut y, mut lse) = (empty(q.shape()), empty(&[79, 3]));
    let shape = AttentionShape {
        offsets: &[0, 9, 9, 79],
        key_offsets: None,
        n_heads: 3,
        n_kv_heads: 1,
        block_size,
    };
    let args = AttentionArgs {
        q: &q,
        k: &k,
        v: &v,
        shape,
        precision: Precision::F32,
        y: &mut y,
        lse: &mut lse,
    };
    device.backend().attention(args).unwrap();
    let gradient = backward([&q, &k, &v], [&y, &lse, &dy], shape, precision);
    gradient.map(|x| x.to_vec_f32().unwrap())
}

/// Five roundings stand between an input and a gradient: of two operands for each of two products,
/// and of what is multiplied in the third. In the norm of a whole gradient each costs at most a
/// unit of bf16.
#[test]
fn a_gradient_in_bf16_is_off_by_its_roundings() {
    const ROUNDING: f64 = 1.0 / 256.0;
    let Some(cuda) = cuda() else { return };
    let cases = [(64, 0), (64, 1), (64, 20), (128, 0), (128, 7)];
    for (head_dim, size) in cases {
        let run = |device: &Device, precision| {
            gradient(device, head_dim, NonZeroUsize::new(size), precision)
        };
        let (got, exact) = (run(&cuda, Precision::Bf16), run(&cpu(), Precision::F32));
        for (i, (got, exact)) in got.iter().zip(&exact).enumerate() {
            let norm = |x: &mut dyn Iterator<Item = f32>| {
                x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
            };
            let error = norm(&mut got.iter().zip(exact).map(|(x, y)| x - y));
            let bound = 5.0 * ROUNDING * norm(&mut exact.iter().copied());
            let case = (head_dim, size);
            assert!(error <= bound, "{case:?} output {i}: {error:e} > {bound:e}");
        }
    }
}
