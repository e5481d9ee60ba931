//! Likelihoods: the Monte Carlo bounds of eq. 5 and eq. 6, and the chain rule in any order.

use std::num::NonZeroUsize;

use llada_tensor::{Philox, Stream};

use crate::{
    Error, Guidance, MaskPredictor, PredictorInfo, Query, Result, TokenBatch,
    autoregressive_log_likelihood,
};

/// A text to score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScoredSequence<'a> {
    /// Prompt and answer.
    pub tokens: &'a [u32],
    /// Length of the prompt, which is given: never masked, never scored.
    pub prompt_len: usize,
}

/// How likelihoods are estimated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LikelihoodConfig {
    /// Monte Carlo draws for each sequence; `mc_num` of the reference.
    pub mc_samples: usize,
    /// Draws of eq. 6 that share one random offset, by [`stratified_counts`]; `batch_size` of the
    /// reference (16). `None`: every draw has a stratum of its own among all of `mc_samples`.
    pub batch_size: Option<NonZeroUsize>,
    /// Most tokens in one call of the predictor (a longer sequence goes alone). It bounds memory
    /// and changes no result.
    pub max_batch_tokens: usize,
    /// Seed of the draws.
    pub seed: u64,
    /// Index of the first sequence, which keys its draws: a list scored in parts, each from where
    /// it begins in the list, gets the draws of the whole.
    pub first_index: usize,
    /// What is drawn.
    pub estimator: Estimator,
    /// Scale of classifier-free guidance (eq. 16), which hides the prompt; 0 is none.
    pub cfg_scale: f32,
}

/// What a draw of the likelihood bound masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Estimator {
    /// Exactly `l` tokens, `l` uniform on `{1, .., L}`, weighted by `L / l` (eq. 6).
    #[default]
    Count,
    /// Every token with probability `t`, `t` uniform on (0, 1], weighted by `1 / t` (eq. 5): the
    /// same expectation with far more variance.
    Ratio,
    /// Nothing: [`chain_rule`] from left to right, a pass for each token.
    Chain,
}

impl Default for LikelihoodConfig {
    /// The reference's 128 draws of eq. 6 without guidance, 4096 tokens in a call, seed 0.
    fn default() -> Self {
        Self {
            mc_samples: 128,
            batch_size: None,
            max_batch_tokens: 4096,
            seed: 0,
            first_index: 0,
            estimator: Estimator::Count,
            cfg_scale: 0.0,
        }
    }
}

/// An estimated likelihood bound of one sequence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Estimate of the lower bound of `ln p(answer | prompt)`, in nats.
    pub log_likelihood: f64,
    /// Standard error of it, in nats: the spread of the draws over the root of their number.
    /// Stratification makes the true error smaller. NaN if there was one draw of several possible.
    pub standard_error: f64,
    /// Tokens scored, the length of the answer.
    pub n_tokens: usize,
}

/// Estimates the likelihood bound of each sequence.
///
/// Eq. 6: `E_{l, r_0, r_l} [L / l * sum_i 1[r_l^i = M] ln p_theta(r_0^i | p_0, r_l)]`, with `l`
/// uniform on `{1, .., L}` and `r_l` the answer `r_0` of `L` tokens with exactly `l` of them
/// masked, chosen uniformly without replacement.
///
/// [`Estimator::Ratio`] takes eq. 5 in its place, with independent draws of `t`, and
/// [`Estimator::Chain`] the chain rule, which is exact and has no standard error. So is the
/// likelihood of an autoregressive predictor, in one pass and whatever the number of draws.
///
/// - The `l` of the draws are stratified: draw `d` of `n` takes its quantile from
///   `[d / n, (d + 1) / n)`, or the draws of each `batch_size` are spread from one offset, as in
///   the reference. An answer of one token has one possible draw, which is taken once.
/// - Draws are keyed by (seed, index of the sequence, draw): results depend neither on
///   `max_batch_tokens` nor on the other sequences.
///
/// # Errors
/// [`Error::OutOfRange`] if `mc_samples` is 0 where draws are taken, `cfg_scale` is negative, or a
/// prompt leaves no answer; [`Error::NotAutoregressive`] for what only a masked diffusion model can
/// do; [`Error::NotANumber`] for a loss; what the predictor returns otherwise.
///
/// # Panics
/// If the index of a sequence does not fit in 32 bits.
///
/// Source: arXiv 2502.09992, eq. 6 and algorithm 3; `get_log_likelihood` in the reference's
/// `get_log_likelihood.py`.
pub fn log_likelihood(
    predictor: &dyn MaskPredictor,
    sequences: &[ScoredSequence<'_>],
    config: &LikelihoodConfig,
) -> Result<Vec<Estimate>> {
    if let Some(values) = exact_values(predictor, sequences, config)? {
        let exact = |(values, sequence): (&Vec<f64>, &ScoredSequence<'_>)| Estimate {
            log_likelihood: values.iter().sum(),
            standard_error: 0.0,
            n_tokens: sequence.answer_len(),
        };
        return Ok(values.iter().zip(sequences).map(exact).collect());
    }
    /// There is a weight and a value of each draw in memory.
    const MAX_SAMPLES: usize = 1 << 24;
    check(sequences, config)?;
    if !(1..=MAX_SAMPLES).contains(&config.mc_samples) {
        return Err(Error::OutOfRange {
            what: "mc_samples",
            expected: "from 1 to 16777216",
            got: config.mc_samples as f64,
        });
    }
    let info = predictor.info();
    let mut values: Vec<Vec<f64>> = vec![Vec::new(); sequences.len()];
    let mut group = Group::default();
    for (at, sequence) in sequences.iter().enumerate() {
        let index = config.first_index + at;
        let is_exact = sequence.answer_len() == 1 && config.estimator == Estimator::Count;
        let n_draws = if is_exact { 1 } else { config.mc_samples };
        let counts = masked_counts(sequence, config, index);
        for (draw, &l) in counts.iter().enumerate().take(n_draws) {
            if !group.is_empty() && group.n_tokens + sequence.tokens.len() > config.max_batch_tokens
            {
                group.score(predictor, config.cfg_scale, &mut values)?;
            }
            let (positions, weight) = match config.estimator {
                Estimator::Ratio => masked_by_ratio(sequence, config, index, draw),
                _ => masked_by_count(sequence, config, [index, draw], l),
            };
            let mut tokens = sequence.tokens.to_vec();
            for &position in &positions {
                tokens[position] = info.mask_token_id;
            }
            group.push(at, sequence, tokens, &positions, weight, &info);
        }
    }
    group.score(predictor, config.cfg_scale, &mut values)?;
    Ok(sequences
        .iter()
        .zip(&values)
        .map(|(sequence, values)| estimate(sequence, values, config.estimator))
        .collect())
}

/// `ln p` of each token of each answer where nothing is estimated: one by one from left to right.
fn exact_values(
    predictor: &dyn MaskPredictor,
    sequences: &[ScoredSequence<'_>],
    config: &LikelihoodConfig,
) -> Result<Option<Vec<Vec<f64>>>> {
    if predictor.info().is_autoregressive() {
        let of_diffusion = [
            ("estimator t", config.estimator == Estimator::Ratio),
            ("batch_size", config.batch_size.is_some()),
            ("cfg_scale", config.cfg_scale > 0.0),
        ];
        return match of_diffusion.into_iter().find(|(_, is_set)| *is_set) {
            Some((what, _)) => Err(Error::NotAutoregressive { what }),
            None => autoregressive_log_likelihood(predictor, sequences, config.max_batch_tokens)
                .map(Some),
        };
    }
    if config.estimator != Estimator::Chain {
        return Ok(None);
    }
    check(sequences, config)?;
    let values = |sequence: &ScoredSequence<'_>| {
        let order: Vec<usize> = (0..sequence.answer_len()).collect();
        chain_rule(predictor, sequence, &order, config)
    };
    sequences
        .iter()
        .map(values)
        .collect::<Result<_>>()
        .map(Some)
}

impl ScoredSequence<'_> {
    fn answer_len(&self) -> usize {
        self.tokens.len() - self.prompt_len
    }
}

fn check(sequences: &[ScoredSequence<'_>], config: &LikelihoodConfig) -> Result<()> {
    if !(config.cfg_scale.is_finite() && config.cfg_scale >= 0.0) {
        return Err(Error::OutOfRange {
            what: "cfg_scale",
            expected: "a number, 0 or more",
            got: f64::from(config.cfg_scale),
        });
    }
    for sequence in sequences {
        if sequence.prompt_len >= sequence.tokens.len() {
            return Err(Error::OutOfRange {
                what: "prompt_len",
                expected: "less than the length of the sequence",
                got: sequence.prompt_len as f64,
            });
        }
    }
    Ok(())
}

/// The numbers of masked tokens of a batch of `batch` draws of eq. 6 over `length` tokens, from one
/// random `k` in `{1, .., length}`: `round(linspace(k, k + (batch - 1) * length / batch, batch))`,
/// wrapped into `{1, .., length}`.
///
/// In `f32`, halves to even, as the reference computes it. Where an offset is half a token, the
/// rounding depends on `k`, and over all `k` some numbers never come: [`log_likelihood`] turns the
/// numbers of one `k` by a random amount, which is the same but for the halves, and has no bias.
///
/// # Panics
/// If `length` is 0.
///
/// Source: arXiv 2502.09992, eq. 6; `forward_process` in the reference's `get_log_likelihood.py`.
#[must_use]
pub fn stratified_counts(k: usize, batch: usize, length: usize) -> Vec<usize> {
    let last = batch.saturating_sub(1);
    let start = k as f32;
    let end = (k as f64 + last as f64 * (length as f64 / batch.max(1) as f64)) as f32;
    let step = (end - start) / last.max(1) as f32;
    let place = |i: usize| {
        // PyTorch walks the second half from the end.
        if i < batch / 2 {
            step.mul_add(i as f32, start)
        } else {
            (-step).mul_add((last - i) as f32, end)
        }
    };
    (0..batch)
        .map(|i| (place(i).round_ties_even() as usize + length - 1) % length + 1)
        .collect()
}

/// `l` of each draw of eq. 6, stratified.
fn masked_counts(
    sequence: &ScoredSequence<'_>,
    config: &LikelihoodConfig,
    index: usize,
) -> Vec<usize> {
    let philox = Philox::new(config.seed, Stream::Likelihood);
    let (n, length) = (config.mc_samples, sequence.answer_len());
    let Some(batch_size) = config.batch_size else {
        let count = |draw: usize| {
            let uniform = philox.uniform_f64(counter([index, draw, 0]));
            let quantile = (draw as f64 + uniform) / n as f64;
            // l - 1 = floor(quantile * L); the quantile is below 1, but the product can round up.
            ((quantile * length as f64) as usize).min(length - 1) + 1
        };
        return (0..n).map(count).collect();
    };
    let batch = |first: usize| {
        let turn = philox.below(length as u64, counter([index, first, 0])) as usize;
        let counts = stratified_counts(1, batch_size.get().min(n - first), length);
        counts.into_iter().map(move |l| (l - 1 + turn) % length + 1)
    };
    (0..n).step_by(batch_size.get()).flat_map(batch).collect()
}

/// One draw of eq. 6: which `l` positions of a sequence are masked, ascending, and `L / l`.
fn masked_by_count(
    sequence: &ScoredSequence<'_>,
    config: &LikelihoodConfig,
    [index, draw]: [usize; 2],
    l: usize,
) -> (Vec<usize>, f64) {
    let philox = Philox::new(config.seed, Stream::Likelihood);
    let answer_len = sequence.answer_len();
    // The first l places of a shuffle (Fisher and Yates).
    let mut positions: Vec<usize> = (sequence.prompt_len..sequence.tokens.len()).collect();
    for i in 0..l {
        let left = (answer_len - i) as u64;
        positions.swap(
            i,
            i + philox.below(left, counter([index, draw, i + 1])) as usize,
        );
    }
    positions.truncate(l);
    positions.sort_unstable();
    (positions, answer_len as f64 / l as f64)
}

/// One draw of eq. 5: which positions are masked, perhaps none, and `1 / t`.
fn masked_by_ratio(
    sequence: &ScoredSequence<'_>,
    config: &LikelihoodConfig,
    index: usize,
    draw: usize,
) -> (Vec<usize>, f64) {
    let philox = Philox::new(config.seed, Stream::Likelihood);
    let uniform = |i: usize| philox.uniform_f64(counter([index, draw, i]));
    // In (0, 1]: the draws are in [0, 1).
    let t = 1.0 - uniform(0);
    let answer = sequence.prompt_len..sequence.tokens.len();
    let is_masked = |at: &usize| uniform(at - sequence.prompt_len + 1) < t;
    (answer.filter(is_masked).collect(), 1.0 / t)
}

/// Index of a sequence, draw, and place within the draw, as the words of Philox.
fn counter(place: [usize; 3]) -> [u32; 3] {
    place.map(|x| u32::try_from(x).expect("indexes and lengths fit in 32 bits"))
}

/// Draws that are scored in one call of the predictor.
#[derive(Debug, Default)]
struct Group {
    n_tokens: usize,
    sequences: Vec<Vec<u32>>,
    /// The length of each one's prompt, which guidance hides.
    prompt_lens: Vec<usize>,
    /// Of each draw: its sequence, its weight, and the number of masked tokens.
    draws: Vec<(usize, f64, usize)>,
    positions: Vec<usize>,
    targets: Vec<u32>,
}

impl Group {
    fn is_empty(&self) -> bool {
        self.draws.is_empty()
    }

    /// Adds `tokens`, which are `sequence` with masks; of them, `positions` are scored.
    fn push(
        &mut self,
        index: usize,
        sequence: &ScoredSequence<'_>,
        tokens: Vec<u32>,
        positions: &[usize],
        weight: f64,
        info: &PredictorInfo,
    ) {
        for &position in positions {
            self.positions
                .push(self.n_tokens + info.position_of(position));
            self.targets.push(sequence.tokens[position]);
        }
        self.prompt_lens.push(sequence.prompt_len);
        self.draws.push((index, weight, positions.len()));
        self.n_tokens += tokens.len();
        self.sequences.push(tokens);
    }

    /// Appends the value of each draw to its sequence's and empties the group.
    fn score(
        &mut self,
        predictor: &dyn MaskPredictor,
        cfg_scale: f32,
        values: &mut [Vec<f64>],
    ) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let (batch, info) = (TokenBatch::new(&self.sequences)?, predictor.info());
        let mut query = Query::new(&batch, &self.positions);
        let unconditional = match cfg_scale > 0.0 {
            true => Some(self.unconditional(info.mask_token_id)?),
            false => None,
        };
        query.guidance = unconditional.as_ref().map(|unconditional| Guidance {
            unconditional,
            cfg_scale,
        });
        let losses = predictor.token_losses(query, &self.targets)?;
        expect_losses(self.positions.len(), &losses)?;
        let mut losses = losses.as_slice();
        for &(index, weight, l) in &self.draws {
            let (own, rest) = losses.split_at(l);
            losses = rest;
            values[index].push(-weight * own.iter().map(|&loss| f64::from(loss)).sum::<f64>());
        }
        *self = Self::default();
        Ok(())
    }

    /// The sequences without their prompts.
    fn unconditional(&self, mask_token_id: u32) -> Result<TokenBatch> {
        let mut hidden = self.sequences.clone();
        for (tokens, &prompt_len) in hidden.iter_mut().zip(&self.prompt_lens) {
            tokens[..prompt_len].fill(mask_token_id);
        }
        TokenBatch::new(&hidden)
    }
}

/// As many losses as positions, and each of them a number.
pub(crate) fn expect_losses(expected: usize, losses: &[f32]) -> Result<()> {
    crate::forward::expect_length("token losses", expected, losses.len())?;
    match losses.iter().any(|loss| loss.is_nan()) {
        true => Err(Error::NotANumber {
            what: "a token loss",
        }),
        false => Ok(()),
    }
}

fn estimate(sequence: &ScoredSequence<'_>, values: &[f64], estimator: Estimator) -> Estimate {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let n_tokens = sequence.answer_len();
    // The only draw of one token is exact; a single draw of more says nothing of its spread.
    let standard_error = match (estimator, n_tokens, values.len()) {
        (Estimator::Count, 1, _) => 0.0,
        (_, _, 1) => f64::NAN,
        _ => {
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            (squares / (n - 1.0) / n).sqrt()
        }
    };
    Estimate {
        log_likelihood: mean,
        standard_error,
        n_tokens,
    }
}

/// `ln p(answer[i] | prompt, the answer's tokens before i in the order)` of each token, in the order
/// of the answer; their sum is the likelihood of eq. 15 for this order of generation.
///
/// - `order`: a permutation of the answer's positions `0..L`; `0, 1, .., L - 1` is the chain rule
///   from left to right. Each token is predicted with all tokens after it in the order masked.
/// - The predictor sees `L` sequences, in calls of at most `config.max_batch_tokens` tokens.
/// - Of `config` only `max_batch_tokens` and `cfg_scale` are read.
///
/// # Errors
/// [`Error::OutOfRange`] if the prompt leaves no answer or `order` is no permutation of it;
/// [`Error::NotAutoregressive`] for a predictor that fills in no masks; what the predictor returns
/// otherwise.
///
/// Source: arXiv 2502.09992, eq. 15; `nll_type=chain_rule` of SMDM.
pub fn chain_rule(
    predictor: &dyn MaskPredictor,
    sequence: &ScoredSequence<'_>,
    order: &[usize],
    config: &LikelihoodConfig,
) -> Result<Vec<f64>> {
    check(std::slice::from_ref(sequence), config)?;
    if predictor.info().is_autoregressive() {
        let what = "an order of tokens";
        return Err(Error::NotAutoregressive { what });
    }
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..sequence.answer_len()) {
        return Err(Error::OutOfRange {
            what: "the order",
            expected: "a permutation of the answer's positions",
            got: order.len() as f64,
        });
    }
    let info = predictor.info();
    let mut tokens = sequence.tokens.to_vec();
    tokens[sequence.prompt_len..].fill(info.mask_token_id);
    let mut values: Vec<Vec<f64>> = vec![Vec::new(); sequence.answer_len()];
    let mut group = Group::default();
    for &at in order {
        let position = sequence.prompt_len + at;
        if !group.is_empty() && group.n_tokens + tokens.len() > config.max_batch_tokens {
            group.score(predictor, config.cfg_scale, &mut values)?;
        }
        group.push(at, sequence, tokens.clone(), &[position], 1.0, &info);
        tokens[position] = sequence.tokens[position];
    }
    group.score(predictor, config.cfg_scale, &mut values)?;
    Ok(values.into_iter().flatten().collect())
}
