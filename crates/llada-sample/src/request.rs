//! What is asked of the sampler and what comes back.

use std::collections::BTreeMap;
use std::sync::Arc;

use llada_diffusion::{Nucleus, PredictorInfo, TokenSet};

use crate::run::MAX_BLOCK_STEPS;
use crate::{
    CacheMode, Draws, Horizon, Overrides, Process, RefreshPolicy, Remasking, SampleConfig,
    speculate,
};

/// One sequence to sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What to fill in.
    pub task: Task,
    /// How.
    pub config: SampleConfig,
    /// Which of several samples of one text and seed this is; 0 if there is one. Draws depend on
    /// it, and not on the request's place among others.
    pub sequence: u32,
    /// Where random numbers come from.
    pub draws: Draws,
    /// What may be chosen at masks of the canvas: only tokens of the set, over which alone the
    /// probabilities at that place are taken. Positions are those of the canvas; a place without a
    /// set is free. Usually there are none; a request with sets is computed on the host from its
    /// logits ([`RequestMemory::logits_bytes`]).
    pub allowed: BTreeMap<usize, Arc<TokenSet>>,
}

/// What to fill in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// An answer of `gen_length` tokens after the prompt. As in the reference, masks in the prompt
    /// compete with those of the answer, and some can stay.
    Generate {
        /// The given tokens.
        prompt: Vec<u32>,
        /// Given tokens that follow the answer; usually none.
        suffix: Vec<u32>,
        /// Tokens that are fixed within the answer: offsets from its start, and ids; usually none.
        /// Of two for one place the later counts. They are given: guidance hides them.
        constraints: Vec<(usize, u32)>,
    },
    /// The masks of a text, wherever they are.
    Infill {
        /// The text.
        canvas: Vec<u32>,
        /// Given tokens that follow the text and are no part of it; usually none.
        suffix: Vec<u32>,
    },
}

/// How the host chooses tokens out of logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct OnHost {
    /// Among which.
    pub(crate) nucleus: Nucleus,
    /// The temperature divides the logits, and probabilities are those of the nucleus.
    pub(crate) is_tempered: bool,
    /// Other tokens may be asked for after the choice.
    pub(crate) keeps_logits: bool,
}

impl Request {
    /// One sample of a task.
    #[must_use]
    pub fn new(task: Task, config: SampleConfig) -> Self {
        Self {
            task,
            config,
            sequence: 0,
            draws: Draws::Philox,
            allowed: BTreeMap::new(),
        }
    }

    /// Asks for an answer to a prompt.
    #[must_use]
    pub fn generate(prompt: Vec<u32>, config: SampleConfig) -> Self {
        let (suffix, constraints) = (Vec::new(), Vec::new());
        let task = Task::Generate {
            prompt,
            suffix,
            constraints,
        };
        Self::new(task, config)
    }

    /// Asks for the masks of a text.
    #[must_use]
    pub fn infill(canvas: Vec<u32>, config: SampleConfig) -> Self {
        let suffix = Vec::new();
        Self::new(Task::Infill { canvas, suffix }, config)
    }
}

/// What a request holds while it runs, in bytes, for its canvas at least. What a pass needs besides
/// is shared by all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestMemory {
    /// Of the canvas: tokens, what is known of each position, and the quota of each step.
    pub canvas_bytes: usize,
    /// Of keys and values; 0 without a cache.
    pub cache_bytes: usize,
    /// Of logits of all masks in a step; 0 where the predictor chooses tokens by itself, without
    /// [`Request::allowed`] and a nucleus.
    pub logits_bytes: usize,
}

impl Request {
    /// Tokens of the canvas: prompt, answer and suffix, in whole blocks where these are counted
    /// from the first token.
    #[must_use]
    pub fn length(&self) -> usize {
        let (length, suffix) = match &self.task {
            Task::Generate { prompt, suffix, .. } => {
                (self.config.canvas_length(prompt.len()), suffix)
            }
            Task::Infill { canvas, suffix } => (canvas.len(), suffix),
        };
        length.saturating_add(suffix.len())
    }

    /// What the request will hold, known before it starts.
    #[must_use]
    pub fn memory(&self, info: &PredictorInfo) -> RequestMemory {
        // Token, whether it was given, the call that revealed it; position and candidate.
        const BYTES: usize = size_of::<u32>()
            + size_of::<bool>()
            + 2 * size_of::<usize>()
            + size_of::<llada_diffusion::Candidate>();
        let length = self.length();
        let has_cache = self.config.uses_plans();
        let states = 1 + speculate::most(self.config.speculate);
        RequestMemory {
            canvas_bytes: (length.saturating_mul(BYTES).saturating_mul(states))
                .saturating_add(self.config.steps.saturating_mul(size_of::<usize>()))
                .saturating_add(self.seen_bytes()),
            cache_bytes: match has_cache {
                true => (length.saturating_mul(info.kv_cache_bytes + size_of::<bool>()))
                    .saturating_mul(states),
                false => 0,
            },
            logits_bytes: match self.on_host() {
                None => 0,
                // A copy is kept for other choices.
                Some(host) => (self.n_asked(info) * if host.keeps_logits { 2 } else { 1 })
                    .saturating_mul(1 + self.config.speculate)
                    .saturating_mul(info.vocab_size * size_of::<f32>()),
            },
        }
    }

    /// Positions that a step asks about, at most.
    fn n_asked(&self, info: &PredictorInfo) -> usize {
        let block_length = self.config.block_length.unwrap_or(usize::MAX);
        match self.config.horizon {
            Horizon::AlignedBlock => block_length.min(self.length()),
            Horizon::Canvas | Horizon::Block => self.n_masks(info),
        }
    }

    /// Blocks that a step must not repeat.
    fn seen_bytes(&self) -> usize {
        let block_length = self.config.block_length.unwrap_or(0).min(self.length());
        match self.config.process {
            Process::Rewriting { .. } => {
                (block_length * size_of::<u32>()).saturating_mul(MAX_BLOCK_STEPS)
            }
            _ => 0,
        }
    }

    /// How the host chooses tokens out of logits. `None`: the predictor chooses by itself, among
    /// all.
    pub(crate) fn on_host(&self) -> Option<OnHost> {
        let config = &self.config;
        let is_warm = config.temperature > 0.0;
        let is_timestep = matches!(config.process, Process::Timestep { .. });
        let host = OnHost {
            nucleus: match is_warm || is_timestep {
                true => config.nucleus,
                false => Nucleus::default(),
            },
            is_tempered: is_timestep,
            keeps_logits: matches!(config.process, Process::Rewriting { .. }),
        };
        let is_needed = !host.nucleus.is_all()
            || host.keeps_logits
            || (is_timestep && is_warm)
            || config.end_think.is_some()
            || !self.allowed.is_empty();
        is_needed.then_some(host)
    }

    /// Masks of the canvas at its start, or more of them: fixed tokens count too.
    fn n_masks(&self, info: &PredictorInfo) -> usize {
        let (given, rest) = match &self.task {
            _ if info.is_autoregressive() => return 1,
            Task::Generate { prompt, .. } => (prompt, self.config.gen_length),
            Task::Infill { canvas, .. } => (canvas, 0),
        };
        let masks = given.iter().filter(|&&id| id == info.mask_token_id);
        masks.count().saturating_add(rest)
    }

    /// What the request, or what it was made of, asks for that an autoregressive model cannot do.
    pub(crate) fn diffusion_only(&self, overrides: &Overrides) -> Option<&'static str> {
        let (config, refresh) = (&self.config, &self.config.refresh);
        let usual = RefreshPolicy::default();
        let (is_infill, has_suffix, has_constraints) = match &self.task {
            Task::Infill { .. } => (true, false, false),
            Task::Generate {
                suffix,
                constraints,
                ..
            } => (false, !suffix.is_empty(), !constraints.is_empty()),
        };
        let is_cache_known = matches!(config.cache, CacheMode::None | CacheMode::Prefix);
        let checks = [
            ("preset", overrides.preset.is_some()),
            ("infill", is_infill),
            ("constraints", has_constraints),
            ("allowed tokens", !self.allowed.is_empty()),
            ("a suffix", has_suffix),
            ("steps", overrides.steps.is_some()),
            ("block_length", overrides.block_length.is_some()),
            ("cfg_scale", config.cfg_scale > 0.0),
            ("remasking", config.remasking != Remasking::LowConfidence),
            ("cache", !is_cache_known),
            (
                "prompt_interval",
                refresh.prompt_interval != usual.prompt_interval,
            ),
            ("vicinity", refresh.vicinity != usual.vicinity),
            (
                "refresh_interval",
                refresh.refresh_interval != usual.refresh_interval,
            ),
            (
                "suffix_window",
                refresh.suffix_window != usual.suffix_window,
            ),
            (config.process.name(), config.process != Process::Quota),
            ("overlap", config.overlap.is_some()),
            ("margin_exit", config.margin_exit.is_some()),
            ("variable_length", config.horizon != Horizon::Canvas),
            ("end_think", config.end_think.is_some()),
            ("speculate", config.speculate > 0),
            (
                "confidence_eos_eot_inf",
                !config.confidence_eos_eot_inf.is_empty(),
            ),
            ("a recording of draws", self.draws != Draws::Philox),
        ];
        let found = checks.into_iter().find(|(_, is_asked)| *is_asked);
        found.map(|(what, _)| what)
    }
}

/// A sampled sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The whole canvas: prompt, answer and suffix, or the text that was filled in. Where a step
    /// sees nothing after its block ([`crate::Horizon`]), prompt and answer, as far as this was
    /// written.
    pub tokens: Vec<u32>,
    /// Length of the prompt; 0 for an infill.
    pub prompt_len: usize,
    /// Length of the suffix.
    pub suffix_len: usize,
    /// Whether it was an infill: an EOS in it was given, and ends nothing.
    pub is_infill: bool,
    /// How often the predictor saw this sequence. Steps that reveal nothing need no call, and neither
    /// do steps that were guessed; guided calls count once, as in the reference.
    pub nfe: usize,
    /// Positions that all calls have computed; a guided call computes each twice. What a cache or a
    /// suffix window leaves out is not counted, what is guessed is.
    pub rows: usize,
    /// Canvases that were guessed ([`SampleConfig::speculate`]).
    pub guesses: usize,
    /// Steps that were guessed: so many calls were left out.
    pub right_guesses: usize,
    /// Steps that were run.
    pub steps: usize,
    /// Steps that were left when an EOS ended the answer early; 0 where the number of steps is not
    /// fixed ([`crate::Process::Threshold`] and its like).
    pub saved_steps: usize,
    /// Whether an observer stopped the request before its last step.
    pub stopped: bool,
}

impl Output {
    /// The tokens between prompt and suffix; of an infill the text.
    #[must_use]
    pub fn answer(&self) -> &[u32] {
        &self.tokens[self.prompt_len..self.tokens.len() - self.suffix_len]
    }
}
