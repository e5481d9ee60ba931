//! Reduction of logits to a candidate token per position: the inner loop of every sampling step.
//!
//! `token = argmax_v (logit_v - T ln(-ln u_v))`, `confidence = softmax(logits)[token]`.
//! The logits of a row are reduced tile by tile, so that `[N, V]` is never stored.

use super::Cost;
use crate::backend::Rhs;
use crate::error::expect_shapes;
use crate::{Error, Philox, Precision, Result, Stream, Tensor};

/// How a token is chosen from logits.
#[derive(Debug, Clone, Copy, Default)]
pub struct CandidateRule<'a> {
    /// Gumbel temperature `T`; 0 takes the most likely token.
    pub temperature: f64,
    /// Classifier-free guidance scale `w`; only used with unconditional logits.
    pub cfg_scale: f32,
    /// Ids that are never chosen and have no probability (`logits_eos_inf`).
    pub suppress: &'a [u32],
    /// Ids that can be chosen, but have no probability in the confidence
    /// (`confidence_eos_eot_inf`).
    pub suppress_confidence: &'a [u32],
}

/// Guided logit `un + (w + 1) (cond - un)` for `w = cfg_scale`; a token that is excluded stays so.
///
/// Source: arXiv 2502.09992, eq. 16.
#[must_use]
pub fn guide(cfg_scale: f32, cond: f32, un: f32) -> f32 {
    if cond == f32::NEG_INFINITY {
        return cond;
    }
    un + (cfg_scale + 1.0) * (cond - un)
}

/// Where the Gumbel noise comes from.
#[derive(Debug, Clone, Copy)]
pub enum Noise<'a> {
    /// No noise: temperature 0.
    None,
    /// Philox, keyed by seed; row `i` uses the counter `keys[i] = (sequence, position, step)`.
    /// Draws depend on nothing else. There are 2^20 positions and 4,096 steps.
    Philox {
        /// Seed of the request of each row.
        seeds: &'a [u64],
        /// Sequence, position and step of each row.
        keys: &'a [[u32; 3]],
    },
    /// Recorded uniform draws, row-major `[N, V]`.
    Recorded(&'a [f64]),
}

/// Bits of a step in the word of a counter that it shares with the position.
const STEP_BITS: u32 = 12;

/// Whether position and step fit into their word: else the draws would be those of another place.
fn has_own_draws(&[_, position, step]: &[u32; 3]) -> bool {
    step < 1 << STEP_BITS && position < 1 << (u32::BITS - STEP_BITS)
}

impl Noise<'_> {
    /// An error if draws would repeat those of another position and step.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a step from 4,096 on, or a position from 2^20 on.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Philox { keys, .. } if !keys.iter().all(has_own_draws) => {
                let op = "candidates";
                let what = "there is noise for 4096 steps and 2^20 positions: \
                            take fewer, or temperature 0";
                Err(Error::InvalidArgument { op, what })
            }
            _ => Ok(()),
        }
    }

    /// The uniform draw of one vocabulary entry.
    fn uniform(&self, row: usize, token: usize, vocab_size: usize) -> f64 {
        self.uniform_pair(row, token, vocab_size)[token % 2]
    }

    /// The draws of an even entry and of the one after it, of which `token` is one.
    fn uniform_pair(&self, row: usize, token: usize, vocab_size: usize) -> [f64; 2] {
        match self {
            Self::None => [0.5; 2],
            Self::Recorded(draws) => {
                let draws = &draws[row * vocab_size..(row + 1) * vocab_size];
                [token & !1, token | 1].map(|at| draws.get(at).copied().unwrap_or(0.5))
            }
            Self::Philox { seeds, keys } => {
                let [sequence, position, step] = keys[row];
                assert!(has_own_draws(&keys[row]), "`Noise::check` says so first");
                let place = (position << STEP_BITS) ^ step;
                let token = u32::try_from(token).unwrap_or(u32::MAX);
                Philox::new(seeds[row], Stream::Gumbel).uniform_f64_pair([
                    token / 2,
                    place,
                    sequence,
                ])
            }
        }
    }
}

/// The chosen token of one position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The chosen token.
    pub token: u32,
    /// Probability of the chosen token under the noise-free logits; NaN if one of them is NaN or
    /// no token is left to choose.
    pub confidence: f32,
    /// Difference between the two largest probabilities (noise-free).
    pub margin: f32,
    /// Entropy of the noise-free distribution, nats.
    pub entropy: f32,
}

/// Arguments of [`crate::backend::Backend::candidates`].
#[derive(Debug, Clone, Copy)]
pub struct CandidateArgs<'a> {
    /// Hidden states after the last norm, `[N, D]`.
    pub hidden: &'a Tensor,
    /// Hidden states of the unconditional batch, `[N, D]`.
    pub unconditional: Option<&'a Tensor>,
    /// LM head `[V, D]`.
    pub head: Rhs<'a>,
    /// Bias `[V]` of the head.
    pub bias: Option<&'a Tensor>,
    /// How tokens are chosen.
    pub rule: &'a CandidateRule<'a>,
    /// Gumbel noise.
    pub noise: &'a Noise<'a>,
    /// Precision of the products.
    pub precision: Precision,
}

/// Checks shapes, then chooses a token for each of the `N` rows.
///
/// # Errors
/// [`Error::ShapeMismatch`], also for noise of another length; [`Error::DTypeMismatch`]; as
/// [`Noise::check`].
pub fn candidates(args: CandidateArgs<'_>) -> Result<Vec<Candidate>> {
    let op = "candidates";
    let (d, vocab_size) = args.head.k_n().unwrap_or_default();
    let rows = args.hidden.shape().first().copied().unwrap_or(0);
    args.head.expect_f32(op)?;
    for hidden in [Some(args.hidden), args.unconditional]
        .into_iter()
        .flatten()
    {
        expect_shapes(op, hidden.shape(), &[rows, d])?;
        hidden.expect_f32(op)?;
    }
    if let Some(bias) = args.bias {
        expect_shapes(op, bias.shape(), &[vocab_size])?;
    }
    args.noise.check()?;
    match *args.noise {
        Noise::None => {}
        Noise::Philox { seeds, keys } => expect_shapes(op, &[seeds.len(), keys.len()], &[rows; 2])?,
        Noise::Recorded(draws) => expect_shapes(op, &[draws.len()], &[rows * vocab_size])?,
    }
    args.hidden.device().backend().candidates(args)
}

/// Reduces one row of logits `[V]`.
#[must_use]
pub fn reduce_logits(
    logits: &[f32],
    row: usize,
    rule: &CandidateRule<'_>,
    noise: &Noise<'_>,
) -> Candidate {
    let mut reducer = RowReducer::default();
    reducer.push(logits, 0, row, logits.len(), rule, noise);
    reducer.finish()
}

/// What a tile of logits adds to a row without noise.
#[derive(Debug, Clone, Copy)]
pub struct TileSummary {
    /// The largest logit.
    pub first: f32,
    /// The second largest.
    pub second: f32,
    /// `Σ e^(x - first)`; NaN if a logit is.
    pub sum: f32,
    /// `Σ e^(x - first) (x - first)`.
    pub weighted: f32,
}

/// Online reduction of one row over tiles of the vocabulary.
#[derive(Debug, Clone, Copy)]
pub struct RowReducer {
    best_score: f64,
    token: u32,
    token_logit: f32,
    token_counts: bool,
    first: f32,
    second: f32,
    sum: f64,
    weighted: f64,
}

impl Default for RowReducer {
    fn default() -> Self {
        Self {
            best_score: f64::NEG_INFINITY,
            token: 0,
            token_logit: f32::NEG_INFINITY,
            token_counts: true,
            first: f32::NEG_INFINITY,
            second: f32::NEG_INFINITY,
            sum: 0.0,
            weighted: 0.0,
        }
    }
}

impl RowReducer {
    /// Takes in the logits of `start..start + tile.len()`.
    pub fn push(
        &mut self,
        tile: &[f32],
        start: usize,
        row: usize,
        vocab_size: usize,
        rule: &CandidateRule<'_>,
        noise: &Noise<'_>,
    ) {
        for (i, &logit) in tile.iter().enumerate() {
            let token = start + i;
            let id = u32::try_from(token).unwrap_or(u32::MAX);
            if rule.suppress.contains(&id) {
                continue;
            }
            let counts = !rule.suppress_confidence.contains(&id);
            let mut score = f64::from(logit);
            if rule.temperature > 0.0 {
                let u = noise.uniform(row, token, vocab_size);
                score -= rule.temperature * (-u.ln()).ln();
            }
            if score > self.best_score {
                self.best_score = score;
                self.token = id;
                self.token_logit = logit;
                self.token_counts = counts;
            }
            if counts {
                self.count(logit);
            }
        }
    }

    /// Takes in a tile whose ids all count, `start..start + tile.len()`, and that [`Self::push`]
    /// would take one by one: a few of its tokens can be chosen, and only those cost a logarithm.
    pub fn merge(
        &mut self,
        tile: &[f32],
        (start, row, vocab_size): (usize, usize, usize),
        summary: TileSummary,
        (temperature, noise): (f64, &Noise<'_>),
    ) {
        self.count_tile(summary);
        let mut choose = |at: usize, score: f64| {
            if score > self.best_score {
                self.best_score = score;
                self.token = u32::try_from(start + at).unwrap_or(u32::MAX);
                self.token_logit = tile[at];
                self.token_counts = true;
            }
        };
        if temperature <= 0.0 {
            let first = summary.first;
            if let Some(at) = tile.iter().position(|&x| x >= first) {
                choose(at, f64::from(first));
            }
            return;
        }
        let mut best = f64::NEG_INFINITY;
        let mut pair = [0.0; 2];
        for (at, &logit) in tile.iter().enumerate() {
            let token = start + at;
            if token % 2 == 0 || at == 0 {
                pair = noise.uniform_pair(row, token, vocab_size);
            }
            let u = pair[token % 2];
            if f64::from(logit) + temperature * gumbel_bound(u) < best {
                continue;
            }
            let score = f64::from(logit) - temperature * (-u.ln()).ln();
            best = best.max(score);
            choose(at, score);
        }
    }

    fn count_tile(&mut self, summary: TileSummary) {
        let TileSummary { first, second, .. } = summary;
        if summary.sum.is_nan() {
            self.sum = f64::NAN;
            self.weighted = f64::NAN;
            return;
        }
        if first == f32::NEG_INFINITY {
            return;
        }
        let max = self.first.max(first);
        let of = |before: f32| f64::from(before - max).exp();
        let (sum, max_f64) = (f64::from(summary.sum), f64::from(first));
        self.sum = self.sum * of(self.first) + sum * of(first);
        self.weighted = self.weighted * of(self.first)
            + (f64::from(summary.weighted) + sum * max_f64) * of(first);
        self.second = self.second.max(second).max(self.first.min(first));
        self.first = max;
    }

    /// Adds a logit to the running softmax: `sum = Σ e^(x - max)`, `weighted = Σ e^(x - max) x`.
    /// A NaN makes both NaN for good.
    fn count(&mut self, logit: f32) {
        if logit > self.first {
            let shrink = f64::from(self.first - logit).exp();
            self.sum *= shrink;
            self.weighted *= shrink;
            self.second = self.first;
            self.first = logit;
        } else if logit > self.second {
            self.second = logit;
        }
        if logit != f32::NEG_INFINITY {
            let e = f64::from(logit - self.first).exp();
            self.sum += e;
            self.weighted += e * f64::from(logit);
        }
    }

    /// The candidate of the row.
    #[must_use]
    pub fn finish(&self) -> Candidate {
        let lse = f64::from(self.first) + self.sum.ln();
        let probability = |logit: f32| (f64::from(logit) - lse).exp();
        let confidence = if self.token_counts {
            probability(self.token_logit)
        } else {
            0.0
        };
        let margin = probability(self.first) - probability(self.second);
        let entropy = lse - self.weighted / self.sum;
        #[expect(clippy::cast_possible_truncation, reason = "reported in f32")]
        let [confidence, margin, entropy] = [confidence as f32, margin as f32, entropy as f32];
        Candidate {
            token: self.token,
            confidence,
            margin,
            entropy,
        }
    }
}

/// At least the Gumbel noise `-ln(-ln u)`, without a logarithm: `-ln u >= 1 - u`, and the exponent
/// of that bounds it by a power of two.
fn gumbel_bound(u: f64) -> f64 {
    let exponent = ((1.0 - u).to_bits() >> 52) as i32 - 1023;
    // A hair more, for the rounding of the product.
    f64::from(-exponent) * (std::f64::consts::LN_2 + 1e-12) + 1e-12
}

/// Work of one call: the product of `[N, D]` and `[V, D]`; the reduction is not counted.
#[must_use]
pub fn cost(rows: usize, vocab_size: usize, d_model: usize, weight_bytes: usize) -> Cost {
    let (n, v, d) = (rows as u64, vocab_size as u64, d_model as u64);
    Cost {
        flops: 2 * n * v * d,
        bytes: v * d * weight_bytes as u64 + 4 * n * d,
    }
}
