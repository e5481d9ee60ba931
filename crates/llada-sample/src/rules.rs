//! Which process the settings of the command line and of the server ask for.

use crate::{MarginExit, Process};

/// The settings that say how many tokens a step reveals, by the names of the flags. The default
/// asks for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rules {
    /// See [`Process::Threshold`].
    pub threshold: Option<f32>,
    /// See [`Process::Factor`].
    pub factor: Option<f32>,
    /// See [`Process::EntropyBound`].
    pub eb_gamma: Option<f32>,
    /// See [`Process::EntropyExit`].
    pub entropy_exit: Option<f32>,
    /// `relaxed` of [`Process::LocalLeap`].
    pub relaxed_threshold: Option<f32>,
    /// `radius` of [`Process::LocalLeap`]; `None`: 4, as published (arXiv 2510.07081).
    pub leap_radius: Option<usize>,
    /// `low` of [`Process::Hierarchical`].
    pub low_threshold: Option<f32>,
    /// `fall` of [`Process::FallingThreshold`].
    pub threshold_fall: Option<f32>,
    /// `margin` of [`MarginExit`].
    pub margin_exit: Option<f32>,
    /// `fall` of [`MarginExit`]; `None`: 0.
    pub margin_exit_fall: Option<f32>,
}

/// Settings that do not fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// Two settings of which one is too many.
    #[error("{one} cannot be used with {other}")]
    Conflict {
        /// The first.
        one: &'static str,
        /// The second.
        other: &'static str,
    },
    /// A setting without the one that it changes.
    #[error("{what} needs {needed}")]
    Needs {
        /// The setting.
        what: &'static str,
        /// What is missing.
        needed: &'static str,
    },
}

impl Rules {
    /// The process that is asked for, if one is; `has_steps`: whether a number of steps is given.
    ///
    /// # Errors
    /// [`RulesError`] for settings that contradict each other. Their values are checked when the
    /// request is submitted.
    pub fn process(&self, has_steps: bool) -> Result<Option<Process>, RulesError> {
        const LEAP_RADIUS: usize = 4;
        self.check(has_steps)?;
        let Some(threshold) = self.threshold else {
            let factor = self.factor.map(Process::Factor);
            let bound = self.eb_gamma.map(Process::EntropyBound);
            let exit = self.entropy_exit.map(Process::EntropyExit);
            return Ok(factor.or(bound).or(exit));
        };
        let variant = (
            self.relaxed_threshold,
            self.low_threshold,
            self.threshold_fall,
        );
        Ok(Some(match variant {
            (Some(relaxed), _, _) => Process::LocalLeap {
                threshold,
                relaxed,
                radius: self.leap_radius.unwrap_or(LEAP_RADIUS),
            },
            (None, Some(low), _) => Process::Hierarchical {
                high: threshold,
                low,
            },
            (None, None, Some(fall)) => Process::FallingThreshold { threshold, fall },
            (None, None, None) => Process::Threshold(threshold),
        }))
    }

    /// The exit that is asked for, if one is.
    ///
    /// # Errors
    /// [`RulesError`] for a fall without a bar that falls.
    pub fn margin_exit(&self) -> Result<Option<MarginExit>, RulesError> {
        let fall = self.margin_exit_fall;
        match (self.margin_exit, fall) {
            (None, Some(_)) => Err(RulesError::Needs {
                what: "margin_exit_fall",
                needed: "margin_exit",
            }),
            (margin, _) => Ok(margin.map(|margin| MarginExit {
                margin,
                fall: fall.unwrap_or(0.0),
            })),
        }
    }

    fn check(&self, has_steps: bool) -> Result<(), RulesError> {
        let rules = [
            ("threshold", self.threshold.is_some()),
            ("factor", self.factor.is_some()),
            ("eb_gamma", self.eb_gamma.is_some()),
            ("entropy_exit", self.entropy_exit.is_some()),
        ];
        let variants = [
            ("relaxed_threshold", self.relaxed_threshold.is_some()),
            ("low_threshold", self.low_threshold.is_some()),
            ("threshold_fall", self.threshold_fall.is_some()),
        ];
        for group in [&rules[..], &variants] {
            let mut set = group.iter().filter(|(_, is_set)| *is_set);
            if let (Some((one, _)), Some((other, _))) = (set.next(), set.next()) {
                return Err(RulesError::Conflict { one, other });
            }
        }
        let variant = variants.iter().find(|(_, is_set)| *is_set);
        if let Some((what, _)) = variant.filter(|_| self.threshold.is_none()) {
            let needed = "threshold";
            return Err(RulesError::Needs { what, needed });
        }
        if self.leap_radius.is_some() && self.relaxed_threshold.is_none() {
            let (what, needed) = ("leap_radius", "relaxed_threshold");
            return Err(RulesError::Needs { what, needed });
        }
        // As many steps as it takes, whatever their number: the published rule has no cap.
        if self.eb_gamma.is_some() && has_steps {
            let (one, other) = ("eb_gamma", "steps");
            return Err(RulesError::Conflict { one, other });
        }
        Ok(())
    }
}
