//! Which rows a step computes and which keys it sees, as a plan of one sequence.

use std::ops::Range;

use llada_diffusion::RowPlan;

use crate::{CacheMode, SampleConfig};

/// How far a step sees, and how soon keys and values are computed anew. The default adds nothing
/// to a [`CacheMode`]. All of it changes tokens, and nothing of it depends on time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshPolicy {
    /// Positions after the block that are seen; the last one of the canvas is seen too, and so is
    /// every token that is known. Other masks are neither computed nor attended to. `None`: all are
    /// seen (Streaming-dLLM, arXiv 2601.17917, for answers without known tokens in them).
    pub suffix_window: Option<usize>,
    /// The given tokens before the first mask are computed anew in the first step of every so many
    /// blocks; 1: of each (dLLM-Cache, arXiv 2506.06295).
    pub prompt_interval: usize,
    /// Positions on either side of the block that are computed with it (dInfer, arXiv 2510.08666).
    pub vicinity: usize,
    /// Everything that is seen, but for the prompt, is computed anew every so many calls; 1: always.
    /// `None`: in the first call of a block only.
    pub refresh_interval: Option<usize>,
    /// Of [`CacheMode::Activity`]: for how many further calls a new token is computed after the one
    /// that sees it first (dKV-Cache, arXiv 2505.15781).
    pub keep_active: usize,
}

impl Default for RefreshPolicy {
    fn default() -> Self {
        Self {
            suffix_window: None,
            prompt_interval: 1,
            vicinity: 0,
            refresh_interval: None,
            keep_active: 1,
        }
    }
}

/// What a plan depends on.
#[derive(Debug)]
pub(crate) struct Canvas<'a> {
    /// `[L]`
    pub(crate) is_masked: Vec<bool>,
    /// The given tokens before the first mask.
    pub(crate) prompt: usize,
    pub(crate) block: Range<usize>,
    /// Index of the block.
    pub(crate) block_index: usize,
    /// `[L]`: the call, from 1, that revealed a position's token; 0 for none.
    pub(crate) revealed_in: &'a [usize],
}

/// What the cache of a run has seen.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Refreshed {
    /// Calls so far.
    pub(crate) calls: usize,
    /// Block and call of the last refresh, and where the window of suffixes began.
    last: Option<(usize, usize, usize)>,
    /// Block in which the prompt was computed last.
    prompt: Option<usize>,
}

impl Refreshed {
    /// Whether the next call is a refresh.
    fn is_due(&self, config: &SampleConfig, block: usize, end: usize) -> bool {
        let refresh = &config.refresh;
        let interval = refresh.refresh_interval.unwrap_or(usize::MAX);
        match self.last {
            // A window that has moved, as another block was opened, shows what was not computed.
            Some((_, _, before)) if refresh.suffix_window.is_some() && before != end => true,
            Some((of_block, call, _)) if of_block == block => self.calls - call >= interval,
            _ => true,
        }
    }

    fn is_prompt_due(&self, config: &SampleConfig, block: usize) -> bool {
        let interval = config.refresh.prompt_interval;
        let due = |last: usize| block > last && block - last >= interval;
        // Within the block of its last refresh, the prompt is as the others if it always is.
        self.prompt
            .is_none_or(|last| due(last) || (interval == 1 && last == block))
    }

    /// The next call was made, in a block or several that end there.
    pub(crate) fn called(&mut self, config: &SampleConfig, block: usize, end: usize) {
        if self.is_due(config, block, end) {
            if self.is_prompt_due(config, block) {
                self.prompt = Some(block);
            }
            self.last = Some((block, self.calls, end));
        }
        self.calls += 1;
    }

    /// Rows and keys of the next call.
    pub(crate) fn plan(&self, config: &SampleConfig, canvas: &Canvas<'_>) -> RowPlan {
        let (refresh, length) = (&config.refresh, canvas.is_masked.len());
        let block = &canvas.block;
        let window_end = refresh
            .suffix_window
            .map_or(length, |w| block.end.saturating_add(w));
        let is_key: Vec<bool> = (0..length)
            .map(|at| at < window_end || at + 1 == length || !canvas.is_masked[at])
            .collect();
        let is_due = self.is_due(config, canvas.block_index, block.end);
        let prompt_due = self.is_prompt_due(config, canvas.block_index);
        let start = block.start.saturating_sub(refresh.vicinity);
        let near = start..block.end.saturating_add(refresh.vicinity);
        let is_active = |at: usize| {
            let call = canvas.revealed_in[at];
            // The call after the one that revealed it must see it.
            call > 0 && self.calls - call <= refresh.keep_active
        };
        let in_step = |at: usize| match config.cache {
            CacheMode::None => true,
            CacheMode::Prefix => at >= near.start,
            CacheMode::Dual => near.contains(&at),
            CacheMode::Activity => {
                let is_beside = near.contains(&at) && !block.contains(&at);
                is_beside || (block.contains(&at) && canvas.is_masked[at]) || is_active(at)
            }
        };
        let is_row = |at: usize| {
            let is_chosen = if is_due {
                at >= canvas.prompt || prompt_due
            } else {
                in_step(at)
            };
            is_key[at] && is_chosen
        };
        let is_row: Vec<bool> = (0..length).map(is_row).collect();
        RowPlan::of(&is_row, &is_key)
    }
}

#[cfg(test)]
mod tests;
