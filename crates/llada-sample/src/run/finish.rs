//! The end of a step, of a block, and of a request.

use std::ops::Range;

use super::Run;
use crate::{Horizon, Output, Process, StepEvent, Task};

impl Run {
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
            edits: &self.edits,
            window: self.blocks[self.block].range.clone(),
            ends_block: self.ends_block,
            canvas: &self.canvas,
        }
    }

    /// The part of the answer before its first mask, and before the block if that may be edited,
    /// which no later step changes.
    fn settled(&self) -> Range<usize> {
        let block = &self.blocks[self.block].range;
        let end = match self.request.config.process.edits() {
            true if self.ends_block => block.end,
            true => block.start,
            false => self.canvas.len(),
        };
        let known = self.answer.start..end.clamp(self.answer.start, self.answer.end);
        let first = match self.next_token() {
            Some(next) if self.ended.is_none() => Some(next + 1 - self.answer.start),
            _ => (self.canvas[known.clone()].iter()).position(|&id| id == self.info.mask_token_id),
        };
        known.start..first.map_or(known.end, |n| known.start + n)
    }

    /// Goes on to the next step.
    pub(crate) fn advance(&mut self) {
        self.step += 1;
        self.block_step += 1;
        if self.ends_block {
            self.block += 1;
            self.begin_block();
        }
    }

    /// Ends an answer that has an EOS, unless a fixed token follows.
    pub(super) fn end_at_eos(&mut self) {
        if !matches!(self.request.task, Task::Generate { .. }) {
            return;
        }
        let early_stop = self.request.config.early_stop;
        self.ended = match self.request.config.horizon {
            Horizon::Canvas if early_stop => self.end_on_canvas(),
            Horizon::Canvas => None,
            Horizon::Block => self.end_of_block().filter(|_| early_stop),
            Horizon::AlignedBlock => match self.request.config.process {
                process if process.edits() => {
                    let written = self.answer.start..self.blocks[self.block].range.end;
                    let is_full = !self.has_mask(written);
                    self.end_of_block().filter(|_| early_stop && is_full)
                }
                _ if early_stop => self.end_in_block().or_else(|| self.end_of_block()),
                _ => self.end_of_block(),
            },
        };
    }

    /// An EOS before the first mask: the rest of the answer is filled with it.
    fn end_on_canvas(&mut self) -> Option<usize> {
        let settled = self.settled();
        let ids = &self.canvas[settled.clone()];
        let end = settled.start + ids.iter().position(|&id| self.is_eos(id))?;
        let rest = end + 1..self.answer.end;
        if !self.has_mask(self.answer.clone()) || self.is_given[rest.clone()].contains(&true) {
            return None;
        }
        self.canvas[rest].fill(self.info.eos_token_id);
        Some(self.answer.end)
    }

    /// After its last step, a block behind which nothing is given, if there is an EOS in the answer
    /// so far.
    fn end_of_block(&self) -> Option<usize> {
        let end = self.blocks[self.block].range.end.min(self.answer.end);
        let written = self.answer.start..end;
        let has_eos = self.canvas[written].iter().any(|&id| self.is_eos(id));
        let is_end = self.ends_block && has_eos && !self.is_given[end..].contains(&true);
        is_end.then_some(end)
    }

    /// After a step that has written an EOS, if no mask of the answer stands before the first EOS
    /// of the canvas: LLaDA2.0 looks for that in the prompt, too. (Other tokens that end an answer
    /// may end the turns of a conversation before it.)
    fn end_in_block(&self) -> Option<usize> {
        let block = &self.blocks[self.block].range;
        let is_written = self.revealed.iter().any(|new| self.is_eos(new.token));
        let mut seen = self.canvas[..block.end].iter().enumerate();
        let is_end = |(at, &id): (usize, &u32)| {
            id == self.info.eos_token_id || (at >= self.answer.start && self.is_eos(id))
        };
        let first = seen.position(is_end)?;
        let end = (first + 1).clamp(self.answer.start, self.answer.end);
        let is_end = is_written
            && !self.has_mask(self.answer.start..end)
            && !self.is_given[end..].contains(&true);
        is_end.then_some(end)
    }

    /// Ends the run after this step.
    pub(crate) fn stop(&mut self) {
        self.stopped = !self.is_done();
    }

    /// Where the text ends that comes out.
    fn end(&self) -> usize {
        let is_infill = matches!(self.request.task, Task::Infill { .. });
        match self.request.config.horizon {
            _ if is_infill => self.canvas.len(),
            Horizon::Canvas => self.canvas.len(),
            // Blocks that were not begun were never appended.
            Horizon::Block => match self.ended {
                Some(end) => end,
                None if self.block < self.blocks.len() => self.begun(),
                None => self.answer.end,
            },
            Horizon::AlignedBlock => {
                let answer = self.answer.start..self.ended.unwrap_or(self.answer.end);
                let ids = &self.canvas[answer.clone()];
                let first = ids.iter().position(|&id| self.is_eos(id));
                let end = first.map_or(answer.end, |n| answer.start + n + 1);
                match self.is_given[end..].contains(&true) {
                    true => answer.end,
                    false => end,
                }
            }
        }
    }

    /// The end of the block of the last step.
    fn begun(&self) -> usize {
        let block = match self.block_step {
            0 => self.block.checked_sub(1),
            _ => Some(self.block),
        };
        block.map_or(self.answer.start, |block| self.blocks[block].range.end)
    }

    pub(crate) fn into_output(self) -> Output {
        let is_infill = matches!(self.request.task, Task::Infill { .. });
        if is_infill && self.request.config.suppress_mask && !self.stopped {
            assert!(
                !self.has_mask(0..self.canvas.len()),
                "the blocks cover all masks and the mask is never predicted"
            );
        }
        let suffix_len = match self.request.config.horizon {
            Horizon::Canvas => self.canvas.len() - self.answer.end,
            Horizon::Block | Horizon::AlignedBlock => 0,
        };
        let has_quotas = match self.request.config.process {
            Process::BlockDiffusion { .. } => false,
            process => !process.is_parallel(),
        };
        let end = self.end();
        let saved_steps = match self.ended {
            Some(_) if has_quotas => self.steps - self.step,
            _ => 0,
        };
        let mut tokens = self.canvas;
        tokens.truncate(end);
        Output {
            is_infill,
            prompt_len: self.answer.start,
            suffix_len,
            tokens,
            nfe: self.refreshed.calls - self.speculation.right,
            rows: self.rows + self.speculation.rows,
            guesses: self.speculation.made,
            right_guesses: self.speculation.right,
            steps: self.step,
            saved_steps,
            stopped: self.stopped,
        }
    }
}
