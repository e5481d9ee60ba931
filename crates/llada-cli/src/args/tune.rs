//! Raw flags of `llada tune`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::ModelArgs;

#[derive(Debug, ClapArgs)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct TuneArgs {
    /// Prompts: lines with `prompt`, `prompt_ids` or `messages` [default: first lines of poems that
    /// the embedded model draws; with --model it is needed]
    #[arg(long, value_name = "FILE.jsonl")]
    pub(crate) data: Option<PathBuf>,
    /// Prompts at most, the first ones
    #[arg(long, value_name = "N", default_value = "32")]
    pub(crate) limit: NonZeroUsize,
    /// The prompts are texts with holes (□, or _), which are filled
    #[arg(long, requires = "data")]
    pub(crate) infill: bool,
    /// Apply the chat template of the model to the prompts
    #[arg(long, conflicts_with = "infill", requires = "data")]
    pub(crate) chat: bool,
    /// The chat template: its name, of several in the model's folder, or a file; implies --chat
    #[arg(
        long,
        value_name = "NAME|FILE",
        conflicts_with = "infill",
        requires = "data"
    )]
    pub(crate) chat_template: Option<String>,
    /// Tokens of an answer, as for `llada generate`
    #[arg(
        short = 'n',
        long,
        alias = "gen_length",
        visible_alias = "max-new-tokens",
        alias = "max_new_tokens"
    )]
    pub(crate) gen_length: Option<NonZeroUsize>,
    /// Tokens per semi-autoregressive block, of all settings [default: 32; poems of the embedded
    /// model: 6, a line; Dream has none]
    #[arg(
        long,
        alias = "block_length",
        visible_alias = "block-size",
        alias = "block_size"
    )]
    pub(crate) block_length: Option<NonZeroUsize>,
    /// End an answer at an end-of-document token without masks before it
    #[arg(long, alias = "early_stop")]
    pub(crate) early_stop: bool,
    /// Never choose the end-of-document token
    #[arg(long, alias = "logits_eos_inf")]
    pub(crate) logits_eos_inf: bool,
    /// Reveal the end-of-document token last
    #[arg(long, alias = "confidence_eos_eot_inf")]
    pub(crate) confidence_eos_eot_inf: bool,
    /// Percent of the answers that must be those of the first setting for one that is recommended
    #[arg(
        long,
        value_name = "PERCENT",
        default_value_t = 95.0,
        allow_negative_numbers = true
    )]
    pub(crate) agreement: f64,
    /// Nats a token that the likelihood bound of the answers may lose for one that is recommended
    #[arg(
        long,
        value_name = "NATS",
        default_value_t = 0.05,
        allow_negative_numbers = true
    )]
    pub(crate) nats: f64,
    /// Monte Carlo draws of the likelihood bound of an answer
    #[arg(long, alias = "mc_samples", alias = "mc_num", default_value = "8")]
    pub(crate) mc_samples: NonZeroUsize,
    /// Gets the picture: seconds against equal answers
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}
