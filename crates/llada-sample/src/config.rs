//! Settings of one request, in the words of the reference's generate.py.

use std::fmt;
use std::str::FromStr;

use llada_diffusion::Nucleus;

use crate::{Error, RefreshPolicy, Result};

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
}

impl Remasking {
    /// All strategies.
    pub const ALL: [Self; 4] = [
        Self::LowConfidence,
        Self::Random,
        Self::Margin,
        Self::Entropy,
    ];

    /// The name on the command line and in generate.py.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LowConfidence => "low_confidence",
            Self::Random => "random",
            Self::Margin => "margin",
            Self::Entropy => "entropy",
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

/// How many tokens a step reveals.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Process {
    /// A fixed number, [`llada_diffusion::num_transfer_tokens`], chosen by the remasking strategy
    /// (generate.py).
    #[default]
    Quota,
    /// As [`Process::Quota`], but only the masks of the current block compete, and the last step of
    /// a block takes all that it has left (the reference's app.py).
    BlockQuota,
    /// Every masked token independently with probability `(t - s) / t`, with `t` going from 1 to 0
    /// in equal steps (arXiv 2502.09992, algorithm 4). The remasking strategy is not used. The
    /// paper draws tokens at temperature 1: see [`SampleConfig::reverse`].
    Reverse,
    /// Every token whose confidence is at least this, and the best one in any case, until the
    /// block is full. The number of steps is not used (`threshold` of Fast-dLLM).
    Threshold(f32),
    /// The best token, and those after it up to the first one, the `k`-th best, whose confidence is
    /// below `1 - factor / (k + 1)`; if that is the last one, it stays too. Until the block is
    /// full; the number of steps is not used (`factor` of Fast-dLLM).
    Factor(f32),
    /// The most tokens, the best first, whose entropies without the largest of them add up to no
    /// more than this many nats, and the best one in any case. The sum bounds what is lost by
    /// choosing them apart from each other; 0 is one token a step. The number of steps is not used
    /// (EB-Sampler, arXiv 2505.24857).
    EntropyBound(f32),
    /// As [`Process::Quota`], and every other token of an entropy below this many nats. A block
    /// ends when it is full; its last step takes all that is left.
    EntropyExit(f32),
    /// As [`Process::Threshold`], with a lower bar close to tokens that reach it: sure tokens make
    /// their neighborhood sure (`LocalLeap`, arXiv 2510.07081).
    LocalLeap {
        /// The bar; a mask that reaches it is an anchor.
        threshold: f32,
        /// The bar of masks near an anchor, not above `threshold`.
        relaxed: f32,
        /// How far an anchor reaches, in positions; 0 is [`Process::Threshold`].
        radius: usize,
    },
    /// As [`Process::Threshold`], and the surest token of every run of neighboring masks if it
    /// reaches a lower bar, so that long runs are broken up (dInfer, arXiv 2510.08666).
    Hierarchical {
        /// The bar of all masks.
        high: f32,
        /// The bar of the surest of a run, not above `high`; if equal: [`Process::Threshold`].
        low: f32,
    },
    /// As [`Process::Threshold`] with `threshold * (1 - fall * (1 - r))`, where `r` is the share of
    /// the block's masks that are left (Streaming-dLLM, arXiv 2601.17917).
    FallingThreshold {
        /// The bar of an empty block.
        threshold: f32,
        /// The share that the bar has lost at the end of the block, in [0, 1].
        fall: f32,
    },
}

impl Process {
    /// Whether a block takes as many steps as it needs.
    pub(crate) fn is_parallel(self) -> bool {
        match self {
            Self::Quota | Self::BlockQuota | Self::Reverse | Self::EntropyExit(_) => false,
            Self::Threshold(_)
            | Self::Factor(_)
            | Self::EntropyBound(_)
            | Self::LocalLeap { .. }
            | Self::Hierarchical { .. }
            | Self::FallingThreshold { .. } => true,
        }
    }

    /// The setting that asks for the process.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Quota => "quotas",
            Self::BlockQuota => "quotas of a block",
            Self::Reverse => "the reverse process",
            other => other.numbers()[0].0,
        }
    }

    /// Name, bounds and value of every number of the process.
    fn numbers(self) -> Vec<(&'static str, Bounds, f32)> {
        match self {
            Self::Quota | Self::BlockQuota | Self::Reverse => Vec::new(),
            Self::Threshold(x) => vec![("threshold", Bounds::Unit, x)],
            Self::Factor(x) => vec![("factor", Bounds::Positive, x)],
            Self::EntropyBound(x) => vec![("eb_gamma", Bounds::NotNegative, x)],
            Self::EntropyExit(x) => vec![("entropy_exit", Bounds::NotNegative, x)],
            Self::LocalLeap {
                threshold, relaxed, ..
            } => vec![
                ("threshold", Bounds::Unit, threshold),
                ("relaxed_threshold", Bounds::UpTo(threshold), relaxed),
            ],
            Self::Hierarchical { high, low } => vec![
                ("threshold", Bounds::Unit, high),
                ("low_threshold", Bounds::UpTo(high), low),
            ],
            Self::FallingThreshold { threshold, fall } => vec![
                ("threshold", Bounds::Unit, threshold),
                ("threshold_fall", Bounds::Unit, fall),
            ],
        }
    }
}

/// What a number may be.
#[derive(Debug, Clone, Copy)]
enum Bounds {
    Unit,
    /// From 0 to the threshold.
    UpTo(f32),
    Positive,
    NotNegative,
}

impl Bounds {
    fn contains(self, x: f32) -> bool {
        match self {
            Self::Unit => (0.0..=1.0).contains(&x),
            Self::UpTo(limit) => (0.0..=limit).contains(&x),
            Self::Positive => x.is_finite() && x > 0.0,
            Self::NotNegative => x.is_finite() && x >= 0.0,
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Unit => "in [0, 1]",
            Self::UpTo(_) => "from 0 to the threshold",
            Self::Positive => "a positive number",
            Self::NotNegative => "a number, 0 or more",
        }
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

/// How a request is sampled. The defaults are those of generate.py.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleConfig {
    /// Steps, all blocks together.
    pub steps: usize,
    /// Whether a rule that counts no steps, such as [`Process::Threshold`], takes no more than these:
    /// the last step of a block then reveals the rest of it.
    pub caps_steps: bool,
    /// Length of the answer. An infill has its length already and does not read it.
    pub gen_length: usize,
    /// Length of the blocks that are filled one after the other (semi-autoregressive remasking).
    /// The last block may be shorter. `None`: one block.
    pub block_length: Option<usize>,
    /// Temperature of the Gumbel noise; 0 takes the most likely token.
    pub temperature: f64,
    /// Among which tokens it draws; without a temperature it is not read.
    pub nucleus: Nucleus,
    /// Scale of classifier-free guidance (eq. 16); 0 is none.
    pub cfg_scale: f32,
    /// Which predicted tokens stay.
    pub remasking: Remasking,
    /// How many tokens a step reveals.
    pub process: Process,
    /// Which keys and values are taken from earlier steps. Without guidance only.
    pub cache: CacheMode,
    /// How far a step sees, and how soon the cache is computed anew.
    pub refresh: RefreshPolicy,
    /// Whether an answer ends as soon as an EOS stands in it with no mask before it: the rest is
    /// then filled with EOS.
    pub early_stop: bool,
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
            temperature: 0.0,
            nucleus: Nucleus::default(),
            cfg_scale: 0.0,
            remasking: Remasking::LowConfidence,
            process: Process::Quota,
            cache: CacheMode::None,
            refresh: RefreshPolicy::default(),
            early_stop: false,
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
        scale("temperature", self.temperature)?;
        at_least_one("top_k", self.nucleus.top_k.unwrap_or(1))?;
        let top_p = self.nucleus.top_p.unwrap_or(1.0);
        let is_share = top_p > 0.0 && top_p <= 1.0;
        check("top_p", is_share, "above 0 and at most 1", top_p)?;
        scale("cfg_scale", f64::from(self.cfg_scale))?;
        for (what, bounds, x) in self.process.numbers() {
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

    /// Whether a step may compute or see less than the whole canvas.
    pub(crate) fn uses_plans(&self) -> bool {
        self.cache != CacheMode::None || self.refresh.suffix_window.is_some()
    }
}

#[cfg(test)]
mod tests;
