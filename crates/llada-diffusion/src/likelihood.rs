//! Likelihoods: the Monte Carlo bounds of eq. 5 and eq. 6, the chain rule in any order, and the
//! order of confidence.

mod draws;
mod scoring;

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use crate::{Error, MaskPredictor, Result};

pub use draws::stratified_counts;
pub use scoring::{Scoring, TokenScore};

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
    /// Nothing: the chain rule in the order in which the model is surest of the answer's own
    /// tokens. Of the tokens that are still masked the likeliest is revealed, of equals the first;
    /// a pass for each token (iLLaDA's scoring by confidence).
    Confidence,
}

impl Estimator {
    /// All estimators.
    pub const ALL: [Self; 4] = [Self::Count, Self::Ratio, Self::Chain, Self::Confidence];

    /// The name on the command line and in requests: `l`, `t`, `chain` or `confidence`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "l",
            Self::Ratio => "t",
            Self::Chain => "chain",
            Self::Confidence => "confidence",
        }
    }

    /// Whether it takes random draws; the others are exact.
    #[must_use]
    pub fn is_random(self) -> bool {
        matches!(self, Self::Count | Self::Ratio)
    }
}

impl fmt::Display for Estimator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Estimator {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL
            .into_iter()
            .find(|estimator| estimator.name() == name);
        found.ok_or_else(|| Error::UnknownEstimator {
            name: name.to_owned(),
        })
    }
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
/// [`Estimator::Chain`] and [`Estimator::Confidence`] the chain rule, which is exact and has no
/// standard error. So is the likelihood of an autoregressive predictor, in one pass and whatever the
/// number of draws. It is a [`Scoring`] from its first call of the predictor to its last.
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
    Scoring::new(sequences, config, &predictor.info())?.run(predictor)
}

impl ScoredSequence<'_> {
    fn answer_len(&self) -> usize {
        self.tokens.len() - self.prompt_len
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
    let mut scoring = Scoring::in_order(sequence, order, config, &predictor.info())?;
    scoring.run(predictor)?;
    let scores = scoring.token_scores(0);
    Ok(scores.map(|score| score.log_probability).collect())
}
