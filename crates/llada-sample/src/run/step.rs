//! One step of a request: what it computes, which positions it asks about, and what it reveals.

use llada_diffusion::{Candidate, RowPlan, reveal_probability};

use super::Run;
use crate::block::Block;
use crate::commit::{Predicted, committed_of_open};
use crate::refresh::Canvas;
use crate::remask::{highest, ranked, score};
use crate::{Alg, CacheMode, Error, Horizon, Process, Remasking, Result, Revealed, timestep};

impl Run {
    /// What this step computes and sees: everything, but for a cache or a suffix window.
    fn plan(&self) -> RowPlan {
        let (config, length) = (&self.request.config, self.horizon());
        if let Some(next) = self.next_token() {
            // Keys and values of a causal model are final: what is new alone is computed.
            let known = match config.cache {
                CacheMode::None => 0,
                _ => self.cache.n_known().min(next - 1),
            };
            return RowPlan::window(known..next, next);
        }
        if self.has_final_cache() {
            // The block before was computed last without its last tokens.
            return RowPlan::window(self.n_final..length, length);
        }
        if !config.uses_plans() {
            return RowPlan::window(0..length, length);
        }
        let canvas = Canvas {
            is_masked: (self.canvas[..length].iter())
                .map(|&id| id == self.info.mask_token_id)
                .collect(),
            prompt: (self.is_given.iter())
                .position(|given| !given)
                .unwrap_or(length),
            block: self.blocks[self.block].range.start..self.open_end(),
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
        let config = &self.request.config;
        let block = self.blocks[self.block].range.start..self.open_end();
        let is_block_alone =
            config.process == Process::BlockQuota || config.horizon == Horizon::AlignedBlock;
        let start = if is_block_alone { block.start } else { 0 };
        let competes = |at: &usize| {
            let may_change = config.process.edits() && !self.is_given[*at];
            let is_asked = may_change || self.canvas[*at] == self.info.mask_token_id;
            (start..block.end).contains(at) && is_asked
        };
        self.positions
            .extend(self.plan.positions().filter(competes));
        match config.process {
            Process::Reverse => {
                let p = self.reveal_probability()?;
                self.draw_positions(|draw| f64::from(draw) < p);
            }
            Process::Timestep {
                alg: Alg::Origin, ..
            } => {
                let share = self.share();
                self.draw_positions(|draw| draw < share);
            }
            // Which ones stay is known when their confidences are.
            Process::EntropyExit(_) | Process::BlockDiffusion { .. } => {}
            process if process.is_parallel() => {}
            _ if self.quota() == 0 => self.positions.clear(),
            _ if config.remasking == Remasking::Random => {
                let draws = self.draws();
                let kept = highest(&draws, self.quota());
                self.positions = kept.into_iter().map(|i| self.positions[i]).collect();
            }
            _ => {}
        }
        Ok(())
    }

    /// Where the last block ends that is open in this step: the current one, unless the next ones open
    /// before it is full.
    fn open_end(&self) -> usize {
        let current = self.blocks[self.block].range.end;
        let Some(share) = self.request.config.overlap else {
            return current;
        };
        let opens_next = |pair: &&[Block]| {
            let before = pair[0].range.clone();
            let all = self.is_given[before.clone()]
                .iter()
                .filter(|given| !**given);
            let (all, left) = (all.count(), self.n_masks(before));
            (all - left) as f32 >= share * all as f32
        };
        let opened = self.blocks[self.block..].windows(2).take_while(opens_next);
        opened.last().map_or(current, |pair| pair[1].range.end)
    }

    /// A uniform draw for each position that is asked about.
    fn draws(&self) -> Vec<f32> {
        let (key, length) = (self.key(0), self.canvas.len());
        let draw = |&at: &usize| self.request.draws.remask(key, at, length);
        self.positions.iter().map(draw).collect()
    }

    /// Asks only about positions whose draw is taken.
    fn draw_positions(&mut self, is_taken: impl Fn(f32) -> bool) {
        let draws = self.draws();
        let mut draws = draws.into_iter();
        self.positions
            .retain(|_| draws.next().is_some_and(&is_taken));
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

    /// The share of the masks that a step of Dream takes.
    fn share(&self) -> f32 {
        match self.request.config.process {
            Process::Timestep { eps, .. } => timestep::share(self.step, self.steps, eps),
            _ => 0.0,
        }
    }

    fn quota(&self) -> usize {
        match self.request.config.process {
            Process::Timestep { .. } => {
                timestep::number(self.n_masks(0..self.canvas.len()), self.share())
            }
            process if process.is_parallel() => 1,
            _ => self.quota_in(self.block_step),
        }
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
            let passes = if config.cfg_scale > 0.0 { 2 } else { 1 };
            if !self.speculation.is_guessed {
                self.rows += self.plan.n_rows() * passes;
            }
            let end = self.open_end();
            self.refreshed.called(config, self.block, end);
            if self.has_final_cache() && !self.info.is_autoregressive() {
                self.n_final = self.blocks[self.block].range.start;
            }
        }
        let scores = self.scores()?;
        let scores = self.over_steps(scores);
        self.revealed.clear();
        self.edits.clear();
        self.ends_block = match self.request.config.process {
            process if process.edits() => self.rewrite(process),
            _ => self.fill(&scores),
        };
        self.logits.clear();
        self.end_at_eos();
        Ok(())
    }

    /// What the candidates are ranked by.
    pub(super) fn scores(&self) -> Result<Vec<f32>> {
        let config = &self.request.config;
        let (remasking, alg_temp) = match config.process {
            Process::Timestep { alg, alg_temp, .. } => (alg.remasking(), alg_temp),
            _ => (config.remasking, 0.0),
        };
        let of = |candidate: &Candidate| score(remasking, candidate);
        let mut scores: Vec<f32> = self.candidates.iter().map(of).collect();
        let is_nan = |i: &usize| scores[*i].is_nan() || self.candidates[*i].confidence.is_nan();
        if let Some(i) = (0..scores.len()).find(is_nan) {
            let (request, position, step) = (self.index, self.positions[i], self.step);
            return Err(Error::NotANumber {
                request,
                position,
                step,
            });
        }
        if alg_temp > 0.0 {
            // The highest of these are drawn without replacement from softmax(score / alg_temp).
            for (score, draw) in scores.iter_mut().zip(self.draws()) {
                let gumbel = -(-f64::from(draw).ln()).ln();
                *score = (f64::from(*score) / f64::from(alg_temp) + gumbel) as f32;
            }
        }
        Ok(scores)
    }

    /// The scores, where they depend on the steps before.
    fn over_steps(&mut self, mut scores: Vec<f32>) -> Vec<f32> {
        if self.request.config.remasking == Remasking::RunningConfidence {
            let candidates = self.positions.iter().zip(&self.candidates);
            for (score, (&at, candidate)) in scores.iter_mut().zip(candidates) {
                *score = self.running.count(at, candidate);
            }
        }
        scores
    }

    /// Puts tokens in the places of masks, and returns whether that was the block's last step.
    fn fill(&mut self, scores: &[f32]) -> bool {
        let config = &self.request.config;
        let block = self.blocks[self.block].range.clone();
        let step = Predicted {
            positions: &self.positions,
            candidates: &self.candidates,
            order: &ranked(scores),
            quota: self.quota(),
            mask_ratio: self.n_masks(block.clone()) as f32 / self.block_masks.max(1) as f32,
        };
        let mut order = committed_of_open(config.process, &step, block.end);
        let is_last = self.block_step + 1 >= self.blocks[self.block].steps;
        let is_capped = config.caps_steps && config.process.is_parallel() && is_last;
        let exits = config.margin_exit.is_some_and(|exit| {
            let own = self.positions.iter().zip(&self.candidates);
            let own = own.filter(|(at, _)| **at < block.end);
            let margins = own.map(|(_, candidate)| candidate.margin);
            exit.is_reached(margins, step.mask_ratio)
        });
        if is_capped || exits {
            let is_own = |i: &usize| self.positions[*i] < block.end;
            order.extend(step.order.iter().copied().filter(is_own));
        }
        order.sort_unstable();
        order.dedup();
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
        let is_full = !self.has_mask(block);
        let may_exit = config.margin_exit.is_some();
        match self.request.config.process {
            // A step that reveals nothing, as the mask itself won, would repeat itself.
            process if process.is_parallel() => self.revealed.is_empty() || is_full,
            Process::EntropyExit(_) | Process::BlockDiffusion { .. } if is_full => true,
            _ if may_exit && is_full => true,
            _ => self.block_step + 1 == self.blocks[self.block].steps,
        }
    }
}
