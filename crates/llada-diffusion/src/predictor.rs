//! The mask predictor, seen from training, sampling and scoring.

use std::num::NonZeroUsize;

use llada_tensor::{Device, Tape, Tensor, Var};

use crate::{Candidates, Choice, Error, Query, Result, TokenBatch, cross_entropies};

/// What a predictor was trained to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PredictorKind {
    /// To restore masked tokens, all at once.
    Diffusion,
    /// To predict the next token: attention is causal, and the output at a position is about the
    /// token after it. It fills in no masks.
    Autoregressive,
}

impl PredictorKind {
    /// The name in results, that of the objective in a training configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Diffusion => "diffusion",
            Self::Autoregressive => "autoregressive",
        }
    }
}

/// What callers must know of a predictor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PredictorInfo {
    /// What it was trained to do.
    pub kind: PredictorKind,
    /// Positions that see each other; each block sees itself and those before it, so that keys and
    /// values of finished blocks are final. `None`: all positions see each other.
    pub block_size: Option<NonZeroUsize>,
    /// Whether the output at a position is about the token after it.
    pub shifts_logits: bool,
    /// Width of the logits: ids `0..vocab_size` can be predicted (`embedding_size` of the
    /// published configurations).
    pub vocab_size: usize,
    /// The mask M.
    pub mask_token_id: u32,
    /// End of a document.
    pub eos_token_id: u32,
    /// Longest sequence.
    pub max_sequence_length: usize,
    /// Bytes of the keys and values of one position in a [`crate::KvCache`], of all layers; 0
    /// without caches.
    pub kv_cache_bytes: usize,
    /// Steps that it gains from being asked for at once ([`Choice::ahead`]): 1 if there is nothing
    /// to gain.
    pub steps_at_once: usize,
}

impl PredictorInfo {
    /// A mask predictor without caches, all positions of which see each other.
    #[must_use]
    pub const fn new(
        vocab_size: usize,
        mask_token_id: u32,
        eos_token_id: u32,
        max_sequence_length: usize,
    ) -> Self {
        Self {
            kind: PredictorKind::Diffusion,
            block_size: None,
            shifts_logits: false,
            vocab_size,
            mask_token_id,
            eos_token_id,
            max_sequence_length,
            kv_cache_bytes: 0,
            steps_at_once: 1,
        }
    }

    /// The same for a predictor of the next token.
    #[must_use]
    pub const fn autoregressive(self) -> Self {
        Self {
            kind: PredictorKind::Autoregressive,
            block_size: Some(NonZeroUsize::MIN),
            shifts_logits: true,
            ..self
        }
    }

    /// Whether it predicts next tokens and no masks.
    #[must_use]
    pub fn is_autoregressive(&self) -> bool {
        self.kind == PredictorKind::Autoregressive
    }

    /// The position whose output is about the token at `position`; the first token is asked for at
    /// its own.
    #[must_use]
    pub fn position_of(&self, position: usize) -> usize {
        position.saturating_sub(usize::from(self.shifts_logits))
    }
}

/// A model `p_theta(. | x_t)` that predicts all masked tokens at once, or the next one of each
/// prefix.
///
/// Results of a sequence do not depend on the other sequences of the batch. No method has a
/// default, so that a predictor that wraps another one leaves nothing out.
pub trait MaskPredictor {
    /// What it is, its vocabulary and its context.
    fn info(&self) -> PredictorInfo;

    /// Logits of the positions, row-major `[N, vocab_size]`.
    ///
    /// # Errors
    /// If a token id, a position or a length is out of range, or the runtime fails; with caches if
    /// a plan sees what was never computed; [`Error::Unsupported`] if the predictor has no
    /// caches, or for guidance with caches.
    fn logits(&self, query: Query<'_>) -> Result<Vec<f32>>;

    /// Best token of each position, with its confidence: what a sampling step needs.
    ///
    /// # Errors
    /// As [`Self::logits`]; if the noise has no draws of its own so far on (`Noise::check`).
    fn candidates(&self, query: Query<'_>, choice: &Choice<'_>) -> Result<Candidates>;

    /// Cross-entropy `-ln p(targets[i] | x_t)` of each position, in nats.
    ///
    /// # Errors
    /// As [`Self::logits`]; if `targets` and the positions differ in length, or a target is no
    /// token.
    fn token_losses(&self, query: Query<'_>, targets: &[u32]) -> Result<Vec<f32>>;
}

/// As many targets as positions, and each of them a token.
///
/// # Errors
/// [`Error::LengthMismatch`] or [`Error::TokenOutOfRange`].
pub fn expect_targets(positions: &[usize], targets: &[u32], vocab_size: usize) -> Result<()> {
    crate::forward::expect_length("targets", positions.len(), targets.len())?;
    match targets.iter().position(|&id| id as usize >= vocab_size) {
        Some(position) => Err(Error::TokenOutOfRange {
            id: targets[position],
            position,
            vocab_size,
        }),
        None => Ok(()),
    }
}

/// [`MaskPredictor::token_losses`] by logits, for predictors that have nothing faster.
///
/// # Errors
/// As [`MaskPredictor::token_losses`].
pub fn losses_by_logits(
    predictor: &(impl MaskPredictor + ?Sized),
    query: Query<'_>,
    targets: &[u32],
) -> Result<Vec<f32>> {
    expect_targets(query.positions, targets, predictor.info().vocab_size)?;
    Ok(cross_entropies(&predictor.logits(query)?, targets))
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
    /// A matrix for each expert, `[experts, N, K]`.
    Experts,
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
