//! The published loops of other families, written down a second time and as plainly as can be:
//! what the sampler must do step by step. Toy predictors give the logits.

use llada_diffusion::{StepKey, num_transfer_tokens};
use llada_testkit::{BlockPredictor, ToyPredictor};

pub(crate) const VOCAB: usize = 16;
pub(crate) const MASK: u32 = 15;
pub(crate) const EOS: u32 = 14;
pub(crate) const DELETE: u32 = 13;
pub(crate) const SPLIT: u32 = 12;

/// An answer, and the canvas as far as the model saw it after each of its calls.
#[derive(Debug, PartialEq)]
pub(crate) struct Trail {
    pub(crate) answer: Vec<u32>,
    pub(crate) states: Vec<Vec<u32>>,
}

/// The settings of LLaDA2.x in the words of the published files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) gen_length: usize,
    pub(crate) block: usize,
    pub(crate) steps: usize,
    pub(crate) threshold: f32,
    pub(crate) editing_threshold: f32,
    pub(crate) minimal_topk: usize,
    pub(crate) max_post_steps: usize,
    pub(crate) num_to_transfer: usize,
    pub(crate) eos_early_stop: bool,
    pub(crate) seed: u64,
}

/// The best token but for some, and its probability; the first of equals.
fn best(logits: &[f32], without: &[u32]) -> (u32, f32) {
    let is_left = |id: &usize| !without.contains(&(*id as u32));
    let left: Vec<usize> = (0..logits.len()).filter(is_left).collect();
    let mut token = left[0];
    for &id in &left {
        if logits[id] > logits[token] {
            token = id;
        }
    }
    let weight = |&id: &usize| f64::from(logits[id] - logits[token]).exp();
    let sum: f64 = left.iter().map(weight).sum();
    (token as u32, (1.0 / sum) as f32)
}

/// Places of the highest values, so many of them; the first of equals.
fn top(places: &[usize], value: impl Fn(usize) -> f32, n: usize) -> Vec<usize> {
    let mut places = places.to_vec();
    places.sort_by(|&a, &b| value(b).total_cmp(&value(a)));
    places.truncate(n);
    places
}

fn canvas(prompt: &[u32], s: &Settings) -> Vec<u32> {
    let total = (prompt.len() + s.gen_length).div_ceil(s.block) * s.block;
    let mut x = prompt.to_vec();
    x.resize(total, MASK);
    x
}

fn cut(x: &[u32], prompt: usize, gen_length: usize) -> Vec<u32> {
    let answer = &x[prompt..prompt + gen_length];
    match answer.iter().position(|&id| id == EOS) {
        Some(at) => answer[..=at].to_vec(),
        None => answer.to_vec(),
    }
}

/// What the model gives for the places of a block.
fn predict(model: &BlockPredictor, x: &[u32], start: usize, end: usize) -> Vec<(u32, f32)> {
    let at = |place| best(&model.row(&x[..end], place), &[]);
    (start..end).map(at).collect()
}

/// `generate` of LLaDA2.0.
pub(crate) fn block_diffusion(model: &BlockPredictor, prompt: &[u32], s: &Settings) -> Trail {
    let (mut x, mut states) = (canvas(prompt, s), Vec::new());
    let steps = s.steps.min(s.gen_length / s.minimal_topk);
    let quotas = num_transfer_tokens(s.block, steps);
    for start in (prompt.len() / s.block * s.block..x.len()).step_by(s.block) {
        let end = start + s.block;
        for &quota in &quotas {
            let masks: Vec<usize> = (start..end).filter(|&at| x[at] == MASK).collect();
            if masks.is_empty() {
                break;
            }
            let predicted = predict(model, &x, start, end);
            let confidence = |at: usize| predicted[at - start].1;
            let high = masks
                .iter()
                .copied()
                .filter(|&at| confidence(at) > s.threshold);
            let mut taken: Vec<usize> = high.collect();
            if taken.len() < quota {
                taken = top(&masks, confidence, quota);
            }
            let mut has_eos = false;
            for at in taken {
                x[at] = predicted[at - start].0;
                has_eos |= x[at] == EOS;
            }
            states.push(x[..end].to_vec());
            if s.eos_early_stop && has_eos {
                let first = x.iter().position(|&id| id == EOS).unwrap();
                let before = x.get(prompt.len()..first).unwrap_or_default();
                if !before.contains(&MASK) {
                    let answer = x.get(prompt.len()..=first).unwrap_or_default();
                    let n = answer.len().min(s.gen_length);
                    let answer = answer[..n].to_vec();
                    return Trail { answer, states };
                }
            }
        }
        if x[prompt.len()..end].contains(&EOS) {
            break;
        }
    }
    let answer = cut(&x, prompt.len(), s.gen_length);
    Trail { answer, states }
}

/// `generate` of LLaDA2.1, but for blocks that would never end.
pub(crate) fn editing(model: &BlockPredictor, prompt: &[u32], s: &Settings) -> Trail {
    let (mut x, mut states) = (canvas(prompt, s), Vec::new());
    for start in (prompt.len() / s.block * s.block..x.len()).step_by(s.block) {
        let end = start + s.block;
        let mut post_steps = 0;
        loop {
            let masks: Vec<usize> = (start..end).filter(|&at| x[at] == MASK).collect();
            if masks.is_empty() {
                post_steps += 1;
            }
            if post_steps > s.max_post_steps {
                break;
            }
            let predicted = predict(model, &x, start, end);
            let confidence = |at: usize| predicted[at - start].1;
            let high = masks
                .iter()
                .copied()
                .filter(|&at| confidence(at) > s.threshold);
            let mut taken: Vec<usize> = high.collect();
            if taken.len() < s.num_to_transfer {
                taken = top(&masks, confidence, s.num_to_transfer);
            }
            let is_edited = |&at: &usize| {
                let differs = x[at] != MASK && x[at] != predicted[at - start].0;
                at >= prompt.len() && differs && confidence(at) > s.editing_threshold
            };
            let edited: Vec<usize> = (start..end).filter(is_edited).collect();
            let before = x.clone();
            for &at in taken.iter().chain(&edited) {
                x[at] = predicted[at - start].0;
            }
            states.push(x[..end].to_vec());
            let is_over = masks.is_empty() && edited.is_empty();
            let is_endless = before == x;
            if is_over || is_endless {
                break;
            }
        }
        let written = &x[prompt.len()..end];
        if s.eos_early_stop && written.contains(&EOS) && !written.contains(&MASK) {
            break;
        }
    }
    let answer = cut(&x, prompt.len(), s.gen_length);
    Trail { answer, states }
}

/// Deletions and splits of a block: tokens, and which of them were masks at its beginning.
fn scan(written: &[u32], before: &[u32], original: &[bool], given: usize) -> (Vec<u32>, Vec<bool>) {
    let (mut tokens, mut tracking) = (Vec::new(), Vec::new());
    for at in 0..written.len() {
        match written[at] {
            DELETE if at >= given => {}
            SPLIT if at >= given => {
                tokens.extend([MASK, before[at]]);
                tracking.extend([false, original[at]]);
            }
            token => {
                tokens.push(token);
                tracking.push(original[at] && at >= given);
            }
        }
    }
    tokens.resize(written.len(), MASK);
    tracking.resize(written.len(), false);
    (tokens, tracking)
}

/// The loop of LLaDA2.2 as it is described; the step of a random choice is counted over all blocks.
pub(crate) fn rewriting(model: &BlockPredictor, prompt: &[u32], s: &Settings) -> Trail {
    let (mut x, mut states, mut calls) = (canvas(prompt, s), Vec::new(), 0);
    for start in (prompt.len() / s.block * s.block..x.len()).step_by(s.block) {
        let end = start + s.block;
        let given = prompt.len().saturating_sub(start);
        let mut original: Vec<bool> = x[start..end].iter().map(|&id| id == MASK).collect();
        let n = original.iter().filter(|&&is| is).count();
        let quotas = num_transfer_tokens(n, s.steps);
        let (mut post, mut seen) = (0, Vec::new());
        for step in 0..1000 {
            let old = x[start..end].to_vec();
            let masks: Vec<usize> = (0..s.block).filter(|&at| old[at] == MASK).collect();
            let originals: Vec<usize> = masks.iter().copied().filter(|&at| original[at]).collect();
            post = if originals.is_empty() { post + 1 } else { 0 };
            if masks.is_empty() && post > s.max_post_steps {
                break;
            }
            let logits: Vec<Vec<f32>> = (start..end).map(|at| model.row(&x[..end], at)).collect();
            let predicted: Vec<(u32, f32)> = logits.iter().map(|row| best(row, &[])).collect();
            let confidence = |at: usize| predicted[at].1;
            let mut fills = masks.clone();
            if let Some(quota) = quotas.get(step) {
                let need = quota + masks.len() - originals.len();
                fills.retain(|&at| confidence(at) > s.threshold);
                if fills.len() < need {
                    fills = top(&masks, confidence, need);
                }
            }
            let is_edited = |&at: &usize| {
                let differs = old[at] != MASK && old[at] != predicted[at].0;
                at >= given && differs && confidence(at) > s.editing_threshold
            };
            let edited: Vec<usize> = (0..s.block).filter(is_edited).collect();
            let is_final = match s.max_post_steps {
                0 => !originals.is_empty() && originals.iter().all(|at| fills.contains(at)),
                most => post >= most,
            };
            if is_final {
                fills = masks;
            }
            let mut written = old.clone();
            for &at in fills.iter().chain(&edited) {
                written[at] = predicted[at].0;
                if is_final && [DELETE, SPLIT].contains(&written[at]) {
                    written[at] = best(&logits[at], &[DELETE, SPLIT]).0;
                }
            }
            for attempt in 0..5 {
                let changed: Vec<usize> =
                    (0..s.block).filter(|&at| written[at] != old[at]).collect();
                if is_final || changed.is_empty() || !seen.contains(&written) {
                    break;
                }
                let key = StepKey {
                    seed: s.seed,
                    sequence: 0,
                    step: calls,
                };
                let draw = key.remask_uniform(attempt) * changed.len() as f32;
                let at = changed[(draw as usize).min(changed.len() - 1)];
                written[at] = best(&logits[at], &[written[at]]).0;
            }
            calls += 1;
            seen.push(written.clone());
            let (tokens, tracking) = scan(&written, &old, &original, given);
            original = tracking;
            x[start..end].copy_from_slice(&tokens);
            states.push(x[..end].to_vec());
            if tokens == old && (!tokens.contains(&MASK) || is_final && originals.is_empty()) {
                break;
            }
        }
        let written = &x[prompt.len()..end];
        if s.eos_early_stop && written.contains(&EOS) && !written.contains(&MASK) {
            break;
        }
    }
    let answer = cut(&x, prompt.len(), s.gen_length);
    Trail { answer, states }
}

/// The settings of Dream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Diffusion<'a> {
    pub(crate) steps: usize,
    pub(crate) eps: f32,
    pub(crate) alg: &'a str,
    pub(crate) top_p: Option<f64>,
    pub(crate) top_k: Option<usize>,
}

/// Probabilities `[V]` of what top-p and top-k leave; 0 is left out.
fn filtered(logits: &[f32], s: &Diffusion<'_>) -> Vec<f64> {
    let softmax = |logits: &[f64]| -> Vec<f64> {
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = logits.iter().map(|x| (x - max).exp()).collect();
        let sum: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / sum).collect()
    };
    let mut logits: Vec<f64> = logits.iter().map(|&x| f64::from(x)).collect();
    if let Some(top_p) = s.top_p {
        let p = softmax(&logits);
        let mut order: Vec<usize> = (0..p.len()).collect();
        order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
        let mut before = 0.0;
        for (rank, &id) in order.iter().enumerate() {
            if rank > 0 && before > top_p {
                logits[id] = f64::NEG_INFINITY;
            }
            before += p[id];
        }
    }
    if let Some(top_k) = s.top_k {
        let mut sorted = logits.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let bar = sorted[top_k.min(sorted.len()) - 1];
        for x in &mut logits {
            *x = if *x < bar { f64::NEG_INFINITY } else { *x };
        }
    }
    softmax(&logits)
}

/// `diffusion_generate` of Dream at temperature 0; `uniform`: `[steps, L]`.
pub(crate) fn diffusion_generate(
    model: &ToyPredictor,
    canvas: &[u32],
    s: &Diffusion<'_>,
    uniform: &[f32],
) -> Vec<Vec<u32>> {
    let (mut x, mut states) = (canvas.to_vec(), Vec::new());
    for i in 0..s.steps {
        // Halves of one line, as torch.linspace has them.
        let gap = (s.eps - 1.0) / s.steps as f32;
        let t = |i: usize| match i < s.steps.div_ceil(2) {
            true => gap.mul_add(i as f32, 1.0),
            false => (-gap).mul_add((s.steps - i) as f32, s.eps),
        };
        let share = if i + 1 < s.steps {
            1.0 - t(i + 1) / t(i)
        } else {
            1.0
        };
        let masks: Vec<usize> = (0..x.len()).filter(|&at| x[at] == MASK).collect();
        let p: Vec<Vec<f64>> = masks
            .iter()
            .map(|&at| filtered(&model.row(&x, at), s))
            .collect();
        let value = |k: usize| {
            let mut sorted = p[k].clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let value = match s.alg {
                "maskgit_plus" => sorted[0],
                "topk_margin" => sorted[0] - sorted[1],
                _ => p[k].iter().map(|p| p * (p + 1e-10).ln()).sum(),
            };
            value as f32
        };
        let ranks: Vec<usize> = (0..masks.len()).collect();
        let taken = match s.alg {
            "origin" => {
                let draw = |&k: &usize| uniform[i * x.len() + masks[k]] < share;
                ranks.into_iter().filter(draw).collect()
            }
            _ => top(&ranks, value, (masks.len() as f32 * share) as usize),
        };
        for k in taken {
            let token = (0..VOCAB)
                .rev()
                .max_by(|&a, &b| p[k][a].total_cmp(&p[k][b]));
            x[masks[k]] = token.unwrap() as u32;
        }
        states.push(x.clone());
    }
    states
}
