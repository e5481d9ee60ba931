//! A request on its way: its canvas, and where it is in its blocks and steps.

use std::ops::Range;

use llada_diffusion::{
    Candidate, KvCache, Noise, PredictorInfo, RowPlan, StepKey, num_transfer_tokens,
    reveal_probability,
};

use crate::ahead::Ahead;
use crate::block::{Block, blocks};
use crate::canvas::{canvas, check_allowed, span};
use crate::commit::{Predicted, committed};
use crate::evaluate::Rule;
use crate::refresh::{Canvas, Refreshed};
use crate::remask::{highest, ranked, score};
use crate::{
    CacheMode, Draws, Error, Output, Overrides, Process, Remasking, Request, Result, Revealed,
    StepEvent, Task,
};

/// A request, its canvas, and the state of its current step.
#[derive(Debug)]
pub(crate) struct Run {
    /// Number of the request in its session.
    pub(crate) index: usize,
    pub(crate) request: Request,
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
    /// Step within the current block.
    block_step: usize,
    /// Step within the run.
    step: usize,
    /// Steps at most.
    steps: usize,
    stopped: bool,
    /// An EOS has ended the answer.
    ended: bool,
    /// With a cache mode: keys and values as the last call saw them.
    pub(crate) cache: KvCache,
    refreshed: Refreshed,
    /// The call, from 1, that revealed each token; 0 for none.
    revealed_in: Vec<usize>,
    /// What this step computes and sees.
    pub(crate) plan: RowPlan,
    rows: usize,
    /// Positions to be evaluated in this step, ascending.
    pub(crate) positions: Vec<usize>,
    /// Their candidates.
    pub(crate) candidates: Vec<Candidate>,
    /// What a device has computed of the coming steps of this block.
    pub(crate) ahead: Ahead,
    revealed: Vec<Revealed>,
}

impl Run {
    pub(crate) fn new(index: usize, request: Request, info: &PredictorInfo) -> Result<Self> {
        let what = request.diffusion_only(&Overrides::default());
        if let Some(what) = what.filter(|_| info.is_autoregressive()) {
            let request = index;
            return Err(Error::NotAutoregressive { request, what });
        }
        request.config.check(index)?;
        let (canvas, answer) = canvas(index, &request, info)?;
        check_allowed(index, &request, &canvas, info)?;
        let is_masked: Vec<bool> = canvas.iter().map(|&id| id == info.mask_token_id).collect();
        let span = span(index, &request, &is_masked, &answer)?;
        let (steps, block_length) = match info.is_autoregressive() {
            // Token by token.
            true => (answer.len(), None),
            false => (request.config.steps, request.config.block_length),
        };
        if info.is_autoregressive() && answer.start == 0 {
            return Err(Error::OutOfRange {
                request: index,
                what: "the prompt",
                expected: "at least 1 token",
                got: 0.0,
            });
        }
        let blocks = blocks(&is_masked, span, block_length, steps);
        let is_parallel = request.config.process.is_parallel();
        if steps < blocks.len() && (!is_parallel || request.config.caps_steps) {
            return Err(Error::TooFewSteps {
                request: index,
                steps,
                blocks: blocks.len(),
            });
        }
        let mut run = Self {
            index,
            rule: Rule::new(&request),
            request,
            info: *info,
            answer,
            revealed_in: vec![0; canvas.len()],
            canvas,
            steps: if is_parallel {
                is_masked.iter().filter(|&&masked| masked).count()
            } else {
                steps
            },
            is_given: is_masked.iter().map(|masked| !masked).collect(),
            blocks,
            block: 0,
            quotas: Vec::new(),
            block_masks: 0,
            block_step: 0,
            step: 0,
            stopped: false,
            ended: false,
            cache: KvCache::default(),
            refreshed: Refreshed::default(),
            plan: RowPlan::default(),
            rows: 0,
            positions: Vec::new(),
            candidates: Vec::new(),
            ahead: Ahead::default(),
            revealed: Vec::new(),
        };
        run.check_draws()?;
        run.begin_block();
        Ok(run)
    }

    /// Whether its keys and values are those of any request that begins alike.
    pub(crate) fn has_final_cache(&self) -> bool {
        self.info.is_autoregressive() && self.request.config.cache != CacheMode::None
    }

    /// The tokens before the answer.
    pub(crate) fn prompt(&self) -> &[u32] {
        &self.canvas[..self.answer.start]
    }

    fn check_draws(&self) -> Result<()> {
        let (config, length) = (&self.request.config, self.canvas.len());
        let Draws::Recorded(draws) = &self.request.draws else {
            return self.check_noise();
        };
        // A block may take a step more, in which the mask wins everywhere.
        let steps = match config.process.is_parallel() {
            true => self.steps + self.blocks.len(),
            false => self.steps,
        };
        if config.temperature > 0.0 {
            let first = self
                .is_given
                .iter()
                .position(|given| !given)
                .unwrap_or(length);
            draws.check_gumbel(self.index, steps, first, length, self.info.vocab_size)?;
        }
        if config.process == Process::Reverse || config.remasking == Remasking::Random {
            draws.check_remask(self.index, steps, length)?;
        }
        Ok(())
    }

    /// Whether the last step has noise of its own. Where each step reveals a token that is known
    /// before the first one; otherwise the step fails that has none.
    fn check_noise(&self) -> Result<()> {
        let (process, is_next) = (self.request.config.process, self.info.is_autoregressive());
        let n_masks = self.n_masks(0..self.canvas.len());
        if process.is_parallel() || self.steps > n_masks {
            return Ok(());
        }
        let last = StepKey {
            step: u32::try_from(self.steps.saturating_sub(1)).unwrap_or(u32::MAX),
            ..self.key(0)
        };
        let noise = Noise::Philox {
            seeds: &[last.seed],
            keys: &[[last.sequence, 0, last.step]],
        };
        match noise.check() {
            Err(_) if self.request.config.temperature > 0.0 => Err(Error::OutOfRange {
                request: self.index,
                what: if is_next { "gen_length" } else { "steps" },
                expected: "at most 4096 with a temperature",
                got: self.steps as f64,
            }),
            _ => Ok(()),
        }
    }

    /// Whether all steps are done.
    pub(crate) fn is_done(&self) -> bool {
        self.stopped || self.ended || self.block == self.blocks.len()
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

    /// What the predictor is shown of the canvas: without a cache the known prefix, if it predicts
    /// the token after it.
    pub(crate) fn seen(&self) -> &[u32] {
        match self.next_token() {
            Some(next) if !self.request.config.uses_plans() => &self.canvas[..next],
            _ => &self.canvas,
        }
    }

    /// The place of the next token of an autoregressive answer.
    fn next_token(&self) -> Option<usize> {
        let is_autoregressive = self.info.is_autoregressive();
        is_autoregressive.then_some(self.answer.start + self.step)
    }

    /// The canvas without what was given at the start, for classifier-free guidance.
    pub(crate) fn unconditional(&self) -> Vec<u32> {
        let mask = self.info.mask_token_id;
        let hidden = |(&id, &given): (&u32, &bool)| if given { mask } else { id };
        self.canvas.iter().zip(&self.is_given).map(hidden).collect()
    }

    /// What this step computes and sees: everything, but for a cache or a suffix window.
    fn plan(&self) -> RowPlan {
        let (config, length) = (&self.request.config, self.canvas.len());
        if let Some(next) = self.next_token() {
            // Keys and values of a causal model are final: what is new alone is computed.
            let known = match config.cache {
                CacheMode::None => 0,
                _ => self.cache.n_known().min(next - 1),
            };
            return RowPlan::window(known..next, next);
        }
        if !config.uses_plans() {
            return RowPlan::window(0..length, length);
        }
        let canvas = Canvas {
            is_masked: (self.canvas.iter())
                .map(|&id| id == self.info.mask_token_id)
                .collect(),
            prompt: (self.is_given.iter())
                .position(|given| !given)
                .unwrap_or(length),
            block: self.blocks[self.block].range.clone(),
            block_index: self.block,
            revealed_in: &self.revealed_in,
        };
        self.refreshed.plan(config, &canvas)
    }

    /// Sets `positions` to those whose tokens this step needs: all masks before the end of the
    /// block, or only those to be revealed where that is known beforehand.
    pub(crate) fn choose_positions(&mut self) -> Result<()> {
        self.plan = self.plan();
        self.positions.clear();
        if let Some(next) = self.next_token() {
            self.positions.push(next);
            return Ok(());
        }
        let (config, block) = (&self.request.config, &self.blocks[self.block].range);
        let start = match config.process {
            Process::BlockQuota => block.start,
            _ => 0,
        };
        let competes = |at: &usize| {
            (start..block.end).contains(at) && self.canvas[*at] == self.info.mask_token_id
        };
        self.positions
            .extend(self.plan.positions().filter(competes));
        if config.process.is_parallel() || matches!(config.process, Process::EntropyExit(_)) {
            // Which ones stay is known when their confidences are.
        } else if config.process == Process::Reverse {
            let p = self.reveal_probability()?;
            let (draws, key, length) = (&self.request.draws, self.key(0), self.canvas.len());
            self.positions
                .retain(|&at| f64::from(draws.remask(key, at, length)) < p);
        } else if self.quota() == 0 {
            self.positions.clear();
        } else if config.remasking == Remasking::Random {
            let draw = |&at: &usize| {
                self.request
                    .draws
                    .remask(self.key(0), at, self.canvas.len())
            };
            let scores: Vec<f32> = self.positions.iter().map(draw).collect();
            let kept = highest(&scores, self.quota());
            self.positions = kept.into_iter().map(|i| self.positions[i]).collect();
        }
        Ok(())
    }

    /// Probability with which the reverse process reveals a token in this step: the block's steps
    /// divide the interval from t = 1 to 0.
    fn reveal_probability(&self) -> Result<f64> {
        let n = self.blocks[self.block].steps as f64;
        let level = |step: usize| (n - step as f64) / n;
        Ok(reveal_probability(
            level(self.block_step),
            level(self.block_step + 1),
        )?)
    }

    fn quota(&self) -> usize {
        self.quota_in(self.block_step)
    }

    /// Tokens to reveal in a step of the current block.
    fn quota_in(&self, step: usize) -> usize {
        let is_last = step + 1 == self.quotas.len();
        match self.request.config.process {
            Process::BlockQuota | Process::EntropyExit(_) if is_last => usize::MAX,
            _ => self.quotas[step],
        }
    }

    /// Tokens to reveal in this step and those after it in the block.
    pub(crate) fn quotas_ahead(&self) -> impl Iterator<Item = usize> {
        (self.block_step..self.quotas.len()).map(|step| self.quota_in(step))
    }

    /// Puts this step's tokens into the canvas. Where the mask itself won, the mask stays.
    pub(crate) fn reveal(&mut self) -> Result<()> {
        let config = &self.request.config;
        if !self.positions.is_empty() {
            self.rows += self.plan.n_rows() * if config.cfg_scale > 0.0 { 2 } else { 1 };
            self.refreshed.called(config, self.block);
        }
        let scores: Vec<f32> = self
            .candidates
            .iter()
            .map(|candidate| score(config.remasking, candidate))
            .collect();
        let is_nan = |i: &usize| scores[*i].is_nan() || self.candidates[*i].confidence.is_nan();
        if let Some(i) = (0..scores.len()).find(is_nan) {
            let (request, position, step) = (self.index, self.positions[i], self.step);
            return Err(Error::NotANumber {
                request,
                position,
                step,
            });
        }
        let block = self.blocks[self.block].range.clone();
        let step = Predicted {
            positions: &self.positions,
            candidates: &self.candidates,
            order: &ranked(&scores),
            quota: match config.process.is_parallel() {
                true => 1,
                false => self.quota(),
            },
            mask_ratio: self.n_masks(block) as f32 / self.block_masks.max(1) as f32,
        };
        let mut order = committed(config.process, &step);
        let is_last = self.block_step + 1 >= self.blocks[self.block].steps;
        if config.caps_steps && config.process.is_parallel() && is_last {
            order = step.order.to_vec();
        }
        order.sort_unstable();
        self.revealed.clear();
        for i in order {
            let Candidate {
                token, confidence, ..
            } = self.candidates[i];
            if token != self.info.mask_token_id || self.info.is_autoregressive() {
                self.canvas[self.positions[i]] = token;
                self.revealed_in[self.positions[i]] = self.refreshed.calls;
                self.revealed.push(Revealed {
                    position: self.positions[i],
                    token,
                    confidence,
                });
            }
        }
        self.end_at_eos();
        Ok(())
    }

    /// What an observer is told of this step.
    pub(crate) fn event(&self) -> StepEvent<'_> {
        StepEvent {
            request: self.index,
            step: self.step,
            steps: self.steps,
            block: self.block,
            blocks: self.blocks.len(),
            masked: self.n_masks(0..self.canvas.len()),
            settled: self.settled(),
            revealed: &self.revealed,
            canvas: &self.canvas,
        }
    }

    /// The part of the answer before its first mask, which no later step changes.
    fn settled(&self) -> Range<usize> {
        let answer = &self.canvas[self.answer.clone()];
        let first = match self.next_token() {
            Some(next) if !self.ended => Some(next + 1 - self.answer.start),
            _ => answer.iter().position(|&id| id == self.info.mask_token_id),
        };
        self.answer.start..self.answer.start + first.unwrap_or(answer.len())
    }

    /// Goes on to the next step.
    pub(crate) fn advance(&mut self) {
        self.step += 1;
        self.block_step += 1;
        let block = &self.blocks[self.block];
        let is_full = !self.has_mask(block.range.clone());
        let is_over = match self.request.config.process {
            // A step that reveals nothing, as the mask itself won, would repeat itself.
            process if process.is_parallel() => self.revealed.is_empty() || is_full,
            Process::EntropyExit(_) if is_full => true,
            _ => self.block_step == block.steps,
        };
        if is_over {
            self.block += 1;
            self.begin_block();
        }
    }

    fn n_masks(&self, range: Range<usize>) -> usize {
        let ids = self.canvas[range].iter();
        ids.filter(|&&id| id == self.info.mask_token_id).count()
    }

    fn has_mask(&self, range: Range<usize>) -> bool {
        self.canvas[range].contains(&self.info.mask_token_id)
    }

    /// Ends an answer in which an EOS stands before the first mask, unless a fixed token follows.
    fn end_at_eos(&mut self) {
        let is_answer = matches!(self.request.task, Task::Generate { .. });
        if !self.request.config.early_stop || !is_answer {
            return;
        }
        let known = self.settled().len();
        let further = &self.request.config.further_eos_token_ids;
        let is_eos = |id: &u32| *id == self.info.eos_token_id || further.contains(id);
        let answer = &mut self.canvas[self.answer.clone()];
        let end = answer[..known].iter().position(is_eos);
        let tail_is_masked = answer.contains(&self.info.mask_token_id);
        let is_end = |&end: &usize| {
            let after = self.answer.start + end + 1..self.answer.end;
            tail_is_masked && !self.is_given[after].contains(&true)
        };
        if let Some(end) = end.filter(is_end) {
            answer[end + 1..].fill(self.info.eos_token_id);
            self.ended = true;
        }
    }

    /// Ends the run after this step.
    pub(crate) fn stop(&mut self) {
        self.stopped = !self.is_done();
    }

    /// Quotas count the masks of the block as it is now.
    fn begin_block(&mut self) {
        self.block_step = 0;
        self.ahead = Ahead::default();
        if let Some(block) = self.blocks.get(self.block) {
            let (range, steps) = (block.range.clone(), block.steps);
            self.block_masks = self.n_masks(range);
            self.quotas = num_transfer_tokens(self.block_masks, steps);
        }
    }

    pub(crate) fn into_output(self) -> Output {
        let is_filled = || !self.canvas.contains(&self.info.mask_token_id);
        let is_infill = matches!(self.request.task, Task::Infill { .. });
        let is_parallel = self.request.config.process.is_parallel();
        if is_infill && self.request.config.suppress_mask && !self.stopped {
            assert!(
                is_filled(),
                "the blocks cover all masks and the mask is never predicted"
            );
        }
        Output {
            is_infill,
            prompt_len: self.answer.start,
            suffix_len: self.canvas.len() - self.answer.end,
            tokens: self.canvas,
            nfe: self.refreshed.calls,
            rows: self.rows,
            steps: self.step,
            saved_steps: if self.ended && !is_parallel {
                self.steps - self.step
            } else {
                0
            },
            stopped: self.stopped,
        }
    }
}
