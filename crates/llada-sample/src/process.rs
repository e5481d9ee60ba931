//! How many tokens a step reveals, and which of them may change again.

use std::fmt;
use std::str::FromStr;

use llada_diffusion::Candidate;

use crate::{Error, Remasking, Result};

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
    /// paper draws tokens at temperature 1: see [`crate::SampleConfig::reverse`].
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
    /// Every token whose confidence is above a bar, or, if they are fewer than the step's quota,
    /// the quota's number of the best. The quota divides the block's length by its steps; a block
    /// ends when it is full, or after its steps, and masks can remain (`generate` of LLaDA2.0).
    BlockDiffusion {
        /// The bar; above 1 every step takes its quota.
        threshold: f32,
        /// A block takes no more than `gen_length / minimal_topk` steps.
        minimal_topk: usize,
    },
    /// Fills masks as a bar says, and in the same step replaces tokens of the block by others that
    /// are predicted above a second bar. Finished blocks are not touched, nor is what was given.
    /// The number of steps is not used (`generate` of LLaDA2.1).
    Editing {
        /// The bar of masks.
        threshold: f32,
        /// The bar of tokens that another one replaces; above 1 none is replaced.
        editing_threshold: f32,
        /// Steps of a block that has no mask left, at most.
        max_post_steps: usize,
        /// Masks that a step fills at least, the best ones if fewer pass the bar.
        num_to_transfer: usize,
    },
    /// As [`Process::Editing`], and a step also drops tokens and puts masks between them: it does
    /// so where one of two tokens is predicted. Each block is as long as before: what is too much
    /// leaves at its end, what is missing is masked (the loop of LLaDA2.2).
    Rewriting {
        /// The bar of masks.
        threshold: f32,
        /// The bar of tokens that another one replaces.
        editing_threshold: f32,
        /// Steps of a block that has none of its first masks left, at most.
        max_post_steps: usize,
        /// Its place is dropped.
        delete_token_id: u32,
        /// A mask is put before the token that it would have replaced.
        split_token_id: u32,
    },
    /// All masks of the canvas compete; a step takes the share `1 - t[i + 1] / t[i]` of them, the
    /// last one all, where `t` goes from 1 to `eps` in equal steps (`diffusion_generate` of Dream).
    /// The remasking strategy is not used.
    Timestep {
        /// Where the time ends, between 0 and 1.
        eps: f32,
        /// Which masks a step takes.
        alg: Alg,
        /// Temperature at which masks are drawn by their confidences; 0 takes the best.
        alg_temp: f32,
    },
}

/// Which masks a step of [`Process::Timestep`] takes (`alg` of Dream).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Alg {
    /// Each one with the step's share as its probability.
    #[default]
    Origin,
    /// Those whose token has the highest probability.
    MaskgitPlus,
    /// Those with the largest difference between the two highest probabilities.
    TopkMargin,
    /// Those with the lowest entropy. (Dream adds 1e-10 to probabilities before it takes the
    /// logarithm, which raises a confidence by no more than 1e-10 for each token.)
    Entropy,
}

impl Alg {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Origin,
        Self::MaskgitPlus,
        Self::TopkMargin,
        Self::Entropy,
    ];

    /// The name in Dream's `generation_utils.py` and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::MaskgitPlus => "maskgit_plus",
            Self::TopkMargin => "topk_margin",
            Self::Entropy => "entropy",
        }
    }

    /// What masks are ranked by.
    pub(crate) fn remasking(self) -> Remasking {
        match self {
            Self::Origin | Self::MaskgitPlus => Remasking::LowConfidence,
            Self::TopkMargin => Remasking::Margin,
            Self::Entropy => Remasking::Entropy,
        }
    }
}

impl fmt::Display for Alg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Alg {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|alg| alg.name() == name);
        found.ok_or_else(|| Error::UnknownAlg {
            name: name.to_owned(),
        })
    }
}

impl Process {
    /// Whether a block takes as many steps as it needs.
    pub(crate) fn is_parallel(self) -> bool {
        match self {
            Self::Quota
            | Self::BlockQuota
            | Self::Reverse
            | Self::EntropyExit(_)
            | Self::BlockDiffusion { .. }
            | Self::Timestep { .. } => false,
            Self::Threshold(_)
            | Self::Factor(_)
            | Self::EntropyBound(_)
            | Self::LocalLeap { .. }
            | Self::Hierarchical { .. }
            | Self::FallingThreshold { .. }
            | Self::Editing { .. }
            | Self::Rewriting { .. } => true,
        }
    }

    /// What a token passes that stays wherever it stands, in an empty block; `None`: there is no such
    /// bar.
    pub(crate) fn bar(self) -> Option<Bar> {
        match self {
            Self::Threshold(bar)
            | Self::LocalLeap { threshold: bar, .. }
            | Self::Hierarchical { high: bar, .. }
            | Self::FallingThreshold { threshold: bar, .. } => Some(Bar::Confidence(bar)),
            Self::EntropyExit(bar) => Some(Bar::Entropy(bar)),
            _ => None,
        }
    }

    /// Whether tokens of a block may change again.
    pub(crate) fn edits(self) -> bool {
        matches!(self, Self::Editing { .. } | Self::Rewriting { .. })
    }

    /// Whether it is made for blocks that are counted from the first token, after which a step sees
    /// nothing.
    pub(crate) fn needs_aligned_blocks(self) -> bool {
        self.edits() || matches!(self, Self::BlockDiffusion { .. })
    }

    /// The setting that asks for the process.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Quota => "quotas",
            Self::BlockQuota => "quotas of a block",
            Self::Reverse => "the reverse process",
            Self::BlockDiffusion { .. } => "block diffusion",
            Self::Editing { .. } => "editing",
            Self::Rewriting { .. } => "rewriting",
            Self::Timestep { .. } => "the timestep process",
            other => other.numbers()[0].0,
        }
    }

    /// Name, bounds and value of every number of the process.
    pub(crate) fn numbers(self) -> Vec<(&'static str, Bounds, f32)> {
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
            Self::BlockDiffusion { threshold, .. } => {
                vec![("threshold", Bounds::NotNegative, threshold)]
            }
            Self::Editing {
                threshold,
                editing_threshold,
                ..
            }
            | Self::Rewriting {
                threshold,
                editing_threshold,
                ..
            } => vec![
                ("threshold", Bounds::NotNegative, threshold),
                ("editing_threshold", Bounds::NotNegative, editing_threshold),
            ],
            Self::Timestep { eps, alg_temp, .. } => vec![
                ("eps", Bounds::Inside, eps),
                ("alg_temp", Bounds::NotNegative, alg_temp),
            ],
        }
    }
}

/// See [`Process::bar`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bar {
    /// At least this.
    Confidence(f32),
    /// Below this.
    Entropy(f32),
}

impl Bar {
    pub(crate) fn is_passed(self, candidate: &Candidate) -> bool {
        match self {
            Self::Confidence(bar) => candidate.confidence >= bar,
            Self::Entropy(bar) => candidate.entropy < bar,
        }
    }
}

/// What a number may be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bounds {
    Unit,
    /// Above 0 and below 1.
    Inside,
    /// From 0 to the threshold.
    UpTo(f32),
    Positive,
    NotNegative,
}

impl Bounds {
    pub(crate) fn contains(self, x: f32) -> bool {
        match self {
            Self::Unit => (0.0..=1.0).contains(&x),
            Self::Inside => x > 0.0 && x < 1.0,
            Self::UpTo(limit) => (0.0..=limit).contains(&x),
            Self::Positive => x.is_finite() && x > 0.0,
            Self::NotNegative => x.is_finite() && x >= 0.0,
        }
    }

    pub(crate) fn expected(self) -> &'static str {
        match self {
            Self::Unit => "in [0, 1]",
            Self::Inside => "above 0 and below 1",
            Self::UpTo(_) => "from 0 to the threshold",
            Self::Positive => "a positive number",
            Self::NotNegative => "a number, 0 or more",
        }
    }
}
