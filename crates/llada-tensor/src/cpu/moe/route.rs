//! The choice of experts, one value at a time: it is as small as the logits.

use crate::Result;
use crate::backend::{RouteArgs, RouteBackwardArgs, Router, RouterRule};
use crate::cpu::context::Context;
use crate::cpu::workers::{Shared, rows_per_task};
use crate::ops::moe::SUM_EPS;

/// See [`crate::backend::Backend::route`].
pub(crate) fn route(cx: Context<'_>, args: RouteArgs<'_>) -> Result<()> {
    let Router { n_experts, k, rule } = args.router;
    let (logits, ids) = (args.logits.f32s()?, Shared::new(args.ids.f32s_mut()?));
    let weights = Shared::new(args.weights.f32s_mut()?);
    let bias = args.bias.map(|bias| bias.f32s()).transpose()?;
    let tokens = logits.len() / n_experts;
    let runs: Vec<usize> = match rule {
        RouterRule::Capacity { .. } => args.runs.to_vec(),
        _ => (0..tokens)
            .step_by(rows_per_task(n_experts))
            .chain([tokens])
            .collect(),
    };
    cx.workers.for_each(runs.len() - 1, |at| {
        let (start, end) = (runs[at], runs[at + 1]);
        // SAFETY: runs of different tasks do not overlap.
        #[expect(unsafe_code, reason = "tokens are routed in parallel")]
        let [ids, weights] =
            [ids, weights].map(|out| unsafe { out.range(start * k, (end - start) * k) });
        let logits = &logits[start * n_experts..end * n_experts];
        route_run(args.router, logits, bias, ids, weights);
    });
    Ok(())
}

/// Routes the tokens of one run.
fn route_run(
    Router { n_experts, k, rule }: Router,
    logits: &[f32],
    bias: Option<&[f32]>,
    ids: &mut [f32],
    weights: &mut [f32],
) {
    let mut values = logits.to_vec();
    for row in values.chunks_exact_mut(n_experts) {
        match rule {
            RouterRule::Softmax => softmax(row),
            _ => row.iter_mut().for_each(|x| *x = sigmoid(*x)),
        }
    }
    let mut scores = values.clone();
    if let Some(bias) = bias {
        for row in scores.chunks_exact_mut(n_experts) {
            row.iter_mut().zip(bias).for_each(|(score, b)| *score += b);
        }
    }
    let mut allowed = vec![true; n_experts];
    if let RouterRule::Capacity { capacity, .. } = rule {
        let largest = |e: usize| {
            let of_tokens = scores.chunks_exact(n_experts).map(|row| row[e]);
            of_tokens.fold(f32::NAN, |max, x| if is_above(x, max) { x } else { max })
        };
        allow(
            &mut allowed,
            1,
            &best(capacity, (0..n_experts).map(largest)),
        );
    }
    let tokens = scores
        .chunks_exact(n_experts)
        .zip(values.chunks_exact(n_experts));
    let out = ids.chunks_exact_mut(k).zip(weights.chunks_exact_mut(k));
    for ((scores, values), (ids, weights)) in tokens.zip(out) {
        if let RouterRule::Groups {
            n_group,
            topk_group,
            ..
        } = rule
        {
            let size = n_experts / n_group;
            let of_groups = scores.chunks_exact(size).map(|group| {
                let two = best(2, group.iter().copied());
                two.iter().map(|&at| group[at]).sum()
            });
            allow(&mut allowed, size, &best(topk_group, of_groups));
        }
        let candidates: Vec<usize> = (0..n_experts).filter(|&e| allowed[e]).collect();
        let taken = best(k, candidates.iter().map(|&e| scores[e]));
        let mut taken: Vec<usize> = taken.into_iter().map(|at| candidates[at]).collect();
        taken.sort_unstable();
        let factor = match rule {
            RouterRule::Softmax => None,
            RouterRule::Groups { scale, .. } | RouterRule::Capacity { scale, .. } => Some(scale),
        };
        let sum = sum_of(taken.iter().map(|&e| values[e]));
        for ((id, weight), e) in ids.iter_mut().zip(weights).zip(taken) {
            *id = e as f32;
            *weight = match factor {
                None => scores[e],
                Some(scale) => values[e] / sum * scale,
            };
        }
    }
}

/// What the values of the taken experts are divided by.
fn sum_of(values: impl ExactSizeIterator<Item = f32>) -> f32 {
    match values.len() {
        1 => 1.0,
        _ => values.sum::<f32>() + SUM_EPS,
    }
}

/// Allows the members of some runs of `size`, and no others.
fn allow(allowed: &mut [bool], size: usize, runs: &[usize]) {
    allowed.fill(false);
    for &run in runs {
        allowed[run * size..(run + 1) * size].fill(true);
    }
}

/// Indexes of the `n` largest scores, the largest first; of equal ones the lower index.
fn best(n: usize, scores: impl Iterator<Item = f32>) -> Vec<usize> {
    let mut best: Vec<(usize, f32)> = Vec::with_capacity(n + 1);
    for (at, score) in scores.enumerate() {
        if best.len() == n && !is_above(score, best[n - 1].1) {
            continue;
        }
        let place = best.partition_point(|&(_, other)| !is_above(score, other));
        best.insert(place, (at, score));
        best.truncate(n);
    }
    best.into_iter().map(|(at, _)| at).collect()
}

/// Whether `x > y`, where NaN is smaller than every number.
fn is_above(x: f32, y: f32) -> bool {
    x > y || (y.is_nan() && !x.is_nan())
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn softmax(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|x| *x = (*x - max).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|x| *x /= sum);
}

/// See [`crate::backend::Backend::route_backward`].
pub(crate) fn route_backward(cx: Context<'_>, args: RouteBackwardArgs<'_>) -> Result<()> {
    let Router { n_experts, k, rule } = args.router;
    let (logits, ids) = (args.logits.f32s()?, args.ids.f32s()?);
    let (dweights, dlogits) = (args.dweights.f32s()?, args.dlogits.f32s_mut()?);
    let rows = rows_per_task(n_experts);
    cx.workers
        .for_each_chunk(dlogits, rows * n_experts, |at, dlogits| {
            for (i, out) in dlogits.chunks_exact_mut(n_experts).enumerate() {
                let token = at * rows + i;
                let logits = &logits[token * n_experts..][..n_experts];
                let (ids, dw) = (&ids[token * k..][..k], &dweights[token * k..][..k]);
                let taken = || ids.iter().map(|&id| id as usize);
                match rule {
                    RouterRule::Softmax => {
                        // dlogit = p (dp - sum_j p_j dp_j)
                        out.copy_from_slice(logits);
                        softmax(out);
                        let mean: f32 = taken().zip(dw).map(|(e, dw)| out[e] * dw).sum();
                        let slopes: Vec<f32> = taken().zip(dw).map(|(e, dw)| out[e] * dw).collect();
                        out.iter_mut().for_each(|p| *p *= -mean);
                        taken().zip(slopes).for_each(|(e, slope)| out[e] += slope);
                    }
                    RouterRule::Groups { scale, .. } | RouterRule::Capacity { scale, .. } => {
                        // weight = scale s / S with S = sum of the taken s; ds = s (1 - s) dlogit.
                        let s: Vec<f32> = taken().map(|e| sigmoid(logits[e])).collect();
                        let sum = sum_of(s.iter().copied());
                        let mean = match k {
                            1 => 0.0,
                            _ => s.iter().zip(dw).map(|(s, dw)| s * dw).sum::<f32>() / sum,
                        };
                        out.fill(0.0);
                        for ((e, s), dw) in taken().zip(s).zip(dw) {
                            out[e] = scale / sum * (dw - mean) * s * (1.0 - s);
                        }
                    }
                }
            }
        });
    Ok(())
}
