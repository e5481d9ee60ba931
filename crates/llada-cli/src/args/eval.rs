//! Raw flags of `llada eval`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::{Dtype, EstimatorName, ModelArgs, ProtocolArgs, RunArgs};

#[derive(Debug, ClapArgs)]
pub(crate) struct EvalArgs {
    /// What to measure.
    #[command(subcommand)]
    pub(crate) task: EvalCommand,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "it is made once")]
pub(crate) enum EvalCommand {
    /// Which line of a couplet a model knows from the other one, forward and in reversal
    Reversal(ReversalArgs),
    /// The held-out bound of trained runs against the operations of their training
    Scaling(ScalingArgs),
    /// Multiple choice by likelihood
    Likelihood(LikelihoodArgs),
    /// Answers that must match exactly
    Generation(GenerationArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ReversalArgs {
    /// Couplets, one a line, such as 白日依山尽，黄河入海流。
    #[arg(long, value_name = "FILE.txt")]
    pub(crate) data: PathBuf,
    /// The autoregressive twin, measured beside the model
    #[arg(long, value_name = "DIR")]
    pub(crate) arm: Option<PathBuf>,
    /// Couplets at most, at even distances [default: all]
    #[arg(long)]
    pub(crate) limit: Option<NonZeroUsize>,
    /// First lines among which the twin also chooses by likelihood; 0: it does not
    #[arg(long, default_value_t = 10)]
    pub(crate) candidates: usize,
    /// Gets reversal.json and reversal.svg
    #[arg(long, value_name = "FOLDER")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ScalingArgs {
    /// Folders of finished runs of `llada train`
    #[arg(long, required = true, num_args = 1.., value_name = "RUN_DIR")]
    pub(crate) runs: Vec<PathBuf>,
    /// Held-out text, a document a line
    #[arg(long, value_name = "FILE.txt")]
    pub(crate) data: PathBuf,
    /// Documents at most, at even distances [default: all]
    #[arg(long)]
    pub(crate) limit: Option<NonZeroUsize>,
    /// Monte Carlo draws per document
    #[arg(long, alias = "mc_samples", alias = "mc_num", default_value = "8")]
    pub(crate) mc_samples: NonZeroUsize,
    /// Seed of everything that is drawn
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Gets scaling.json and scaling.svg
    #[arg(long, value_name = "FOLDER")]
    pub(crate) output: Option<PathBuf>,
    /// Precision of the matrix products; auto: f32, and bf16 for more than a billion parameters
    #[arg(long, value_enum, default_value = "auto", display_order = 902)]
    pub(crate) dtype: Dtype,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LikelihoodArgs {
    /// Lines with `prompt`, `choices` and `answer`, the number of the right choice from 0
    #[arg(long, value_name = "FILE.jsonl")]
    pub(crate) data: PathBuf,
    /// Tasks at most, the first ones [default: all]
    #[arg(long)]
    pub(crate) limit: Option<NonZeroUsize>,
    /// Monte Carlo draws per choice; an autoregressive model needs none
    #[arg(long, alias = "mc_samples", alias = "mc_num", default_value = "128")]
    pub(crate) mc_samples: NonZeroUsize,
    /// How likelihoods are estimated
    #[arg(long, value_enum, default_value = "l")]
    pub(crate) estimator: EstimatorName,
    /// Scale of classifier-free guidance
    #[arg(long, alias = "cfg_scale", default_value_t = 0.0)]
    pub(crate) cfg_scale: f32,
    /// Score the choices alone; otherwise those of a character model end with the document, as one
    /// more token
    #[arg(long, alias = "no_eos")]
    pub(crate) no_eos: bool,
    /// Seed of everything that is drawn
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Keep what is chosen in a file while it comes, one JSON object a line and in order; the same
    /// command goes on where it was stopped
    #[arg(long, value_name = "FILE.jsonl")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct GenerationArgs {
    /// Lines with `prompt` and `answer`
    #[arg(long, value_name = "FILE.jsonl")]
    pub(crate) data: PathBuf,
    /// Tasks at most, the first ones [default: all]
    #[arg(long)]
    pub(crate) limit: Option<NonZeroUsize>,
    /// Tokens to generate [default: as many as the right answer has]
    #[arg(long, alias = "gen_length", visible_alias = "max-new-tokens")]
    pub(crate) gen_length: Option<NonZeroUsize>,
    /// Denoising steps in all, of LLaDA2.x and iLLaDA those of each block [default: one token a step;
    /// LLaDA2.x: 32 a block; Dream: 512]
    #[arg(long, alias = "diffusion-steps")]
    pub(crate) steps: Option<NonZeroUsize>,
    /// Tokens per semi-autoregressive block [default: one block; iLLaDA and LLaDA2.x: 32]
    #[arg(
        long,
        alias = "block_length",
        visible_alias = "block-size",
        alias = "block_size"
    )]
    pub(crate) block_length: Option<NonZeroUsize>,
    /// Scale of classifier-free guidance
    #[arg(long, alias = "cfg_scale", default_value_t = 0.0)]
    pub(crate) cfg_scale: f32,
    /// Which masks are revealed first: `low_confidence`, random, margin, entropy or
    /// `running_confidence`
    #[arg(long, default_value = "low_confidence")]
    pub(crate) remasking: String,
    /// Reveal every token that is this sure, at least one a step [default of LLaDA2.0 and 2.1: 0.95, of
    /// 2.2: 0.5]
    #[arg(long, value_name = "P")]
    pub(crate) threshold: Option<f32>,
    /// Gumbel temperature; 0 takes the most likely token
    #[arg(long, visible_alias = "temp", default_value_t = 0.0)]
    pub(crate) temperature: f64,
    /// Draw among the most likely tokens whose probabilities add up to P; with a --temperature
    #[arg(long, alias = "top_p", value_name = "P")]
    pub(crate) top_p: Option<f64>,
    /// End an answer at an end-of-document token without masks before it
    #[arg(long, alias = "early_stop")]
    pub(crate) early_stop: bool,
    /// Never choose the end-of-document token
    #[arg(long, alias = "logits_eos_inf")]
    pub(crate) logits_eos_inf: bool,
    /// Reveal the end-of-document token last
    #[arg(long, alias = "confidence_eos_eot_inf")]
    pub(crate) confidence_eos_eot_inf: bool,
    /// End an answer before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Seed of everything that is drawn
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Keep the answers in a file while they come, one JSON object a line and in order; the same
    /// command goes on where it was stopped
    #[arg(long, value_name = "FILE.jsonl")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) protocol: ProtocolArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}
