//! Settings of one request, in the words of the reference's generate.py.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

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
}

impl Process {
    /// Whether a block takes as many steps as it needs.
    pub(crate) fn is_parallel(self) -> bool {
        matches!(self, Self::Threshold(_) | Self::Factor(_))
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
}

impl CacheMode {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::None, Self::Prefix, Self::Dual];

    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Prefix => "prefix",
            Self::Dual => "dual",
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
    /// Length of the answer. An infill has its length already and does not read it.
    pub gen_length: usize,
    /// Length of the blocks that are filled one after the other (semi-autoregressive remasking).
    /// The last block may be shorter. `None`: one block.
    pub block_length: Option<usize>,
    /// Temperature of the Gumbel noise; 0 takes the most likely token.
    pub temperature: f64,
    /// Scale of classifier-free guidance (eq. 16); 0 is none.
    pub cfg_scale: f32,
    /// Which predicted tokens stay.
    pub remasking: Remasking,
    /// How many tokens a step reveals.
    pub process: Process,
    /// Which keys and values are taken from earlier steps. Without guidance only.
    pub cache: CacheMode,
    /// Whether an answer ends as soon as an EOS stands in it with no mask before it: the rest is
    /// then filled with EOS.
    pub early_stop: bool,
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
            temperature: 0.0,
            cfg_scale: 0.0,
            remasking: Remasking::LowConfidence,
            process: Process::Quota,
            cache: CacheMode::None,
            early_stop: false,
            seed: 0,
            suppress_mask: false,
            logits_eos_inf: Vec::new(),
            confidence_eos_eot_inf: Vec::new(),
        }
    }
}

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
        at_least_one("block_length", self.block_length.unwrap_or(1))?;
        scale("temperature", self.temperature)?;
        scale("cfg_scale", f64::from(self.cfg_scale))?;
        match self.process {
            Process::Threshold(x) => {
                let is_ok = (0.0..=1.0).contains(&x);
                check("threshold", is_ok, "in [0, 1]", f64::from(x))?;
            }
            Process::Factor(x) => {
                let is_ok = x.is_finite() && x > 0.0;
                check("factor", is_ok, "a positive number", f64::from(x))?;
            }
            Process::Quota | Process::BlockQuota | Process::Reverse => {}
        }
        if self.cache != CacheMode::None && self.cfg_scale > 0.0 {
            return Err(Error::GuidedCache { request });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
