//! A request at its beginning: what is checked, and how its canvas is divided.

use std::sync::Arc;

use llada_diffusion::{KvCache, Noise, PredictorInfo, RowPlan, StepKey, num_transfer_tokens};

use super::Run;
use crate::ahead::Ahead;
use crate::block::{Block, blocks};
use crate::canvas::{canvas, check_allowed, check_process, span};
use crate::edit::BlockEdits;
use crate::evaluate::Rule;
use crate::refresh::Refreshed;
use crate::running::Running;
use crate::speculate::Speculation;
use crate::{
    Alg, Draws, Error, Horizon, Overrides, Process, Remasking, Request, Result, SampleConfig, Task,
};

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
        check_process(index, &request, &canvas, info)?;
        let is_masked: Vec<bool> = canvas.iter().map(|&id| id == info.mask_token_id).collect();
        let span = span(index, &request, &is_masked, &answer)?;
        if info.is_autoregressive() && answer.start == 0 {
            return Err(Error::OutOfRange {
                request: index,
                what: "the prompt",
                expected: "at least 1 token",
                got: 0.0,
            });
        }
        let blocks = match (info.is_autoregressive(), request.config.process) {
            // Token by token.
            (true, _) => blocks(&is_masked, span, None, answer.len()),
            (_, Process::Timestep { .. }) => vec![Block {
                range: 0..canvas.len(),
                steps: request.config.steps,
            }],
            _ => divided(index, &request, &is_masked, span)?,
        };
        let steps = match request.config.process.is_parallel() {
            true => is_masked.iter().filter(|&&masked| masked).count(),
            false => blocks.iter().map(|block| block.steps).sum(),
        };
        let mut run = Self {
            index,
            rule: Rule::new(&request),
            speculation: Speculation::new(&request.config, canvas.len()),
            request: Arc::new(request),
            info: *info,
            answer,
            revealed_in: vec![0; canvas.len()],
            canvas,
            steps,
            is_given: is_masked.iter().map(|masked| !masked).collect(),
            blocks,
            block: 0,
            quotas: Vec::new(),
            block_masks: 0,
            block_edits: BlockEdits::default(),
            block_step: 0,
            ends_block: false,
            step: 0,
            stopped: false,
            ended: None,
            cache: KvCache::default(),
            n_final: 0,
            refreshed: Refreshed::default(),
            running: Running::default(),
            plan: RowPlan::default(),
            rows: 0,
            positions: Vec::new(),
            candidates: Vec::new(),
            logits: Vec::new(),
            ahead: Ahead::default(),
            revealed: Vec::new(),
            edits: Vec::new(),
        };
        run.check_draws()?;
        run.begin_block();
        Ok(run)
    }

    /// Begins with the keys and values of whole blocks of the prompt.
    pub(crate) fn begin_with(&mut self, cache: KvCache) {
        self.n_final = cache.n_known();
        self.cache = cache;
    }

    /// Quotas count the masks of the block as it is now.
    pub(super) fn begin_block(&mut self) {
        self.block_step = 0;
        self.ahead = Ahead::default();
        let Some(block) = self.blocks.get(self.block) else {
            return;
        };
        let (range, steps) = (block.range.clone(), block.steps);
        self.block_masks = self.n_masks(range.clone());
        let config = &self.request.config;
        let shared = match config.process {
            // Whatever is given of the block.
            Process::BlockDiffusion { .. } => config.block_length.unwrap_or(range.len()),
            _ => self.block_masks,
        };
        self.quotas = num_transfer_tokens(shared, steps);
        if config.process.edits() {
            let is_masked = |&id: &u32| id == self.info.mask_token_id;
            self.block_edits = BlockEdits::of(self.canvas[range].iter().map(is_masked));
        }
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
        let draws_positions = match config.process {
            Process::Reverse => true,
            Process::Timestep { alg, alg_temp, .. } => alg == Alg::Origin || alg_temp > 0.0,
            _ => config.remasking == Remasking::Random,
        };
        match draws_positions {
            true => draws.check_remask(self.index, steps, length),
            false => Ok(()),
        }
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
}

/// The blocks of a request and their steps.
fn divided(
    index: usize,
    request: &Request,
    is_masked: &[bool],
    span: std::ops::Range<usize>,
) -> Result<Vec<Block>> {
    let config = &request.config;
    let mut blocks = blocks(is_masked, span, config.block_length, config.steps);
    if config.horizon == Horizon::Canvas {
        let (steps, n) = (config.steps, blocks.len());
        let is_counted = !config.process.is_parallel() || config.caps_steps;
        return match steps < n && is_counted {
            true => Err(Error::TooFewSteps {
                request: index,
                steps,
                blocks: n,
            }),
            false => Ok(blocks),
        };
    }
    let steps = block_steps(index, request, config, is_masked)?;
    for block in &mut blocks {
        block.steps = steps;
    }
    Ok(blocks)
}

/// Steps of each block, where it has its own.
fn block_steps(
    index: usize,
    request: &Request,
    config: &SampleConfig,
    is_masked: &[bool],
) -> Result<usize> {
    let Process::BlockDiffusion { minimal_topk, .. } = config.process else {
        return Ok(config.steps);
    };
    let n_tokens = match request.task {
        Task::Generate { .. } => config.gen_length,
        Task::Infill { .. } => is_masked.iter().filter(|&&masked| masked).count(),
    };
    match n_tokens / minimal_topk {
        0 => Err(Error::OutOfRange {
            request: index,
            what: "minimal_topk",
            expected: "at most the length of the answer",
            got: minimal_topk as f64,
        }),
        most => Ok(config.steps.min(most)),
    }
}
