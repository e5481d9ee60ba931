//! Work that a device does again and again, without the host in between.

use std::fmt::Debug;

use super::{Candidate, CandidateArgs, Noise};
use crate::{Result, Tensor};

/// What a repeated computation depends on, besides memory that stays where it is.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// Tells computations apart: two of one key ask for the same ops in the same shapes, and all
    /// small arrays that they read but [`Self::inputs`] are equal.
    pub key: &'a [u32],
    /// Small arrays whose values change from one time to the next, as ids do. The computation
    /// reads them where they are: an array is known by its address, which no other one has.
    pub inputs: &'a [&'a [u32]],
}

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
    /// As in [`Step::key`]; equal keys have equal rules for choosing a token, too.
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

/// Records what a device is asked to do, and asks for all of it at once the next time.
///
/// Weights and other memory that a recorded computation reads must live as long as the recorder.
pub trait Recorder: Debug + Send + Sync {
    /// What `body` returns: by running it, or by repeating what it did under this key.
    ///
    /// # Errors
    /// Those of `body`, or if the device fails.
    fn run(&self, step: Step<'_>, body: &mut dyn FnMut() -> Result<Tensor>) -> Result<Tensor>;

    /// The `[N]` candidates of each step. The device is asked for all steps before it is waited
    /// for.
    ///
    /// `body` computes one step with its noise: it reads `ids` and `rows` of `denoising` at their
    /// addresses, and hands the hidden states of the first `N` rows to the choice of tokens.
    ///
    /// # Errors
    /// As [`Self::run`].
    fn denoise(
        &self,
        denoising: &Denoising<'_>,
        body: &mut dyn FnMut(&Noise<'_>, Choose<'_>) -> Result<()>,
    ) -> Result<Vec<Vec<Candidate>>>;
}
