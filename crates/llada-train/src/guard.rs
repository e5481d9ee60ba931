//! What happens to steps that would do harm: a loss or a gradient that is no number, or a gradient
//! far larger than usual.
//!
//! Such a step is left out, and counted. After too many in a row the parameters themselves are
//! suspected: they and the moments go back to the newest checkpoint, while data, draws and learning
//! rate go on, so that what failed is not repeated.

use serde::{Deserialize, Serialize};

use crate::OptimizationConfig;

/// Share of a step in the running mean of the norms.
const SHARE: f64 = 0.02;

/// What the guard remembers; part of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Guard {
    /// Steps that were left out.
    pub(crate) skipped: u64,
    /// The last of these that came one after the other.
    pub(crate) in_a_row: u64,
    /// Times that the parameters went back.
    pub(crate) rollbacks: u64,
    /// Running mean of the gradients' norms.
    typical_norm: Option<f64>,
}

/// What a harmful step leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The run ends with its error.
    End,
    /// The step is left out.
    Skip,
    /// It is left out, and the parameters go back.
    RollBack,
}

impl Guard {
    /// The largest norm of a gradient that does no harm.
    pub(crate) fn largest_norm(&self, config: &OptimizationConfig) -> f64 {
        match self.typical_norm {
            Some(norm) if config.spike_factor > 0.0 => config.spike_factor * norm,
            _ => f64::INFINITY,
        }
    }

    /// After a step that was taken.
    pub(crate) fn taken(&mut self, grad_norm: f64) {
        self.in_a_row = 0;
        let mean = self.typical_norm.unwrap_or(grad_norm);
        self.typical_norm = Some(mean + SHARE * (grad_norm - mean));
    }

    /// After a step that would have done harm.
    pub(crate) fn harmful(&mut self, config: &OptimizationConfig) -> Verdict {
        if config.max_skipped_steps == 0 {
            return Verdict::End;
        }
        self.skipped += 1;
        self.in_a_row += 1;
        if self.in_a_row <= config.max_skipped_steps {
            return Verdict::Skip;
        }
        if self.rollbacks == config.max_rollbacks {
            return Verdict::End;
        }
        self.rollbacks += 1;
        self.in_a_row = 0;
        Verdict::RollBack
    }
}
