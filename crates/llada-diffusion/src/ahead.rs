//! Look-ahead: several steps of sampling that a device takes without the host in between.

use std::any::{Any, TypeId};
use std::fmt::Debug;

use llada_tensor::backend::{Candidate, CandidateArgs, Noise};
use llada_tensor::{Device, Result};

/// What the masks of a sequence are ranked by, the highest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RankBy {
    /// Probability of the chosen token.
    Confidence,
    /// Difference between the two largest probabilities.
    Margin,
    /// Negative entropy.
    Entropy,
}

/// How many of the ranked tokens stay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Keep {
    /// So many (`num_transfer_tokens`).
    Quota(u32),
    /// Those before the first whose confidence is below this, and the best in any case
    /// (`threshold` of Fast-dLLM).
    Threshold(f32),
    /// The best, and those before the first whose confidence, as the `k`-th best, is below
    /// `1 - factor / (k + 1)`; all if only the last one fails (`factor` of Fast-dLLM).
    Factor(f32),
}

/// How one sequence is remasked: of its candidates whose positions are still masked, the ones that
/// are kept take the places of masks; among equals the first. Where the mask itself was chosen it
/// stays.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RemaskRule {
    /// Candidates of the sequence; they follow those of the sequences before it.
    pub rows: usize,
    /// The order of its masks.
    pub rank_by: RankBy,
    /// How many stay.
    pub keep: Keep,
}

/// One of several steps of sampling that a device takes by itself.
#[derive(Debug, Clone, Copy)]
pub struct DenoisingStep<'a> {
    /// Draws of the step, `[N]` of them; not [`Noise::Recorded`].
    pub noise: Noise<'a>,
    /// `[B]`: what stays in each sequence.
    pub remask: &'a [RemaskRule],
}

/// Several steps of sampling: the same forward pass again and again, each over the canvas that the
/// one before has left.
#[derive(Debug, Clone, Copy)]
pub struct Denoising<'a> {
    /// As in [`llada_tensor::backend::Step::key`]; equal keys have equal rules for choosing a token, too.
    pub key: &'a [u32],
    /// `[T]`: the canvas at the start.
    pub ids: &'a [u32],
    /// The rows that the forward pass is asked for: `[N]` positions of the canvas with candidates,
    /// ascending in each sequence, and perhaps some more that are not looked at.
    pub rows: &'a [u32],
    /// The mask.
    pub mask_token_id: u32,
    /// The steps.
    pub steps: &'a [DenoisingStep<'a>],
}

/// Is given what a token is chosen from.
pub type Choose<'a> = &'a mut dyn FnMut(&CandidateArgs<'_>) -> Result<()>;

/// A device that takes steps of sampling by itself.
///
/// Weights and other memory that a step reads must live as long as this does.
pub trait Denoiser: Debug + Send + Sync {
    /// The `[N]` candidates of each step. The device is asked for all steps before it is waited
    /// for.
    ///
    /// `body` computes one step with its noise: it reads `ids` and `rows` of `denoising` at their
    /// addresses, and hands the hidden states of the first `N` rows to the choice of tokens.
    ///
    /// # Errors
    /// Those of `body`, or if the device fails.
    fn denoise(
        &self,
        denoising: &Denoising<'_>,
        body: &mut dyn FnMut(&Noise<'_>, Choose<'_>) -> Result<()>,
    ) -> Result<Vec<Vec<Candidate>>>;
}

/// What a backend that has a [`Denoiser`] gives as its extension of this type.
#[derive(Debug)]
pub struct DenoiserExtension(pub Box<dyn Denoiser>);

/// The look-ahead of a device, if it has one.
#[must_use]
pub fn denoiser(device: &Device) -> Option<Box<dyn Denoiser>> {
    let extension: Box<dyn Any> = device
        .backend()
        .extension(TypeId::of::<DenoiserExtension>())?;
    let DenoiserExtension(denoiser) = *extension.downcast().ok()?;
    Some(denoiser)
}
