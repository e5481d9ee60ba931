//! Sequences on their way to a likelihood, a call of the predictor at a time.

use super::draws::{masked_by_count, masked_by_ratio, masked_counts};
use super::{Estimate, Estimator, LikelihoodConfig, ScoredSequence};
use crate::forward::expect_length;
use crate::query::log_probability;
use crate::{
    Error, Guidance, MaskPredictor, PredictorInfo, Query, Result, TokenBatch, expect_targets,
};

/// What a model says of one token of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenScore {
    /// `ln p` of the token, in nats.
    pub log_probability: f64,
    /// The likeliest tokens in its place with their `ln p`, in nats, as many as
    /// [`Scoring::with_top`] asks for: the best first, of equals the one with the lower id.
    pub top: Vec<(u32, f64)>,
}

/// Likelihoods that are found step by step, so that other work can be done between two calls of the
/// predictor; [`super::log_likelihood`] runs one to its end.
///
/// It owns its sequences. Its results don't depend on what is done between its steps, nor on how
/// many sequences share a call.
#[derive(Debug)]
pub struct Scoring {
    /// Tokens, and the length of the prompt.
    sequences: Vec<(Vec<u32>, usize)>,
    suffix: Vec<u32>,
    config: LikelihoodConfig,
    info: PredictorInfo,
    way: Way,
    n_top: usize,
    /// The next sequence to be shown, and how often it was shown before.
    place: [usize; 2],
    /// A sequence, and the masked tokens of each of its draws.
    counts: (usize, Vec<usize>),
    /// Of each sequence: the value of each draw.
    draws: Vec<Vec<f64>>,
    /// Of each sequence: what is known of the tokens of its answer.
    tokens: Vec<Vec<Option<TokenScore>>>,
}

/// How sequences are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    /// With random masks.
    MonteCarlo,
    /// With the tokens after one in this order masked; `None` is from left to right.
    Chain(Option<Vec<usize>>),
    /// With the tokens masked of which nothing is known yet.
    Confidence,
    /// Whole, to a predictor of next tokens.
    NextToken,
}

impl Scoring {
    /// Sequences to be scored by a predictor with this `info`; nothing is computed yet.
    ///
    /// # Errors
    /// As [`super::log_likelihood`], but for those of the predictor.
    pub fn new(
        sequences: &[ScoredSequence<'_>],
        config: &LikelihoodConfig,
        info: &PredictorInfo,
    ) -> Result<Self> {
        if info.is_autoregressive() {
            let of_diffusion = [
                ("estimator t", config.estimator == Estimator::Ratio),
                (
                    "estimator confidence",
                    config.estimator == Estimator::Confidence,
                ),
                ("batch_size", config.batch_size.is_some()),
                ("cfg_scale", config.cfg_scale > 0.0),
            ];
            return match of_diffusion.into_iter().find(|(_, is_set)| *is_set) {
                Some((what, _)) => Err(Error::NotAutoregressive { what }),
                None => Self::next_token(sequences, config.max_batch_tokens, info),
            };
        }
        let way = match config.estimator {
            Estimator::Count | Estimator::Ratio => Way::MonteCarlo,
            Estimator::Chain => Way::Chain(None),
            Estimator::Confidence => Way::Confidence,
        };
        Self::check(sequences, config, &way)?;
        Ok(Self::unchecked(sequences, config, info, way))
    }

    /// One sequence by the chain rule in any order; see [`super::chain_rule`].
    pub(super) fn in_order(
        sequence: &ScoredSequence<'_>,
        order: &[usize],
        config: &LikelihoodConfig,
        info: &PredictorInfo,
    ) -> Result<Self> {
        let sequences = std::slice::from_ref(sequence);
        let way = Way::Chain(Some(order.to_vec()));
        Self::check(sequences, config, &way)?;
        if info.is_autoregressive() {
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
        Ok(Self::unchecked(sequences, config, info, way))
    }

    /// Sequences to be scored by a predictor of next tokens; see
    /// [`crate::autoregressive_log_likelihood`].
    pub(crate) fn next_token(
        sequences: &[ScoredSequence<'_>],
        max_batch_tokens: usize,
        info: &PredictorInfo,
    ) -> Result<Self> {
        for sequence in sequences {
            let prompt_len = sequence.prompt_len;
            if !(1..sequence.tokens.len()).contains(&prompt_len) {
                return Err(Error::OutOfRange {
                    what: "prompt_len",
                    expected: "at least 1 and less than the length of the sequence",
                    got: prompt_len as f64,
                });
            }
        }
        let config = LikelihoodConfig {
            max_batch_tokens,
            ..LikelihoodConfig::default()
        };
        Ok(Self::unchecked(sequences, &config, info, Way::NextToken))
    }

    fn check(sequences: &[ScoredSequence<'_>], config: &LikelihoodConfig, way: &Way) -> Result<()> {
        /// There is a weight and a value of each draw in memory.
        const MAX_SAMPLES: usize = 1 << 24;
        let out_of_range = |what, expected, got| {
            Err(Error::OutOfRange {
                what,
                expected,
                got,
            })
        };
        let scale = config.cfg_scale;
        if !(scale.is_finite() && scale >= 0.0) {
            return out_of_range("cfg_scale", "a number, 0 or more", f64::from(scale));
        }
        for sequence in sequences {
            let prompt_len = sequence.prompt_len;
            if prompt_len >= sequence.tokens.len() {
                let expected = "less than the length of the sequence";
                return out_of_range("prompt_len", expected, prompt_len as f64);
            }
        }
        let n = config.mc_samples;
        if *way == Way::MonteCarlo && !(1..=MAX_SAMPLES).contains(&n) {
            return out_of_range("mc_samples", "from 1 to 16777216", n as f64);
        }
        Ok(())
    }

    fn unchecked(
        sequences: &[ScoredSequence<'_>],
        config: &LikelihoodConfig,
        info: &PredictorInfo,
        way: Way,
    ) -> Self {
        let n_scores = |sequence: &ScoredSequence<'_>| match way {
            Way::MonteCarlo => 0,
            _ => sequence.answer_len(),
        };
        Self {
            draws: vec![Vec::new(); sequences.len()],
            tokens: (sequences.iter())
                .map(|sequence| vec![None; n_scores(sequence)])
                .collect(),
            sequences: (sequences.iter())
                .map(|sequence| (sequence.tokens.to_vec(), sequence.prompt_len))
                .collect(),
            config: *config,
            suffix: Vec::new(),
            info: *info,
            way,
            n_top: 0,
            place: [0, 0],
            counts: (usize::MAX, Vec::new()),
        }
    }

    /// Finds the `n` likeliest tokens in the place of each token as well, in the same calls
    /// ([`TokenScore::top`]).
    ///
    /// It goes by [`MaskPredictor::logits`]: a row of the vocabulary in memory for each position
    /// that a call is asked about, which are all tokens of the answers of an autoregressive
    /// predictor, all masks with [`Estimator::Confidence`], and one a sequence by the chain rule.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] with an estimator that takes draws, which score no single token.
    pub fn with_top(self, n: usize) -> Result<Self> {
        if self.way == Way::MonteCarlo && n > 0 {
            return Err(Error::OutOfRange {
                what: "the number of likeliest tokens",
                expected: "0 with estimator l or t (chain and confidence score single tokens)",
                got: n as f64,
            });
        }
        Ok(Self { n_top: n, ..self })
    }

    /// Shows these tokens, some of which may be masks, after each answer. They are given, as a prompt
    /// is: not scored, and hidden by guidance.
    ///
    /// # Errors
    /// [`Error::NotAutoregressive`] for a predictor of next tokens.
    pub fn with_suffix(self, suffix: Vec<u32>) -> Result<Self> {
        if self.way == Way::NextToken && !suffix.is_empty() {
            return Err(Error::NotAutoregressive { what: "a suffix" });
        }
        Ok(Self { suffix, ..self })
    }

    /// How often sequences are shown to the predictor in all steps.
    #[must_use]
    pub fn n_passes(&self) -> usize {
        (0..self.sequences.len()).map(|at| self.n_shows(at)).sum()
    }

    /// One call of the predictor, over at most `max_batch_tokens` tokens (a longer sequence goes
    /// alone). The estimates of the sequences in their order, once the last call was made.
    ///
    /// # Errors
    /// [`Error::NotANumber`] for a loss; what the predictor returns otherwise. The next step then
    /// asks the same again.
    pub fn step(&mut self, predictor: &dyn MaskPredictor) -> Result<Option<Vec<Estimate>>> {
        let (group, place) = self.group();
        if !group.is_empty() {
            let scores = self.ask(predictor, &group)?;
            self.keep(group, scores);
        }
        self.place = place;
        let is_done = place[0] == self.sequences.len();
        Ok(is_done.then(|| self.estimates()))
    }

    /// All steps that are left.
    pub(crate) fn run(&mut self, predictor: &dyn MaskPredictor) -> Result<Vec<Estimate>> {
        loop {
            if let Some(estimates) = self.step(predictor)? {
                return Ok(estimates);
            }
        }
    }

    /// What is known of the tokens of a sequence's answer, in their order: after the last step all
    /// of them. Nothing where draws score several at once ([`Estimator::is_random`]).
    pub fn token_scores(&self, sequence: usize) -> impl Iterator<Item = &TokenScore> {
        self.tokens[sequence].iter().flatten()
    }

    fn sequence(&self, at: usize) -> ScoredSequence<'_> {
        let (tokens, prompt_len) = &self.sequences[at];
        ScoredSequence {
            tokens,
            prompt_len: *prompt_len,
        }
    }

    /// How often a sequence is shown.
    fn n_shows(&self, at: usize) -> usize {
        let answer_len = self.sequence(at).answer_len();
        match self.way {
            // An answer of one token has one possible draw.
            Way::MonteCarlo if answer_len == 1 && self.config.estimator == Estimator::Count => 1,
            Way::MonteCarlo => self.config.mc_samples,
            Way::Chain(_) | Way::Confidence => answer_len,
            Way::NextToken => 1,
        }
    }

    /// The place after this one: sequence by sequence, or in turns if what is shown of one depends
    /// on what was found in its last turn.
    fn after(&self, [at, shown]: [usize; 2]) -> [usize; 2] {
        let n = self.sequences.len();
        if self.way != Way::Confidence {
            return match shown + 1 < self.n_shows(at) {
                true => [at, shown + 1],
                false => [at + 1, 0],
            };
        }
        let next = |from: usize, shown: usize| {
            let mut rest = from..n;
            rest.find(|&at| self.n_shows(at) > shown)
                .map(|at| [at, shown])
        };
        (next(at + 1, shown).or_else(|| next(0, shown + 1))).unwrap_or([n, 0])
    }

    /// What the next call shows, and the place after it.
    fn group(&mut self) -> (Vec<Shown>, [usize; 2]) {
        let (mut group, mut n_tokens, mut place) = (Vec::new(), 0, self.place);
        while let Some((tokens, _)) = self.sequences.get(place[0]) {
            n_tokens += tokens.len() + self.suffix.len();
            let is_next_turn = self.way == Way::Confidence && place[1] > self.place[1];
            if !group.is_empty() && (n_tokens > self.config.max_batch_tokens || is_next_turn) {
                break;
            }
            group.push(self.show(place));
            place = self.after(place);
        }
        (group, place)
    }

    /// A sequence as it is shown for the given time.
    fn show(&mut self, [at, shown]: [usize; 2]) -> Shown {
        let index = self.config.first_index + at;
        if self.way == Way::MonteCarlo && self.counts.0 != at {
            let counts = masked_counts(&self.sequence(at), &self.config, index);
            self.counts = (at, counts);
        }
        let (sequence, config) = (self.sequence(at), &self.config);
        let first = sequence.prompt_len;
        let answer = first..sequence.tokens.len();
        let (masked, asked, weight) = match &self.way {
            Way::MonteCarlo => {
                let (masked, weight) = match config.estimator {
                    Estimator::Ratio => masked_by_ratio(&sequence, config, index, shown),
                    _ => masked_by_count(&sequence, config, [index, shown], self.counts.1[shown]),
                };
                (masked.clone(), masked, weight)
            }
            Way::Chain(None) => {
                let masked: Vec<usize> = (first + shown..answer.end).collect();
                (masked, vec![first + shown], 1.0)
            }
            Way::Chain(Some(order)) => {
                let masked: Vec<usize> = order[shown..].iter().map(|at| first + at).collect();
                (masked, vec![first + order[shown]], 1.0)
            }
            Way::Confidence => {
                let scores = &self.tokens[at];
                let is_unknown = |position: &usize| scores[position - first].is_none();
                let masked: Vec<usize> = answer.filter(is_unknown).collect();
                (masked.clone(), masked, 1.0)
            }
            Way::NextToken => (Vec::new(), answer.collect(), 1.0),
        };
        let mut tokens = sequence.tokens.to_vec();
        for position in masked {
            tokens[position] = self.info.mask_token_id;
        }
        tokens.extend_from_slice(&self.suffix);
        Shown {
            at,
            tokens,
            asked,
            weight,
        }
    }

    /// The position whose output is about the token at `position`. Of next tokens it is the one
    /// before, whatever the predictor says of itself: a trainer measures what it makes of it.
    fn asked_at(&self, position: usize) -> usize {
        match self.way {
            Way::NextToken => position - 1,
            _ => self.info.position_of(position),
        }
    }

    /// One call of the predictor: a score for each position of each sequence that is asked about.
    fn ask(&self, predictor: &dyn MaskPredictor, group: &[Shown]) -> Result<Vec<TokenScore>> {
        let mask = self.info.mask_token_id;
        let tokens: Vec<&[u32]> = group.iter().map(|shown| &shown.tokens[..]).collect();
        let batch = TokenBatch::new(&tokens)?;
        let (mut positions, mut targets) = (Vec::new(), Vec::new());
        for (shown, start) in group.iter().zip(batch.offsets()) {
            for &position in &shown.asked {
                positions.push(start + self.asked_at(position));
                targets.push(self.sequences[shown.at].0[position]);
            }
        }
        let mut query = Query::new(&batch, &positions);
        let mut unconditional = None;
        if self.config.cfg_scale > 0.0 {
            let mut hidden = batch.clone();
            for (shown, start) in group.iter().zip(batch.offsets()) {
                let (tokens, prompt_len) = &self.sequences[shown.at];
                let ids = &mut hidden.ids_mut()[*start..start + shown.tokens.len()];
                ids[..*prompt_len].fill(mask);
                ids[tokens.len()..].fill(mask);
            }
            unconditional = Some(hidden);
        }
        query.guidance = unconditional.as_ref().map(|unconditional| Guidance {
            unconditional,
            cfg_scale: self.config.cfg_scale,
        });
        if self.n_top > 0 {
            expect_targets(&positions, &targets, self.info.vocab_size)?;
            let logits = predictor.logits(query)?;
            let expected = positions.len() * self.info.vocab_size;
            expect_length("logits", expected, logits.len())?;
            let rows = logits.chunks_exact(self.info.vocab_size).zip(&targets);
            let scores: Vec<TokenScore> = rows
                .map(|(row, &target)| TokenScore::of(row, target, self.n_top))
                .collect();
            expect_numbers(scores.iter().map(|score| score.log_probability))?;
            return Ok(scores);
        }
        let losses = predictor.token_losses(query, &targets)?;
        expect_length("token losses", positions.len(), losses.len())?;
        expect_numbers(losses.iter().map(|&loss| f64::from(loss)))?;
        let score = |loss: f32| TokenScore {
            log_probability: -f64::from(loss),
            top: Vec::new(),
        };
        Ok(losses.into_iter().map(score).collect())
    }

    /// Takes what a call has found.
    fn keep(&mut self, group: Vec<Shown>, scores: Vec<TokenScore>) {
        let mut scores = scores.into_iter();
        for Shown {
            at, asked, weight, ..
        } in group
        {
            let first = self.sequences[at].1;
            let own = scores.by_ref().take(asked.len());
            match self.way {
                Way::MonteCarlo => {
                    let loss: f64 = own.map(|score| -score.log_probability).sum();
                    self.draws[at].push(-weight * loss);
                }
                Way::Chain(_) | Way::NextToken => {
                    for (position, score) in asked.into_iter().zip(own) {
                        self.tokens[at][position - first] = Some(score);
                    }
                }
                Way::Confidence => {
                    let best = asked.into_iter().zip(own).reduce(|best, next| {
                        match next.1.log_probability > best.1.log_probability {
                            true => next,
                            false => best,
                        }
                    });
                    if let Some((position, score)) = best {
                        self.tokens[at][position - first] = Some(score);
                    }
                }
            }
        }
    }

    fn estimates(&self) -> Vec<Estimate> {
        let estimate = |at: usize| {
            let n_tokens = self.sequence(at).answer_len();
            if self.way == Way::MonteCarlo {
                return mean(&self.draws[at], n_tokens, self.config.estimator);
            }
            Estimate {
                log_likelihood: self.token_scores(at).map(|x| x.log_probability).sum(),
                standard_error: 0.0,
                n_tokens,
            }
        };
        (0..self.sequences.len()).map(estimate).collect()
    }
}

/// A sequence as a call shows it.
#[derive(Debug)]
struct Shown {
    /// Which one.
    at: usize,
    /// Its tokens, with masks.
    tokens: Vec<u32>,
    /// The positions of it that are asked about, ascending.
    asked: Vec<usize>,
    /// Weight of their sum in the bound.
    weight: f64,
}

impl TokenScore {
    /// By a row of logits `[V]`.
    fn of(row: &[f32], target: u32, n_top: usize) -> Self {
        let of = log_probability(row);
        let mut top: Vec<usize> = Vec::new();
        for id in 0..row.len() {
            let at = top.partition_point(|&better| row[better] >= row[id]);
            if at < n_top {
                top.insert(at, id);
                top.truncate(n_top);
            }
        }
        Self {
            log_probability: of(target as usize),
            top: (top.into_iter().map(|id| (id as u32, of(id)))).collect(),
        }
    }
}

/// No score is a NaN.
fn expect_numbers(mut scores: impl Iterator<Item = f64>) -> Result<()> {
    match scores.any(f64::is_nan) {
        true => Err(Error::NotANumber {
            what: "a token loss",
        }),
        false => Ok(()),
    }
}

fn mean(draws: &[f64], n_tokens: usize, estimator: Estimator) -> Estimate {
    let n = draws.len() as f64;
    let mean = draws.iter().sum::<f64>() / n;
    // The only draw of one token is exact; a single draw of more says nothing of its spread.
    let standard_error = match (estimator, n_tokens, draws.len()) {
        (Estimator::Count, 1, _) => 0.0,
        (_, _, 1) => f64::NAN,
        _ => {
            let squares: f64 = draws.iter().map(|value| (value - mean).powi(2)).sum();
            (squares / (n - 1.0) / n).sqrt()
        }
    };
    Estimate {
        log_likelihood: mean,
        standard_error,
        n_tokens,
    }
}
