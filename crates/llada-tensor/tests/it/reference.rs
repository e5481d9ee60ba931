//! The ops in `f64`, as their formulas say, one element after the other.

use std::num::NonZeroUsize;

use llada_tensor::ops::moe::{Router, RouterRule};

/// `y = x wᵀ` for `x` `[T, K]` and `w` `[N, K]`.
pub(crate) fn linear(x: &[f64], w: &[f64], k: usize) -> Vec<f64> {
    x.chunks_exact(k)
        .flat_map(|x| w.chunks_exact(k).map(|w| dot(x, w)))
        .collect()
}

/// `x + z`; `z` may be a row.
pub(crate) fn add(x: &[f64], z: &[f64]) -> Vec<f64> {
    x.iter().zip(z.iter().cycle()).map(|(x, z)| x + z).collect()
}

/// `table[ids]`.
pub(crate) fn embedding(table: &[f64], d: usize, ids: &[u32]) -> Vec<f64> {
    let row = |&id: &u32| &table[id as usize * d..][..d];
    ids.iter().flat_map(row).copied().collect()
}

/// Outputs `y` and `1 / sqrt(mean(x^2) + eps)`.
pub(crate) fn rms_norm(x: &[f64], w: &[f64], eps: f64) -> [Vec<f64>; 2] {
    let rows = || x.chunks_exact(w.len());
    let rstd: Vec<f64> = rows()
        .map(|x| 1.0 / (dot(x, x) / w.len() as f64 + eps).sqrt())
        .collect();
    let y = rows().zip(&rstd);
    let y = y.flat_map(|(x, rstd)| x.iter().zip(w).map(move |(x, w)| x * rstd * w));
    [y.collect(), rstd]
}

/// Gradients of `x` and of the weight.
pub(crate) fn rms_norm_backward(x: &[f64], w: &[f64], eps: f64, dy: &[f64]) -> [Vec<f64>; 2] {
    let d = w.len();
    let [_, rstd] = rms_norm(x, w, eps);
    let (mut dx, mut dw) = (Vec::new(), vec![0.0; d]);
    for ((x, dy), rstd) in x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(rstd) {
        let mean = (0..d).map(|c| dy[c] * w[c] * x[c] * rstd).sum::<f64>() / d as f64;
        for c in 0..d {
            dx.push(rstd * (dy[c] * w[c] - x[c] * rstd * mean));
            dw[c] += dy[c] * x[c] * rstd;
        }
    }
    [dx, dw]
}

/// Rotates with tables `[n, E/2]`; `sign` is -1 for the inverse.
pub(crate) fn rope(
    x: &[f64],
    width: usize,
    (cos, sin, half): (&[f64], &[f64], usize),
    positions: &[u32],
    sign: f64,
) -> Vec<f64> {
    let mut y = x.to_vec();
    for (row, &at) in y.chunks_exact_mut(width.max(1)).zip(positions) {
        for head in row.chunks_exact_mut(2 * half) {
            for i in 0..half {
                let (a, b) = (head[i], head[i + half]);
                let (c, s) = (
                    cos[at as usize * half + i],
                    sign * sin[at as usize * half + i],
                );
                (head[i], head[i + half]) = (a * c - b * s, b * c + a * s);
            }
        }
    }
    y
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

pub(crate) fn swiglu(gate: &[f64], up: &[f64]) -> Vec<f64> {
    let y = gate.iter().zip(up).map(|(g, u)| g * sigmoid(*g) * u);
    y.collect()
}

/// Gradients of the gate and of the other factor.
pub(crate) fn swiglu_backward(gate: &[f64], up: &[f64], dy: &[f64]) -> [Vec<f64>; 2] {
    let all = || gate.iter().zip(up).zip(dy);
    let dgate = all().map(|((&g, u), dy)| dy * u * sigmoid(g) * (1.0 + g * (1.0 - sigmoid(g))));
    let dup = all().map(|((&g, _), dy)| dy * g * sigmoid(g));
    [dgate.collect(), dup.collect()]
}

/// Cross-entropy and log-sum-exp of each row of logits.
pub(crate) fn cross_entropy(logits: &[f64], targets: &[u32]) -> [Vec<f64>; 2] {
    if targets.is_empty() {
        return [Vec::new(), Vec::new()];
    }
    let rows = || logits.chunks_exact(logits.len() / targets.len());
    let lse: Vec<f64> = rows().map(log_sum_exp).collect();
    let losses = rows().zip(targets).zip(&lse);
    let losses = losses.map(|((row, &target), lse)| lse - row[target as usize]);
    [losses.collect(), lse]
}

/// Gradient of the logits: `dloss (softmax - [v = target])`.
pub(crate) fn logit_slopes(logits: &[f64], targets: &[u32], dlosses: &[f32]) -> Vec<f64> {
    let [_, lse] = cross_entropy(logits, targets);
    let vocab_size = logits.len() / targets.len().max(1);
    let mut slopes = logits.to_vec();
    for (i, row) in slopes.chunks_exact_mut(vocab_size.max(1)).enumerate() {
        for (v, x) in row.iter_mut().enumerate() {
            let hit = f64::from(u8::from(v == targets[i] as usize));
            *x = f64::from(dlosses[i]) * ((*x - lse[i]).exp() - hit);
        }
    }
    slopes
}

/// Heads, sequences and masks of one attention.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    pub(crate) offsets: Vec<usize>,
    pub(crate) n_heads: usize,
    pub(crate) n_kv_heads: usize,
    pub(crate) head_dim: usize,
    /// Positions of a block of the mask.
    pub(crate) block_size: Option<NonZeroUsize>,
}

impl Attention {
    pub(crate) fn tokens(&self) -> usize {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// The range of one head's elements in a row `[heads * E]`.
    fn head(&self, row: usize, heads: usize, head: usize) -> std::ops::Range<usize> {
        let start = (row * heads + head) * self.head_dim;
        start..start + self.head_dim
    }

    /// Calls `visit(query, head, first key, probabilities, log-sum-exp)` for each query and head.
    fn each_query(
        &self,
        q: &[f64],
        k: &[f64],
        mut visit: impl FnMut(usize, usize, usize, &[f64], f64),
    ) {
        let (h, kv, group) = (
            self.n_heads,
            self.n_kv_heads,
            self.n_heads / self.n_kv_heads,
        );
        for bounds in self.offsets.windows(2) {
            let (first, end) = (bounds[0], bounds[1]);
            for i in first..end {
                for head in 0..h {
                    let score = |j: usize| {
                        let block = |at: usize| self.block_size.map(|size| (at - first) / size);
                        if block(j) > block(i) {
                            return f64::NEG_INFINITY;
                        }
                        let (q, k) = (
                            &q[self.head(i, h, head)],
                            &k[self.head(j, kv, head / group)],
                        );
                        dot(q, k) / (self.head_dim as f64).sqrt()
                    };
                    let scores: Vec<f64> = (first..end).map(score).collect();
                    let lse = log_sum_exp(&scores);
                    let seen = lse > f64::NEG_INFINITY;
                    let p = |x: &f64| if seen { (x - lse).exp() } else { 0.0 };
                    visit(
                        i,
                        head,
                        first,
                        &scores.iter().map(p).collect::<Vec<_>>(),
                        lse,
                    );
                }
            }
        }
    }

    /// Outputs `y` and the log-sum-exp `[T, H]`.
    pub(crate) fn forward(&self, q: &[f64], k: &[f64], v: &[f64]) -> [Vec<f64>; 2] {
        let group = self.n_heads / self.n_kv_heads;
        let mut y = vec![0.0; q.len()];
        let mut all_lse = vec![0.0; self.tokens() * self.n_heads];
        self.each_query(q, k, |i, head, first, p, lse| {
            all_lse[i * self.n_heads + head] = lse;
            let y = &mut y[self.head(i, self.n_heads, head)];
            for (j, &p) in p.iter().enumerate() {
                add_scaled(
                    y,
                    &v[self.head(first + j, self.n_kv_heads, head / group)],
                    p,
                );
            }
        });
        [y, all_lse]
    }

    /// Gradients of `q`, `k` and `v`.
    pub(crate) fn backward(&self, q: &[f64], k: &[f64], v: &[f64], dy: &[f64]) -> [Vec<f64>; 3] {
        let group = self.n_heads / self.n_kv_heads;
        let scale = 1.0 / (self.head_dim as f64).sqrt();
        let [y, _] = self.forward(q, k, v);
        let [mut dq, mut dk, mut dv] = [q, k, v].map(|x| vec![0.0; x.len()]);
        self.each_query(q, k, |i, head, first, p, _| {
            let mine = self.head(i, self.n_heads, head);
            let dy = &dy[mine.clone()];
            let delta = dot(dy, &y[mine.clone()]);
            for (j, &p) in p.iter().enumerate() {
                let key = self.head(first + j, self.n_kv_heads, head / group);
                let ds = p * (dot(dy, &v[key.clone()]) - delta) * scale;
                add_scaled(&mut dv[key.clone()], dy, p);
                add_scaled(&mut dq[mine.clone()], &k[key.clone()], ds);
                add_scaled(&mut dk[key], &q[mine.clone()], ds);
            }
        });
        [dq, dk, dv]
    }
}

fn add_scaled(y: &mut [f64], x: &[f64], factor: f64) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += factor * x;
    }
}

pub(crate) fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

fn log_sum_exp(x: &[f64]) -> f64 {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY {
        return max;
    }
    max + x.iter().map(|x| (x - max).exp()).sum::<f64>().ln()
}

/// What experts are weighed by and what they are chosen by, `[T, E]` each.
pub(crate) fn router_scores(router: Router, logits: &[f64], bias: Option<&[f32]>) -> [Vec<f64>; 2] {
    let e = router.n_experts;
    let mut values = logits.to_vec();
    for row in values.chunks_exact_mut(e) {
        let sum: f64 = row.iter().map(|x| x.exp()).sum();
        for x in row {
            *x = match router.rule {
                RouterRule::Softmax => x.exp() / sum,
                _ => 1.0 / (1.0 + (-*x).exp()),
            };
        }
    }
    let scores = match bias {
        Some(bias) => {
            let bias = bias.iter().map(|&b| f64::from(b)).cycle();
            values
                .iter()
                .zip(bias)
                .map(|(value, b)| value + b)
                .collect()
        }
        None => values.clone(),
    };
    match router.rule {
        RouterRule::Softmax => [scores.clone(), scores],
        _ => [values, scores],
    }
}

/// Indexes of the `n` largest scores, by sorting.
fn best(n: usize, scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order.truncate(n);
    order
}

/// Ids and weights `[T, k]` of what [`router_scores`] gives.
pub(crate) fn route(
    router: Router,
    [values, scores]: &[Vec<f64>; 2],
    runs: &[usize],
) -> (Vec<u32>, Vec<f64>) {
    let Router { n_experts, k, rule } = router;
    let (mut ids, mut weights) = (Vec::new(), Vec::new());
    for (token, scores_of_token) in scores.chunks_exact(n_experts).enumerate() {
        let mut scores_of_token = scores_of_token.to_vec();
        let forbidden: Vec<usize> = match rule {
            RouterRule::Softmax => Vec::new(),
            RouterRule::Groups {
                n_group,
                topk_group,
                ..
            } => {
                let size = n_experts / n_group;
                let of_group = |group: &[f64]| best(2, group).iter().map(|&e| group[e]).sum();
                let of_groups: Vec<f64> = scores_of_token.chunks(size).map(of_group).collect();
                let groups = best(topk_group, &of_groups);
                (0..n_experts)
                    .filter(|e| !groups.contains(&(e / size)))
                    .collect()
            }
            RouterRule::Capacity { capacity, .. } => {
                let run = runs
                    .windows(2)
                    .find(|run| (run[0]..run[1]).contains(&token));
                let run = run.expect("runs cover the tokens");
                let rows = &scores[run[0] * n_experts..run[1] * n_experts];
                let largest = |e: usize| {
                    let column = rows.iter().skip(e).step_by(n_experts);
                    column.copied().fold(f64::NEG_INFINITY, f64::max)
                };
                let largest: Vec<f64> = (0..n_experts).map(largest).collect();
                let allowed = best(capacity, &largest);
                (0..n_experts).filter(|e| !allowed.contains(e)).collect()
            }
        };
        for e in forbidden {
            scores_of_token[e] = f64::NEG_INFINITY;
        }
        let mut taken = best(k, &scores_of_token);
        taken.sort_unstable();
        let values = &values[token * n_experts..];
        let (scale, sum) = match rule {
            RouterRule::Softmax => (1.0, 1.0),
            RouterRule::Groups { scale, .. } | RouterRule::Capacity { scale, .. } => {
                let sum: f64 = taken.iter().map(|&e| values[e]).sum();
                (f64::from(scale), if k > 1 { sum + 1e-20 } else { 1.0 })
            }
        };
        ids.extend(taken.iter().map(|&e| e as u32));
        weights.extend(taken.iter().map(|&e| values[e] / sum * scale));
    }
    (ids, weights)
}

/// The weighted sum of experts of each token, of `[D, F]`.
pub(crate) fn experts(
    x: &[f64],
    (ids, weights, k): (&[u32], &[f64], usize),
    [gate, up, down]: [&[f64]; 3],
    [d, f]: [usize; 2],
) -> Vec<f64> {
    let mut y = vec![0.0; ids.len() / k * d];
    if d * f == 0 {
        return y;
    }
    for (pair, (&id, weight)) in ids.iter().zip(weights).enumerate() {
        let x = &x[pair / k * d..][..d];
        let [gate, up, down] = [gate, up, down].map(|w| &w[id as usize * d * f..][..d * f]);
        let h = swiglu(&linear(x, gate, d), &linear(x, up, d));
        for (y, o) in y[pair / k * d..].iter_mut().zip(linear(&h, down, f)) {
            *y += weight * o;
        }
    }
    y
}
