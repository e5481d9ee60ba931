//! Rule, cache and blocks under one name.

use std::fmt;
use std::str::FromStr;

use crate::{CacheMode, Error, Overrides, Process, Result};

/// Rule, cache and blocks that go together, as they were measured (`docs/acceleration.md`). What a
/// request says itself stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// As [`Preset::Balanced`], with a dual cache: some answers are others, of about the same
    /// likelihood.
    Fast,
    /// Every token of a confidence of 0.9, in blocks of 32: nearly all answers are those of
    /// [`Preset::Exact`], in about half of the passes.
    Balanced,
    /// One token a step, and every pass computes all positions.
    Exact,
}

impl Preset {
    /// All presets.
    pub const ALL: [Self; 3] = [Self::Fast, Self::Balanced, Self::Exact];

    /// The name on the command line and in requests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Balanced => "balanced",
            Self::Exact => "exact",
        }
    }

    /// Its cache.
    #[must_use]
    pub fn cache(self) -> CacheMode {
        match self {
            Self::Fast => CacheMode::Dual,
            Self::Balanced | Self::Exact => CacheMode::None,
        }
    }

    /// The settings, and where they say nothing those of the preset. A number of steps is a rule,
    /// too; and guidance has no cache.
    pub(crate) fn fill(self, overrides: &Overrides) -> Overrides {
        const THRESHOLD: f32 = 0.9;
        const BLOCK_LENGTH: usize = 32;
        let is_parallel = self != Self::Exact;
        let has_rule = overrides.steps.is_some() || overrides.margin_exit.is_some();
        let rule = (is_parallel && !has_rule).then_some(Process::Threshold(THRESHOLD));
        let cache = match overrides.cfg_scale > 0.0 {
            true => CacheMode::None,
            false => self.cache(),
        };
        Overrides {
            process: overrides.process.or(rule),
            cache: overrides.cache.or(Some(cache)),
            block_length: (overrides.block_length).or(is_parallel.then_some(BLOCK_LENGTH)),
            ..overrides.clone()
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Preset {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|preset| preset.name() == name);
        found.ok_or_else(|| Error::UnknownPreset {
            name: name.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests;
