//! The mask predictor, seen from training, sampling and scoring.

use std::ops::Range;

use llada_tensor::backend::{Candidate, DenoisingStep, Noise};
use llada_tensor::ops::candidates::{CandidateRule, guide, reduce_logits};
use llada_tensor::{Device, Tape, Tensor, Var};

use crate::{Error, Result, TokenBatch};

/// What callers must know of a predictor's vocabulary and context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PredictorInfo {
    /// Width of the logits: ids `0..vocab_size` can be predicted (`embedding_size` of the
    /// published configurations).
    pub vocab_size: usize,
    /// The mask M.
    pub mask_token_id: u32,
    /// End of a document.
    pub eos_token_id: u32,
    /// Longest sequence.
    pub max_sequence_length: usize,
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
    /// The cache of each sequence.
    pub caches: &'a mut [&'a mut KvCache],
}

/// A model `p_theta(. | x_t)` that predicts all masked tokens at once.
///
/// `positions` are indexes into the flattened batch; only they are computed by the head.
/// Results of a sequence do not depend on the other sequences of the batch.
pub trait MaskPredictor {
    /// Vocabulary and context.
    fn info(&self) -> PredictorInfo;

    /// Logits of the given positions, row-major `[N, vocab_size]`.
    ///
    /// # Errors
    /// If a token id or a length is out of range, or the runtime fails.
    fn logits(&self, batch: &TokenBatch, positions: &[usize]) -> Result<Vec<f32>>;

    /// Best token of each position under `rule`, with its confidence: what a sampling step needs.
    ///
    /// `noise` draws the Gumbel noise when the rule's temperature is positive.
    /// `unconditional` is the batch of classifier-free guidance, of the same shape (eq. 16).
    ///
    /// # Errors
    /// As [`Self::logits`].
    fn candidates(
        &self,
        batch: &TokenBatch,
        unconditional: Option<&TokenBatch>,
        positions: &[usize],
        rule: &CandidateRule<'_>,
        noise: &Noise<'_>,
    ) -> Result<Vec<Candidate>> {
        noise.check()?;
        let vocab_size = self.info().vocab_size;
        let mut logits = self.logits(batch, positions)?;
        if let Some(unconditional) = unconditional {
            let un = self.logits(unconditional, positions)?;
            guide_all(rule.cfg_scale, &mut logits, &un);
        }
        let rows = logits.chunks_exact(vocab_size).enumerate();
        Ok(rows
            .map(|(row, logits)| reduce_logits(logits, row, rule, noise))
            .collect())
    }

    /// As [`Self::candidates`] without guidance, for the rows of each sequence's plan; keys and
    /// values of the others come from caches: an approximation, as they change with every token.
    /// With causal attention they never change: a plan is then a prefix, or the one row that comes
    /// after all of its other keys, and the result is exact.
    ///
    /// `positions` are among the rows.
    ///
    /// # Errors
    /// As [`Self::logits`]; if a plan sees what was never computed; [`Error::Unsupported`] if the predictor has no caches.
    fn candidates_cached(
        &self,
        _batch: &TokenBatch,
        _cached: Cached<'_>,
        _positions: &[usize],
        _rule: &CandidateRule<'_>,
        _noise: &Noise<'_>,
    ) -> Result<Vec<Candidate>> {
        Err(Error::Unsupported {
            what: "caches of keys and values",
        })
    }

    /// Steps that [`Self::candidates_ahead`] gains from taking at once: 1 if there is nothing to
    /// gain.
    fn steps_at_once(&self) -> usize {
        1
    }

    /// The candidates of several steps, each taken after the one before has put its tokens into the
    /// canvas as [`DenoisingStep::remask`] says: for devices that can take them without waiting for
    /// the host. All steps have candidates for all of `positions`; those of a position that is no
    /// longer masked say nothing.
    ///
    /// `positions` are ascending.
    ///
    /// # Errors
    /// As [`Self::logits`]; [`Error::Unsupported`] if the predictor takes one step at a time.
    fn candidates_ahead(
        &self,
        _batch: &TokenBatch,
        _positions: &[usize],
        _rule: &CandidateRule<'_>,
        _steps: &[DenoisingStep<'_>],
    ) -> Result<Vec<Vec<Candidate>>> {
        Err(Error::Unsupported {
            what: "several steps at once",
        })
    }

    /// Cross-entropy `-ln p(targets[i] | x_t)` of each position, in nats.
    ///
    /// # Errors
    /// As [`Self::logits`]; if `targets` and `positions` differ in length.
    fn token_losses(
        &self,
        batch: &TokenBatch,
        positions: &[usize],
        targets: &[u32],
    ) -> Result<Vec<f32>>;

    /// [`Self::token_losses`] under classifier-free guidance (eq. 16): the logits are those of
    /// `batch`, pushed away from those of `unconditional` by `cfg_scale`.
    ///
    /// # Errors
    /// As [`Self::token_losses`].
    fn guided_token_losses(
        &self,
        batch: &TokenBatch,
        unconditional: &TokenBatch,
        cfg_scale: f32,
        positions: &[usize],
        targets: &[u32],
    ) -> Result<Vec<f32>> {
        crate::forward::expect_length("targets", positions.len(), targets.len())?;
        let mut logits = self.logits(batch, positions)?;
        guide_all(
            cfg_scale,
            &mut logits,
            &self.logits(unconditional, positions)?,
        );
        Ok(cross_entropies(&logits, targets))
    }
}

/// Pushes logits away from unconditional ones, see [`guide`].
pub fn guide_all(cfg_scale: f32, logits: &mut [f32], un: &[f32]) {
    for (x, &un) in logits.iter_mut().zip(un) {
        *x = guide(cfg_scale, *x, un);
    }
}

/// Cross-entropies of rows of logits, each `-ln softmax(logits)[target]`, summed in `f64`.
#[must_use]
pub fn cross_entropies(logits: &[f32], targets: &[u32]) -> Vec<f32> {
    let vocab_size = logits.len() / targets.len().max(1);
    let of = |(row, &target): (&[f32], &u32)| {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&x| f64::from(x - max).exp()).sum();
        (sum.ln() + f64::from(max - row[target as usize])) as f32
    };
    logits
        .chunks_exact(vocab_size.max(1))
        .zip(targets)
        .map(of)
        .collect()
}

/// A named parameter.
#[derive(Debug)]
pub struct Parameter {
    /// Name in the checkpoint.
    pub name: String,
    /// Value, `f32`.
    pub value: Tensor,
    /// Its part in the model.
    pub kind: ParameterKind,
}

/// What a parameter is to an optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterKind {
    /// A matrix with a row per token: the embedding or the LM head.
    Table,
    /// The matrix of a linear layer in a block.
    Matrix,
    /// The weight of a norm, or a bias.
    Vector,
}

/// A safetensors file of a model, in the layout that others load.
#[derive(Debug)]
pub struct Export {
    /// Name of the file.
    pub file: &'static str,
    /// Its tensors, `f32`.
    pub tensors: Vec<(String, Tensor)>,
}

/// A predictor whose parameters can be trained.
pub trait Trainable: MaskPredictor {
    /// Where the parameters live.
    fn device(&self) -> &Device;

    /// The parameters, always in the same order.
    fn parameters(&self) -> &[Parameter];

    /// The parameters, to be updated. Anything derived from them (packed weights) is dropped.
    fn parameters_mut(&mut self) -> &mut [Parameter];

    /// The files of a model that can be loaded: `model.safetensors`, and others that belong to it.
    /// It holds the parameters, unless these are only a part of the model.
    ///
    /// # Errors
    /// If the runtime fails.
    fn export(&self) -> Result<Vec<Export>> {
        let named = |p: &Parameter| (p.name.clone(), p.value.clone());
        Ok(vec![Export {
            file: "model.safetensors",
            tensors: self.parameters().iter().map(named).collect(),
        }])
    }

    /// `sum_i weights[i] * -ln p(targets[i] | batch)` over the given positions, a scalar on the
    /// tape.
    ///
    /// # Errors
    /// As [`MaskPredictor::logits`]; if the arguments differ in length.
    fn weighted_cross_entropy(
        &self,
        tape: &mut Tape,
        batch: &TokenBatch,
        positions: &[usize],
        targets: &[u32],
        weights: &[f32],
    ) -> Result<Var>;
}
