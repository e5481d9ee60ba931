//! What is asked of a mask predictor.

use std::ops::Range;
use std::sync::Arc;

use llada_tensor::Tensor;
use llada_tensor::backend::{Candidate, Noise};
use llada_tensor::ops::candidates::{CandidateRule, RowReducer, guide, reduce_logits};
use llada_tensor::ops::embedding::write_rows;

use crate::{Branch, DenoisingStep, Error, MaskPredictor, Result, TokenBatch, TokenSet};

/// One question to a predictor: what it sees, what it computes of that, and which positions it is
/// asked about.
#[derive(Debug)]
pub struct Query<'a> {
    /// The sequences, with masks.
    pub batch: &'a TokenBatch,
    /// `[N]` indexes into the flattened batch; only they are computed by the head. Ascending, and
    /// with caches among the rows of the plans.
    pub positions: &'a [usize],
    /// Classifier-free guidance.
    pub guidance: Option<Guidance<'a>>,
    /// Keys and values of earlier calls; `None`: everything is computed and seen.
    pub cached: Option<Cached<'a>>,
}

impl<'a> Query<'a> {
    /// Asks about positions of whole sequences.
    #[must_use]
    pub fn new(batch: &'a TokenBatch, positions: &'a [usize]) -> Self {
        Self {
            batch,
            positions,
            guidance: None,
            cached: None,
        }
    }

    /// The logits of this query `[N, V]`, for predictors that only have `logits` of whole
    /// sequences.
    ///
    /// # Errors
    /// Those of `logits`; [`Error::Unsupported`] for a query with caches.
    pub fn by_logits(
        &self,
        mut logits: impl FnMut(&TokenBatch, &[usize]) -> Result<Vec<f32>>,
    ) -> Result<Vec<f32>> {
        if self.cached.is_some() {
            return Err(Error::Unsupported {
                what: "caches of keys and values",
            });
        }
        let mut x = logits(self.batch, self.positions)?;
        if let Some(guidance) = &self.guidance {
            let un = logits(guidance.unconditional, self.positions)?;
            guide_all(guidance.cfg_scale, &mut x, &un);
        }
        Ok(x)
    }
}

/// Classifier-free guidance (arXiv 2502.09992, eq. 16).
#[derive(Debug, Clone, Copy)]
pub struct Guidance<'a> {
    /// The batch without what guides, in the same shape.
    pub unconditional: &'a TokenBatch,
    /// How far logits are pushed away from the unconditional ones.
    pub cfg_scale: f32,
}

/// How a sampling step chooses the token of each position.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// Temperature of the Gumbel noise; 0 takes the most likely token.
    pub temperature: f64,
    /// Ids that are never chosen and have no probability.
    pub suppress: &'a [u32],
    /// Ids that can be chosen, but have no probability in the confidence.
    pub suppress_confidence: &'a [u32],
    /// The Gumbel noise, if the temperature is positive.
    pub noise: Noise<'a>,
    /// This step and those after it, as far as it is known how they remask; a predictor that gains
    /// nothing from that ignores it. Empty: this step alone.
    pub ahead: &'a [DenoisingStep<'a>],
}

impl Choice<'_> {
    /// The most likely token of each position.
    pub const GREEDY: Choice<'static> = Choice {
        temperature: 0.0,
        suppress: &[],
        suppress_confidence: &[],
        noise: Noise::None,
        ahead: &[],
    };

    /// What the runtime's op is told; it guides logits itself.
    #[must_use]
    pub fn rule(&self, cfg_scale: f32) -> CandidateRule<'_> {
        CandidateRule {
            temperature: self.temperature,
            cfg_scale,
            suppress: self.suppress,
            suppress_confidence: self.suppress_confidence,
        }
    }

    /// Chooses by the logits of a query, for predictors that have nothing faster.
    ///
    /// # Errors
    /// As [`MaskPredictor::logits`].
    pub fn by_logits(
        &self,
        predictor: &(impl MaskPredictor + ?Sized),
        query: Query<'_>,
    ) -> Result<Candidates> {
        self.noise.check()?;
        let (vocab_size, rule) = (predictor.info().vocab_size, self.rule(0.0));
        let logits = predictor.logits(query)?;
        let rows = logits.chunks_exact(vocab_size).enumerate();
        let best = |(row, logits): (usize, &[f32])| reduce_logits(logits, row, &rule, &self.noise);
        Ok(rows.map(best).collect::<Vec<_>>().into())
    }
}

/// Which tokens may be drawn beside the most likely one.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Nucleus {
    /// The most likely ones, so many of them.
    pub top_k: Option<usize>,
    /// The fewest of these whose probabilities, at the temperature, reach this sum
    /// (arXiv 1904.09751).
    pub top_p: Option<f64>,
}

impl Nucleus {
    /// Whether every token may be drawn.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// The tokens of a row of logits `[V]` that may be chosen, ascending: of those in `set`, if there
    /// is one, and not in `rule.suppress`.
    fn tokens(
        &self,
        logits: &[f32],
        rule: &CandidateRule<'_>,
        set: Option<&TokenSet>,
    ) -> Vec<usize> {
        let mut order = allowed(logits.len(), rule, set);
        if self.is_all() {
            return order;
        }
        // Of equals the one with the lower id.
        order.sort_by(|&left, &right| logits[right].total_cmp(&logits[left]));
        order.truncate(self.top_k.unwrap_or(usize::MAX));
        if let Some(top_p) = self.top_p
            && let Some(&first) = order.first()
        {
            let weight =
                |at: usize| (f64::from(logits[at] - logits[first]) / rule.temperature).exp();
            let whole: f64 = order.iter().map(|&at| weight(at)).sum();
            let mut sum = 0.0;
            let reached = order.iter().position(|&at| {
                sum += weight(at);
                sum >= top_p * whole
            });
            order.truncate(reached.map_or(order.len(), |at| at + 1));
        }
        order.sort_unstable();
        order
    }

    /// The tokens of a row of logits `[V]` as Dream cuts it, ascending.
    fn passed(
        &self,
        logits: &[f32],
        rule: &CandidateRule<'_>,
        set: Option<&TokenSet>,
    ) -> Vec<usize> {
        let mut tokens = allowed(logits.len(), rule, set);
        if let Some(top_p) = self.top_p.filter(|&top_p| top_p < 1.0) {
            let max = tokens.iter().map(|&at| logits[at]);
            let max = max.fold(f32::NEG_INFINITY, f32::max);
            let weight = |at: usize| f64::from(logits[at] - max).exp();
            let whole: f64 = tokens.iter().map(|&at| weight(at)).sum();
            // Even all of the lighter ones together do not change where the sum passes: there are
            // few left to sort.
            let least = (1.0 - top_p) * whole / (2 * logits.len()) as f64;
            tokens.retain(|&at| weight(at) >= least);
            tokens.sort_by(|&left, &right| logits[right].total_cmp(&logits[left]));
            let mut sum = 0.0;
            let passed = tokens.iter().position(|&at| {
                sum += weight(at);
                sum > top_p * whole
            });
            tokens.truncate(passed.map_or(tokens.len(), |at| at + 1));
            tokens.sort_unstable();
        }
        if let Some(top_k) = self.top_k.filter(|&top_k| top_k < tokens.len()) {
            let mut values: Vec<f32> = tokens.iter().map(|&at| logits[at]).collect();
            let by_value = |left: &f32, right: &f32| right.total_cmp(left);
            let last = top_k.saturating_sub(1);
            let bar = *values.select_nth_unstable_by(last, by_value).1;
            tokens.retain(|&at| logits[at] >= bar);
        }
        tokens
    }
}

/// The tokens of a vocabulary that may be chosen at a place, ascending.
fn allowed(vocab_size: usize, rule: &CandidateRule<'_>, set: Option<&TokenSet>) -> Vec<usize> {
    let mut ids: Vec<usize> = match set {
        Some(set) => set.ids().map(|id| id as usize).collect(),
        None => (0..vocab_size).collect(),
    };
    ids.retain(|&at| !rule.suppress.iter().any(|&id| id as usize == at));
    ids
}

impl Choice<'_> {
    /// As a predictor chooses by logits `[N, V]`, but only among the tokens of a nucleus and of a
    /// set, over which the probabilities are taken too. Without a temperature the nucleus changes
    /// nothing but these.
    ///
    /// `sets`: `[N]`, the tokens that may be chosen at each position; `None` is all of them.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`] if the logits do not divide among the sets;
    /// [`Error::TokenOutOfRange`] if a set has a token that can't be predicted; as
    /// [`Noise::check`].
    pub fn among(
        &self,
        nucleus: &Nucleus,
        sets: &[Option<Arc<TokenSet>>],
        logits: &[f32],
    ) -> Result<Vec<Candidate>> {
        let mut warm = self.rule(0.0);
        // The most likely token is in every nucleus.
        warm.temperature = warm.temperature.max(f64::MIN_POSITIVE);
        self.choose(sets, logits, |row, logits, set| {
            let tokens = nucleus.tokens(logits, &warm, set);
            self.reduce(row, logits, &tokens, self.temperature)
        })
    }

    /// As [`Self::among`], in the way of Dream: a temperature divides the logits before anything
    /// else, then they are cut to the nucleus, without a temperature too, and confidence, margin and
    /// entropy are those of what is left. The nucleus has the tokens up to the first at which the
    /// sum passes `top_p`, and of these all that are as likely as the `top_k`-th.
    ///
    /// # Errors
    /// As [`Self::among`].
    ///
    /// Source: `sample_tokens` in Dream's `generation_utils.py`.
    pub fn among_tempered(
        &self,
        nucleus: &Nucleus,
        sets: &[Option<Arc<TokenSet>>],
        logits: &[f32],
    ) -> Result<Vec<Candidate>> {
        // Of divided logits the noise is that of temperature 1.
        let (divisor, temperature) = match self.temperature > 0.0 {
            true => (self.temperature as f32, 1.0),
            false => (1.0, 0.0),
        };
        self.choose(sets, logits, |row, logits, set| {
            let divided: Vec<f32> = logits.iter().map(|x| x / divisor).collect();
            let tokens = nucleus.passed(&divided, &self.rule(0.0), set);
            self.reduce(row, &divided, &tokens, temperature)
        })
    }

    /// A candidate for each row of logits `[N, V]`.
    fn choose(
        &self,
        sets: &[Option<Arc<TokenSet>>],
        logits: &[f32],
        best: impl Fn(usize, &[f32], Option<&TokenSet>) -> Candidate,
    ) -> Result<Vec<Candidate>> {
        self.noise.check()?;
        let vocab_size = logits.len() / sets.len().max(1);
        crate::forward::expect_length("logits", vocab_size * sets.len(), logits.len())?;
        for (position, set) in sets.iter().enumerate() {
            let mut ids = set.iter().flat_map(|set| set.ids());
            if let Some(id) = ids.find(|&id| id as usize >= vocab_size) {
                return Err(Error::TokenOutOfRange {
                    id,
                    position,
                    vocab_size,
                });
            }
        }
        let rows = logits.chunks_exact(vocab_size.max(1)).zip(sets).enumerate();
        Ok(rows
            .map(|(row, (logits, set))| best(row, logits, set.as_deref()))
            .collect())
    }

    /// The best of some tokens of a row of logits `[V]`.
    fn reduce(&self, row: usize, logits: &[f32], tokens: &[usize], temperature: f64) -> Candidate {
        let rule = CandidateRule {
            temperature,
            ..self.rule(0.0)
        };
        let mut reducer = RowReducer::default();
        for &at in tokens {
            reducer.push(&logits[at..=at], at, row, logits.len(), &rule, &self.noise);
        }
        reducer.finish()
    }
}

/// The best tokens of the positions of a query.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Candidates {
    /// `[N]`: those of this step.
    pub now: Vec<Candidate>,
    /// `[N]` each: those of the steps after it that were taken with it, each over the canvas that
    /// the one before has left. Of a position that is no longer masked they say nothing.
    pub ahead: Vec<Vec<Candidate>>,
}

impl From<Vec<Candidate>> for Candidates {
    fn from(now: Vec<Candidate>) -> Self {
        let ahead = Vec::new();
        Self { now, ahead }
    }
}

/// Keys and values of the positions of one sequence, of every layer, as the predictor last saw
/// them (Fast-dLLM, arXiv 2505.22618). Empty until the first call that is given it.
#[derive(Debug, Default)]
pub struct KvCache {
    /// Keys (rotated) and values of each layer, `[L, K * E]`; for predictors to fill.
    pub layers: Vec<[Tensor; 2]>,
    /// `[L]`: positions whose keys and values have been computed; for predictors to fill.
    pub known: Vec<bool>,
}

impl KvCache {
    /// Bytes of the keys and values, of all positions.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let tables = self.layers.iter().flatten();
        tables.map(|x| x.numel() * x.dtype().size_bytes()).sum()
    }

    /// Positions from the start whose keys and values have been computed.
    #[must_use]
    pub fn n_known(&self) -> usize {
        self.known.iter().take_while(|known| **known).count()
    }

    /// A copy of the first `n` positions, as the cache of a sequence of `length` that begins alike.
    /// They are the same there only if positions see nothing that comes after them.
    ///
    /// # Errors
    /// If there are fewer, or the runtime fails.
    pub fn beginning(&self, n: usize, length: usize) -> Result<Self> {
        let copy = |x: &Tensor| -> Result<Tensor> {
            let mut table = Tensor::empty(x.device(), x.dtype(), &[length, x.shape()[1]])?;
            write_rows(&mut table, 0, &x.narrow(0, 0, n)?)?;
            Ok(table)
        };
        crate::forward::expect_length("known positions", n, self.n_known().min(n))?;
        let layers = self.layers.iter();
        let layers = layers.map(|[keys, values]| Ok([copy(keys)?, copy(values)?]));
        let mut known = vec![false; length];
        known[..n].copy_from_slice(&self.known[..n]);
        Ok(Self {
            layers: layers.collect::<Result<_>>()?,
            known,
        })
    }
}

/// What a call computes of one sequence, and what it sees: ascending ranges of positions that do
/// not touch each other. Positions are those of the whole sequence, whatever is left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowPlan {
    /// Positions that are computed; their keys and values are replaced.
    pub rows: Vec<Range<usize>>,
    /// Positions that every row attends to: the rows, and others that were computed before.
    pub keys: Vec<Range<usize>>,
}

impl RowPlan {
    /// One window of a sequence of `length` positions, all of which are seen.
    #[must_use]
    pub fn window(window: Range<usize>, length: usize) -> Self {
        Self {
            rows: vec![window],
            keys: std::iter::once(0..length).collect(),
        }
    }

    /// The plan of positions that are chosen one by one: `[L]` each.
    #[must_use]
    pub fn of(is_row: &[bool], is_key: &[bool]) -> Self {
        Self {
            rows: ranges(is_row),
            keys: ranges(is_key),
        }
    }

    /// How many positions are computed.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.rows.iter().map(ExactSizeIterator::len).sum()
    }

    /// Positions that are computed, ascending.
    pub fn positions(&self) -> impl Iterator<Item = usize> {
        self.rows.iter().cloned().flatten()
    }
}

/// The stretches of `true`.
fn ranges(chosen: &[bool]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for at in (0..chosen.len()).filter(|&at| chosen[at]) {
        match ranges.last_mut() {
            Some(last) if last.end == at => last.end += 1,
            _ => ranges.push(at..at + 1),
        }
    }
    ranges
}

/// What a call with caches computes of each sequence of its batch.
#[derive(Debug)]
pub struct Cached<'a> {
    /// What is computed and seen, for each sequence.
    pub plans: &'a [RowPlan],
    /// The cache of each sequence, but for the last ones.
    pub caches: &'a mut [&'a mut KvCache],
    /// The last sequences, which read a cache of another one; usually none.
    pub branches: &'a mut [Branch],
}

/// Pushes logits away from unconditional ones of the same number, `[N, V]` each; see [`guide`].
pub fn guide_all(cfg_scale: f32, logits: &mut [f32], un: &[f32]) {
    for (x, &un) in logits.iter_mut().zip(un) {
        *x = guide(cfg_scale, *x, un);
    }
}

/// Cross-entropies of rows of logits `[N, V]` with targets `[N]`, each `-ln softmax(logits)[target]`
/// in nats, summed in `f64`.
///
/// # Panics
/// If a target is not below `V`.
#[must_use]
pub fn cross_entropies(logits: &[f32], targets: &[u32]) -> Vec<f32> {
    let vocab_size = logits.len() / targets.len().max(1);
    logits
        .chunks_exact(vocab_size.max(1))
        .zip(targets)
        .map(|(row, &target)| -log_probability(row)(target as usize) as f32)
        .collect()
}

/// `ln softmax(row)[id]` in nats of a row of logits `[V]`, for each `id`; rounded to `f32`, as the
/// losses of a predictor are.
pub(crate) fn log_probability(row: &[f32]) -> impl Fn(usize) -> f64 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|&x| f64::from(x - max).exp()).sum();
    let log_sum = sum.ln();
    move |id| -f64::from((log_sum + f64::from(max - row[id])) as f32)
}
