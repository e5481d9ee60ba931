//! Copies of a run that take steps ahead of it.

use llada_diffusion::{Candidate, KvCache};

use super::Run;
use crate::ahead::Ahead;
use crate::remask::ranked;

impl Run {
    /// Step within the run.
    pub(crate) fn step(&self) -> usize {
        self.step
    }

    /// The current block.
    pub(crate) fn block(&self) -> usize {
        self.block
    }

    /// A copy in its current step, without the cache.
    pub(crate) fn guess(&self) -> Self {
        Self {
            index: self.index,
            request: self.request.clone(),
            rule: self.rule.clone(),
            info: self.info,
            answer: self.answer.clone(),
            canvas: self.canvas.clone(),
            is_given: self.is_given.clone(),
            blocks: self.blocks.clone(),
            block: self.block,
            quotas: self.quotas.clone(),
            block_masks: self.block_masks,
            block_edits: self.block_edits.clone(),
            block_step: self.block_step,
            ends_block: self.ends_block,
            step: self.step,
            steps: self.steps,
            stopped: self.stopped,
            ended: self.ended,
            cache: KvCache::default(),
            n_final: self.n_final,
            refreshed: self.refreshed,
            revealed_in: self.revealed_in.clone(),
            plan: self.plan.clone(),
            rows: 0,
            positions: self.positions.clone(),
            candidates: Vec::new(),
            logits: Vec::new(),
            ahead: Ahead::default(),
            speculation: self.speculation.of_guess(),
            running: self.running.clone(),
            revealed: Vec::new(),
            edits: Vec::new(),
        }
    }

    /// The next step that needs a call, if these are the candidates of this one; `None` if there is
    /// none.
    pub(crate) fn after(&self, candidates: &[Candidate]) -> Option<Self> {
        let mut run = self.guess();
        run.speculation.stamp(&run.plan, run.step, &run.info);
        run.candidates = candidates.to_vec();
        loop {
            run.reveal().ok()?;
            run.advance();
            if run.is_done() {
                return None;
            }
            run.choose_positions().ok()?;
            run.candidates.clear();
            if !run.positions.is_empty() {
                return Some(run);
            }
        }
    }

    /// Indexes of candidates of this step, the best first.
    pub(crate) fn order_of(&self, candidates: &[Candidate]) -> Vec<usize> {
        let mut run = self.guess();
        run.candidates = candidates.to_vec();
        run.scores()
            .map_or_else(|_| Vec::new(), |scores| ranked(&scores))
    }
}
