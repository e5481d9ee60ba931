//! The loops that models were published with, and their defaults.

use llada_diffusion::PredictorInfo;

use crate::{Error, Horizon, Overrides, Process, Result};

/// The loop that a model was published with. Settings that are not given have its defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// A canvas of a fixed length, a step for each token (generate.py of LLaDA; also LLaDA-MoE).
    #[default]
    Llada,
    /// Blocks of 32 masks are appended, each filled in as many steps as it has tokens, until one
    /// has an EOS, or up to 2,048 tokens; a shorter answer is one block (iLLaDA).
    VariableLength,
    /// [`Process::BlockDiffusion`] with a threshold of 0.95, in blocks of 32 tokens and 32 steps,
    /// up to 2,048 tokens (LLaDA2.0).
    BlockDiffusion,
    /// [`Process::Editing`] with thresholds of 0.95 and 0.9, 16 steps after the last mask and one
    /// token a step at least, in blocks of 32 tokens, up to 2,048 tokens (LLaDA2.1; advised are
    /// 0.7 and 0.5 for quality, 0.5 and 0 for speed).
    Editing,
    /// [`Process::Rewriting`] with thresholds of 0.5 and 0 and 16 steps after the last mask, in
    /// blocks of 32 tokens and 32 steps, up to 2,048 tokens (LLaDA2.2).
    Rewriting {
        /// Drops a place.
        delete_token_id: u32,
        /// Puts a mask before a token.
        split_token_id: u32,
    },
    /// [`Process::Timestep`] in 512 steps with an `eps` of 0.001, `origin`, and an `alg_temp` of 0
    /// (Dream, Dream-Coder, `DiffuCoder`; advised are `entropy`, as many steps as tokens, a
    /// temperature of 0.2 and a `top_p` of 0.95).
    Dream,
}

/// What a protocol makes of the settings of a request.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) steps: usize,
    pub(crate) block_length: Option<usize>,
    pub(crate) horizon: Horizon,
    pub(crate) process: Process,
}

/// Tokens of a block.
const BLOCK_LENGTH: usize = 32;

impl Protocol {
    /// The name in errors.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Llada => "llada",
            Self::VariableLength => "variable_length",
            Self::BlockDiffusion => "block_diffusion",
            Self::Editing => "editing",
            Self::Rewriting { .. } => "rewriting",
            Self::Dream => "dream",
        }
    }

    /// Tokens of an answer at most, if the protocol says so.
    pub(crate) fn gen_length(self) -> Option<usize> {
        match self {
            Self::Llada | Self::Dream => None,
            _ => Some(2048),
        }
    }

    /// The loop of a request: a text to fill in has its length, and who asks for edits of a model in
    /// blocks gets them, since nothing else tells LLaDA2.1 from LLaDA2.0.
    pub(crate) fn of(self, overrides: &Overrides, is_infill: bool) -> Self {
        let edits = overrides.editing_threshold.is_some()
            || overrides.max_post_steps.is_some()
            || overrides.num_to_transfer.is_some();
        match (self, overrides.variable_length) {
            (Self::BlockDiffusion, _) if edits => Self::Editing,
            (Self::Llada, Some(true)) if !is_infill => Self::VariableLength,
            (Self::VariableLength, _) if is_infill => Self::Llada,
            (Self::VariableLength, Some(false)) => Self::Llada,
            _ => self,
        }
    }

    /// The settings of a request with `n_masks` masks; `is_fixed`: some tokens of the answer are
    /// given.
    ///
    /// # Errors
    /// [`Error::NotForProtocol`].
    pub(crate) fn settings(
        self,
        overrides: &Overrides,
        info: &PredictorInfo,
        n_masks: usize,
        is_fixed: bool,
    ) -> Result<Written> {
        self.check(overrides)?;
        let of_model = info.block_size.map(std::num::NonZeroUsize::get);
        let block_length = overrides.block_length.or(match self {
            Self::Llada | Self::Dream => None,
            // An answer of less than a block is one block.
            Self::VariableLength => Some(BLOCK_LENGTH.min(n_masks.max(1))),
            _ => of_model.or(Some(BLOCK_LENGTH)),
        });
        let steps = match self {
            Self::Llada => n_masks.max(1),
            Self::VariableLength => block_length.unwrap_or(BLOCK_LENGTH),
            Self::BlockDiffusion | Self::Editing | Self::Rewriting { .. } => 32,
            Self::Dream => 512,
        };
        Ok(Written {
            steps: overrides.steps.unwrap_or(steps),
            block_length,
            horizon: match self {
                Self::Llada | Self::Dream => Horizon::Canvas,
                Self::VariableLength => Horizon::Block,
                _ => Horizon::AlignedBlock,
            },
            process: self.process(overrides, is_fixed),
        })
    }

    fn process(self, overrides: &Overrides, is_fixed: bool) -> Process {
        let threshold = match overrides.process {
            Some(Process::Threshold(threshold)) => Some(threshold),
            _ => None,
        };
        match self {
            Self::Llada | Self::VariableLength => overrides.process.unwrap_or(match is_fixed {
                true => Process::BlockQuota,
                false => Process::Quota,
            }),
            Self::BlockDiffusion => Process::BlockDiffusion {
                threshold: threshold.unwrap_or(0.95),
                minimal_topk: overrides.minimal_topk.unwrap_or(1),
            },
            Self::Editing => Process::Editing {
                threshold: threshold.unwrap_or(0.95),
                editing_threshold: overrides.editing_threshold.unwrap_or(0.9),
                max_post_steps: overrides.max_post_steps.unwrap_or(16),
                num_to_transfer: overrides.num_to_transfer.unwrap_or(1),
            },
            Self::Rewriting {
                delete_token_id,
                split_token_id,
            } => Process::Rewriting {
                threshold: threshold.unwrap_or(0.5),
                editing_threshold: overrides.editing_threshold.unwrap_or(0.0),
                max_post_steps: overrides.max_post_steps.unwrap_or(16),
                delete_token_id,
                split_token_id,
            },
            Self::Dream => Process::Timestep {
                eps: overrides.eps.unwrap_or(1e-3),
                alg: overrides.alg.unwrap_or_default(),
                alg_temp: overrides.alg_temp.unwrap_or(0.0),
            },
        }
    }

    /// Settings that another protocol has.
    fn check(self, overrides: &Overrides) -> Result<()> {
        let is_llada = matches!(self, Self::Llada | Self::VariableLength);
        let edits = matches!(self, Self::Editing | Self::Rewriting { .. });
        let (is_editing, is_dream) = (self == Self::Editing, self == Self::Dream);
        let process = match overrides.process {
            // It is the protocol's own threshold.
            Some(Process::Threshold(_)) if !is_dream => None,
            other => other,
        };
        let settings = [
            ("preset", overrides.preset.is_some(), is_llada),
            (
                process.map_or("", Process::name),
                process.is_some(),
                is_llada,
            ),
            ("overlap", overrides.overlap.is_some(), is_llada),
            ("margin_exit", overrides.margin_exit.is_some(), is_llada),
            ("steps", overrides.steps.is_some(), !is_editing),
            ("block_length", overrides.block_length.is_some(), !is_dream),
            (
                "minimal_topk",
                overrides.minimal_topk.is_some(),
                self == Self::BlockDiffusion,
            ),
            (
                "editing_threshold",
                overrides.editing_threshold.is_some(),
                edits,
            ),
            ("max_post_steps", overrides.max_post_steps.is_some(), edits),
            (
                "num_to_transfer",
                overrides.num_to_transfer.is_some(),
                is_editing,
            ),
            ("eps", overrides.eps.is_some(), is_dream),
            ("alg", overrides.alg.is_some(), is_dream),
            ("alg_temp", overrides.alg_temp.is_some(), is_dream),
            (
                "variable_length",
                overrides.variable_length.is_some(),
                is_llada,
            ),
        ];
        let wrong = settings
            .into_iter()
            .find(|&(_, is_set, is_known)| is_set && !is_known);
        match wrong {
            Some((what, ..)) => Err(Error::NotForProtocol {
                what,
                protocol: self.name(),
            }),
            None => Ok(()),
        }
    }
}
