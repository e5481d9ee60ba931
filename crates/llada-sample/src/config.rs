//! Settings of one request, in the words of the reference's generate.py.

use std::fmt;
use std::str::FromStr;

use llada_diffusion::Nucleus;

use crate::process::Bounds;
use crate::{Error, MarginExit, Process, RefreshPolicy, Result, speculate};

/// Which of the predicted tokens stay; the others are masked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Remasking {
    /// Those with the highest probability (arXiv 2502.09992, algorithm 5).
    #[default]
    LowConfidence,
    /// Randomly chosen ones.
    Random,
    /// Those with the largest difference between the two highest probabilities (`topk_margin` of
    /// Dream).
    Margin,
    /// Those with the lowest entropy of the predicted distribution (`entropy` of Dream).
    Entropy,
    /// Those whose confidence was high in the steps before, too: by its running mean over the steps
    /// that predicted the same token, which halves with every step.
    RunningConfidence,
}

impl Remasking {
    /// All strategies.
    pub const ALL: [Self; 5] = [
        Self::LowConfidence,
        Self::Random,
        Self::Margin,
        Self::Entropy,
        Self::RunningConfidence,
    ];

    /// The name on the command line and in generate.py.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LowConfidence => "low_confidence",
            Self::Random => "random",
            Self::Margin => "margin",
            Self::Entropy => "entropy",
            Self::RunningConfidence => "running_confidence",
        }
    }
}

impl fmt::Display for Remasking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Remasking {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL
            .into_iter()
            .find(|remasking| remasking.name() == name);
        found.ok_or_else(|| Error::UnknownRemasking {
            name: name.to_owned(),
        })
    }
}

/// Which keys and values are taken from earlier steps. Each block begins with a step that sees the
/// whole sequence anew; the others are approximations (Fast-dLLM, arXiv 2505.22618).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// None: every step computes all positions.
    #[default]
    None,
    /// Those of all positions before the block.
    Prefix,
    /// Those of all positions outside of the block.
    Dual,
    /// Those of all tokens that are known, but for new ones: a step computes the masks of the
    /// block, and tokens for [`crate::RefreshPolicy::keep_active`] calls after their first.
    Activity,
}

impl CacheMode {
    /// All modes.
    pub const ALL: [Self; 4] = [Self::None, Self::Prefix, Self::Dual, Self::Activity];

    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Prefix => "prefix",
            Self::Dual => "dual",
            Self::Activity => "activity",
        }
    }
}

impl fmt::Display for CacheMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CacheMode {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|mode| mode.name() == name);
        found.ok_or_else(|| Error::UnknownCache {
            name: name.to_owned(),
        })
    }
}

/// Where blocks begin, and how far a step sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Horizon {
    /// Blocks of the answer, which share the steps; every step sees the whole canvas
    /// (generate.py).
    #[default]
    Canvas,
    /// Blocks of the answer, each with as many steps as [`SampleConfig::steps`] says; a step sees
    /// the canvas up to the end of its block, as if blocks of masks were appended one by one
    /// (variable length of iLLaDA). The answer is cut to whole blocks, and with
    /// [`SampleConfig::early_stop`] ends after a block with an EOS.
    Block,
    /// As [`Horizon::Block`], but blocks are counted from the first token of the canvas, so that
    /// the end of the prompt shares a block with the first tokens of the answer (LLaDA2.x). The
    /// canvas is as long as it takes for whole blocks, and the answer ends with its first EOS or
    /// after `gen_length` tokens.
    AlignedBlock,
}

/// Makes it likelier with every token that the reasoning of an answer ends: the first mask of the
/// block has the next token of `</think>` boosted, unless the answer has the whole of it (the
/// evaluations of iLLaDA).
#[derive(Debug, Clone, PartialEq)]
pub struct EndThink {
    /// The tokens of `</think>`.
    pub token_ids: Vec<u32>,
    /// What is added to the logit of one token at the end of the answer.
    pub logit_boost: f32,
    /// Of the `n`-th token of an answer of `gen_length` it is `(n / gen_length) ^ power` of that.
    pub power: f32,
}

/// How a request is sampled. The defaults are those of generate.py.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleConfig {
    /// Steps, all blocks together; where [`Self::horizon`] is a block's end, of each block.
    pub steps: usize,
    /// Whether a rule that counts no steps, such as [`Process::Threshold`], takes no more than these:
    /// the last step of a block then reveals the rest of it.
    pub caps_steps: bool,
    /// Length of the answer. An infill has its length already and does not read it.
    pub gen_length: usize,
    /// Length of the blocks that are filled one after the other (semi-autoregressive remasking).
    /// The last block may be shorter. `None`: one block.
    pub block_length: Option<usize>,
    /// Where blocks begin, and how far a step sees.
    pub horizon: Horizon,
    /// Temperature of the Gumbel noise; 0 takes the most likely token.
    pub temperature: f64,
    /// Among which tokens it draws; without a temperature it is read by [`Process::Timestep`] alone,
    /// whose confidences it changes.
    pub nucleus: Nucleus,
    /// Scale of classifier-free guidance (eq. 16); 0 is none.
    pub cfg_scale: f32,
    /// Which predicted tokens stay.
    pub remasking: Remasking,
    /// How many tokens a step reveals.
    pub process: Process,
    /// The share of a block that is filled when the next one opens, in [0, 1]; `None`: all of it. Of
    /// open blocks behind the first one a step takes what passes the bar of the process, a threshold
    /// or [`Process::EntropyExit`]; of the first one something in any case (multi-block decoding of
    /// d3LLM, arXiv 2601.07568, whose bar is of the entropy and which opens at a tenth).
    pub overlap: Option<f32>,
    /// When a step takes all that its block has left.
    pub margin_exit: Option<MarginExit>,
    /// Which keys and values are taken from earlier steps. Without guidance only.
    pub cache: CacheMode,
    /// How far a step sees, and how soon the cache is computed anew.
    pub refresh: RefreshPolicy,
    /// Canvases of coming steps that a call computes beside its own, at most: those that the last
    /// candidates let expect. A step whose canvas was guessed needs no call. It changes neither text
    /// nor events, only calls and rows ([`crate::Output::nfe`], [`crate::Output::rows`]); where the
    /// predictor takes several steps at once nothing is guessed. At most 64; 0 is none.
    pub speculate: usize,
    /// Whether an answer ends as soon as an EOS stands in it with no mask before it: the rest is
    /// then filled with EOS. Where [`Self::horizon`] is a block's end, the rest is left out, and an
    /// answer ends after a block; with [`Process::BlockDiffusion`] as soon as an EOS is written and
    /// no mask stands before the first one (`eos_early_stop` of LLaDA2.x).
    pub early_stop: bool,
    /// What makes the end of an answer's reasoning likelier.
    pub end_think: Option<EndThink>,
    /// Tokens that end an answer as the EOS does; the rest is filled with EOS all the same.
    pub further_eos_token_ids: Vec<u32>,
    /// Seed of all draws of this request.
    pub seed: u64,
    /// Whether the mask itself is kept from being predicted. In the reference it is not: where it
    /// wins, the position stays masked, and masks can be left at the end.
    pub suppress_mask: bool,
    /// Ids that are never chosen (`logits_eos_inf`: the id of EOS).
    pub logits_eos_inf: Vec<u32>,
    /// Ids without probability in the confidence (`confidence_eos_eot_inf`: EOS and EOT), so that
    /// they are kept last. The reference at a positive temperature means EOT alone, since EOS is
    /// changed in a tensor that is not read again; a caller who wants that gives EOT alone.
    pub confidence_eos_eot_inf: Vec<u32>,
}

impl Default for SampleConfig {
    fn default() -> Self {
        Self {
            steps: 128,
            gen_length: 128,
            block_length: Some(128),
            caps_steps: false,
            horizon: Horizon::Canvas,
            temperature: 0.0,
            nucleus: Nucleus::default(),
            cfg_scale: 0.0,
            remasking: Remasking::LowConfidence,
            process: Process::Quota,
            overlap: None,
            margin_exit: None,
            cache: CacheMode::None,
            refresh: RefreshPolicy::default(),
            speculate: 0,
            early_stop: false,
            end_think: None,
            further_eos_token_ids: Vec::new(),
            seed: 0,
            suppress_mask: false,
            logits_eos_inf: Vec::new(),
            confidence_eos_eot_inf: Vec::new(),
        }
    }
}

/// There is a quota for each step in memory.
const MAX_STEPS: usize = 1 << 20;

impl SampleConfig {
    /// The reverse process of the paper: one block, tokens drawn at temperature 1.
    #[must_use]
    pub fn reverse(steps: usize, gen_length: usize, seed: u64) -> Self {
        Self {
            steps,
            gen_length,
            block_length: None,
            temperature: 1.0,
            process: Process::Reverse,
            seed,
            ..Self::default()
        }
    }

    /// Checks every setting on its own.
    pub(crate) fn check(&self, request: usize) -> Result<()> {
        let check = |what, is_ok, expected, got| {
            let error = Error::OutOfRange {
                request,
                what,
                expected,
                got,
            };
            if is_ok { Ok(()) } else { Err(error) }
        };
        let at_least_one = |what, got: usize| check(what, got > 0, "at least 1", got as f64);
        let scale = |what, got: f64| {
            check(
                what,
                got.is_finite() && got >= 0.0,
                "a number, 0 or more",
                got,
            )
        };
        at_least_one("steps", self.steps)?;
        let steps = self.steps as f64;
        check("steps", self.steps <= MAX_STEPS, "at most 1048576", steps)?;
        at_least_one("block_length", self.block_length.unwrap_or(1))?;
        self.check_process(request)?;
        self.check_end_think(request)?;
        speculate::check(request, self)?;
        scale("temperature", self.temperature)?;
        at_least_one("top_k", self.nucleus.top_k.unwrap_or(1))?;
        let top_p = self.nucleus.top_p.unwrap_or(1.0);
        let is_share = top_p > 0.0 && top_p <= 1.0;
        check("top_p", is_share, "above 0 and at most 1", top_p)?;
        scale("cfg_scale", f64::from(self.cfg_scale))?;
        let overlap = ("overlap", Bounds::Unit, self.overlap.unwrap_or(1.0));
        let exit = self.margin_exit.iter().flat_map(|exit| exit.numbers());
        for (what, bounds, x) in self
            .process
            .numbers()
            .into_iter()
            .chain(exit)
            .chain([overlap])
        {
            check(what, bounds.contains(x), bounds.expected(), f64::from(x))?;
        }
        let refresh = &self.refresh;
        at_least_one("prompt_interval", refresh.prompt_interval)?;
        at_least_one("refresh_interval", refresh.refresh_interval.unwrap_or(1))?;
        if self.uses_plans() && self.cfg_scale > 0.0 {
            return Err(Error::GuidedCache { request });
        }
        let what = [
            (refresh.prompt_interval > 1, "prompt_interval"),
            (refresh.vicinity > 0, "vicinity"),
            (refresh.refresh_interval.is_some(), "refresh_interval"),
        ];
        let without_cache = what.into_iter().find(|(is_set, _)| *is_set);
        match without_cache {
            Some((_, what)) if self.cache == CacheMode::None => {
                Err(Error::NeedsCache { request, what })
            }
            _ => Ok(()),
        }
    }

    /// Checks the process with the blocks that it is made for.
    fn check_process(&self, request: usize) -> Result<()> {
        let process = self.process.name();
        let has_horizon = self.horizon != Horizon::Canvas;
        if has_horizon && self.block_length.is_none() {
            return Err(Error::NeedsBlockLength { request });
        }
        if self.process.needs_aligned_blocks() && self.horizon != Horizon::AlignedBlock {
            return Err(Error::NeedsAlignedBlocks { request, process });
        }
        let is_timestep = matches!(self.process, Process::Timestep { .. });
        // What a step asks about was drawn before anything is predicted.
        let is_drawn = self.process == Process::Reverse || self.remasking == Remasking::Random;
        let fixed_remasking = self.process.needs_aligned_blocks() || is_timestep;
        let not_for_process = [
            (
                "overlap",
                self.overlap.is_some() && self.process.bar().is_none(),
            ),
            (
                "margin_exit",
                self.margin_exit.is_some() && (fixed_remasking || is_drawn),
            ),
            ("block_length", is_timestep && self.block_length.is_some()),
            (
                "remasking",
                fixed_remasking && self.remasking != Remasking::LowConfidence,
            ),
        ];
        if let Some((what, _)) = not_for_process.into_iter().find(|(_, is_set)| *is_set) {
            return Err(Error::NotForProcess {
                request,
                what,
                process,
            });
        }
        let of_canvas = [
            ("suffix_window", self.refresh.suffix_window.is_some()),
            ("overlap", self.overlap.is_some()),
        ];
        let of_canvas = of_canvas.into_iter().find(|(_, is_set)| *is_set);
        if let Some((what, _)) = of_canvas.filter(|_| has_horizon) {
            return Err(Error::NotForProcess {
                request,
                what,
                process: "blocks that a step sees nothing after",
            });
        }
        let (what, got) = match self.process {
            Process::BlockDiffusion { minimal_topk, .. } => ("minimal_topk", minimal_topk),
            Process::Editing {
                num_to_transfer, ..
            } => ("num_to_transfer", num_to_transfer),
            _ => return Ok(()),
        };
        match got {
            0 => Err(Error::OutOfRange {
                request,
                what,
                expected: "at least 1",
                got: 0.0,
            }),
            _ => Ok(()),
        }
    }

    fn check_end_think(&self, request: usize) -> Result<()> {
        let Some(end_think) = &self.end_think else {
            return Ok(());
        };
        let n_ids = end_think.token_ids.len() as f64;
        let (boost, power) = (end_think.logit_boost, end_think.power);
        let checks = [
            ("the tokens of end_think", n_ids > 0.0, "at least 1", n_ids),
            (
                "logit_boost",
                boost.is_finite(),
                "a number",
                f64::from(boost),
            ),
            (
                "power",
                power.is_finite() && power >= 0.0,
                "a number, 0 or more",
                f64::from(power),
            ),
        ];
        match checks.into_iter().find(|(_, is_ok, ..)| !is_ok) {
            Some((what, _, expected, got)) => Err(Error::OutOfRange {
                request,
                what,
                expected,
                got,
            }),
            None => Ok(()),
        }
    }

    /// Tokens of the canvas of an answer after so many tokens of a prompt, without a suffix.
    pub(crate) fn canvas_length(&self, prompt_len: usize) -> usize {
        let length = self.block_length.unwrap_or(1).max(1);
        let end = prompt_len.saturating_add(self.gen_length);
        match self.horizon {
            Horizon::Canvas => end,
            Horizon::Block => prompt_len.saturating_add(self.gen_length / length * length),
            Horizon::AlignedBlock => end.div_ceil(length).saturating_mul(length),
        }
    }

    /// Whether a step may compute or see less than the whole canvas.
    pub(crate) fn uses_plans(&self) -> bool {
        self.cache != CacheMode::None || self.refresh.suffix_window.is_some()
    }
}

#[cfg(test)]
mod tests;
