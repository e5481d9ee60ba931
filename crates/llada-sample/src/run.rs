//! A request on its way: its canvas, and where it is in its blocks and steps.

mod finish;
mod guess;
mod rewrite;
mod start;
mod step;

use std::ops::Range;
use std::sync::Arc;

use llada_diffusion::{Candidate, KvCache, PredictorInfo, RowPlan, StepKey};

use crate::ahead::Ahead;
use crate::block::Block;
use crate::edit::BlockEdits;
use crate::evaluate::Rule;
use crate::refresh::Refreshed;
use crate::running::Running;
use crate::speculate::Speculation;
use crate::{CacheMode, Edit, Horizon, Request, Revealed};

pub(crate) use rewrite::MAX_BLOCK_STEPS;

/// A request, its canvas, and the state of its current step.
#[derive(Debug)]
pub(crate) struct Run {
    /// Number of the request in its session.
    pub(crate) index: usize,
    pub(crate) request: Arc<Request>,
    pub(crate) rule: Rule,
    pub(crate) info: PredictorInfo,
    /// Where the answer is; the whole text for an infill.
    answer: Range<usize>,
    pub(crate) canvas: Vec<u32>,
    /// Tokens that were there from the start, which guidance hides.
    is_given: Vec<bool>,
    blocks: Vec<Block>,
    block: usize,
    /// Tokens to reveal in each step of the current block.
    quotas: Vec<usize>,
    /// Masks of the current block at its start.
    block_masks: usize,
    /// Of a process that edits: what is known of the current block.
    block_edits: BlockEdits,
    /// Step within the current block.
    block_step: usize,
    /// This step is the last one of the block.
    ends_block: bool,
    /// Step within the run.
    step: usize,
    /// Steps at most.
    steps: usize,
    stopped: bool,
    /// Where an EOS has ended the answer.
    ended: Option<usize>,
    /// With a cache mode: keys and values as the last call saw them.
    pub(crate) cache: KvCache,
    /// Positions from the start whose keys and values are final.
    n_final: usize,
    refreshed: Refreshed,
    /// The call, from 1, that revealed each token; 0 for none.
    revealed_in: Vec<usize>,
    /// For [`crate::Remasking::RunningConfidence`].
    running: Running,
    /// What this step computes and sees.
    pub(crate) plan: RowPlan,
    rows: usize,
    /// Positions to be evaluated in this step, ascending.
    pub(crate) positions: Vec<usize>,
    /// Their candidates.
    pub(crate) candidates: Vec<Candidate>,
    /// `[N, V]`: where another choice may be needed, the logits that they were chosen by.
    pub(crate) logits: Vec<f32>,
    /// What a device has computed of the coming steps of this block.
    pub(crate) ahead: Ahead,
    /// What was computed of coming steps by guessing their canvases.
    pub(crate) speculation: Speculation,
    revealed: Vec<Revealed>,
    edits: Vec<Edit>,
}

impl Run {
    /// Whether all steps are done.
    pub(crate) fn is_done(&self) -> bool {
        self.stopped || self.ended.is_some() || self.block == self.blocks.len()
    }

    /// Whether keys and values of finished blocks are final, so that a cache changes nothing: those
    /// of any request that begins alike.
    pub(crate) fn has_final_cache(&self) -> bool {
        let config = &self.request.config;
        let by_blocks = config.horizon == Horizon::AlignedBlock && self.info.block_size.is_some();
        config.cache != CacheMode::None && (self.info.is_autoregressive() || by_blocks)
    }

    /// Tokens whose keys and values an earlier request may have: those of the prompt, but not the
    /// last one where its output predicts the next.
    pub(crate) fn reusable(&self) -> &[u32] {
        let last = usize::from(self.info.is_autoregressive());
        &self.canvas[..self.answer.start.saturating_sub(last)]
    }

    /// Tokens that become final together.
    pub(crate) fn final_block(&self) -> usize {
        self.info.block_size.map_or(1, std::num::NonZeroUsize::get)
    }

    /// The tokens whose keys and values in the cache of this run are final.
    pub(crate) fn final_tokens(&self, cache: &KvCache) -> &[u32] {
        match self.info.is_autoregressive() {
            true => &self.canvas[..cache.n_known()],
            false => &self.canvas[..self.n_final],
        }
    }

    /// What the draws depend on of the step that comes `ahead` steps after this one.
    pub(crate) fn key(&self, ahead: usize) -> StepKey {
        let step = u32::try_from(self.step + ahead).unwrap_or(u32::MAX);
        StepKey {
            seed: self.request.config.seed,
            sequence: self.request.sequence,
            step,
        }
    }

    /// Where the canvas ends that a step sees.
    fn horizon(&self) -> usize {
        match self.request.config.horizon {
            Horizon::Canvas => self.canvas.len(),
            Horizon::Block | Horizon::AlignedBlock => self.blocks[self.block].range.end,
        }
    }

    /// What the predictor is shown of the canvas: without a cache the known prefix, if it predicts
    /// the token after it, or what lies before the horizon.
    pub(crate) fn seen(&self) -> &[u32] {
        match self.next_token() {
            _ if self.request.config.uses_plans() => &self.canvas,
            Some(next) => &self.canvas[..next],
            None => &self.canvas[..self.horizon()],
        }
    }

    /// The place of the next token of an autoregressive answer.
    fn next_token(&self) -> Option<usize> {
        let is_autoregressive = self.info.is_autoregressive();
        is_autoregressive.then_some(self.answer.start + self.step)
    }

    /// What is seen without what was given at the start, for classifier-free guidance.
    pub(crate) fn unconditional(&self) -> Vec<u32> {
        let mask = self.info.mask_token_id;
        let hidden = |(&id, &given): (&u32, &bool)| if given { mask } else { id };
        self.seen().iter().zip(&self.is_given).map(hidden).collect()
    }

    fn n_masks(&self, range: Range<usize>) -> usize {
        let ids = self.canvas[range].iter();
        ids.filter(|&&id| id == self.info.mask_token_id).count()
    }

    fn has_mask(&self, range: Range<usize>) -> bool {
        self.canvas[range].contains(&self.info.mask_token_id)
    }

    /// Whether a token ends an answer.
    fn is_eos(&self, id: u32) -> bool {
        let further = &self.request.config.further_eos_token_ids;
        id == self.info.eos_token_id || further.contains(&id)
    }

    /// The boost of a logit in this step: an index of `positions`, the token, and what is added.
    pub(crate) fn boost(&self) -> Option<(usize, u32, f32)> {
        let end_think = self.request.config.end_think.as_ref()?;
        let block = self.blocks[self.block].range.clone();
        let mask = self.info.mask_token_id;
        let first = block.into_iter().find(|&at| self.canvas[at] == mask)?;
        let row = self.positions.binary_search(&first).ok()?;
        let at = first.checked_sub(self.answer.start)?;
        let answer = &self.canvas[self.answer.start..];
        let (token, boost) = end_think.boost(answer, at, self.answer.len())?;
        Some((row, token, boost))
    }
}
