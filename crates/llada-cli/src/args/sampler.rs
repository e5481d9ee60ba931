//! Raw flags of the sampler.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::ProtocolArgs;

/// Flags of the sampler, with the names of the reference.
#[derive(Debug, ClapArgs)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct SamplerArgs {
    /// Denoising steps in all, of LLaDA2.x and iLLaDA those of each block [default: one token a step;
    /// LLaDA2.x: 32 a block; Dream: 512]; beside --threshold, --factor and --eb-gamma, which decide by
    /// themselves how many they take, the most that are allowed
    #[arg(long, alias = "diffusion-steps")]
    pub(crate) steps: Option<usize>,
    /// Tokens per semi-autoregressive block [default: one block; iLLaDA and LLaDA2.x: 32]
    #[arg(
        long,
        alias = "block_length",
        visible_alias = "block-size",
        alias = "block_size",
        alias = "diffusion-block-length"
    )]
    pub(crate) block_length: Option<usize>,
    /// Gumbel temperature; 0 takes the most likely token
    #[arg(
        long,
        visible_alias = "temp",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    pub(crate) temperature: f64,
    /// Draw among the K most likely tokens; with a --temperature
    #[arg(long, alias = "top_k", value_name = "K")]
    pub(crate) top_k: Option<usize>,
    /// Draw among the most likely tokens whose probabilities add up to P; with a --temperature
    #[arg(long, alias = "top_p", value_name = "P")]
    pub(crate) top_p: Option<f64>,
    /// Scale of classifier-free guidance
    #[arg(long, alias = "cfg_scale", default_value_t = 0.0)]
    pub(crate) cfg_scale: f32,
    /// Which masks are revealed first: `low_confidence`, random, margin, entropy or
    /// `running_confidence`
    #[arg(long, default_value = "low_confidence")]
    pub(crate) remasking: String,
    /// Rule, cache and blocks together: exact (one token a step), balanced (--threshold 0.9, blocks of
    /// 32) or fast (the same with a dual cache); what other flags say stays
    #[arg(long, value_name = "fast|balanced|exact")]
    pub(crate) preset: Option<String>,
    /// Keys and values taken from earlier steps: none, prefix (those before the block), dual (all
    /// but the block's) or activity (all but those of masks and of new tokens) [default: none]
    #[arg(long)]
    pub(crate) cache: Option<String>,
    /// Compute and see no masks but those of so many positions after the block and the last one
    #[arg(long, value_name = "N")]
    pub(crate) suffix_window: Option<usize>,
    /// Compute the prompt anew in every N-th block only; with a --cache
    #[arg(long, value_name = "N")]
    pub(crate) prompt_interval: Option<usize>,
    /// Compute N positions on either side of the block with it; with a --cache
    #[arg(long, value_name = "N")]
    pub(crate) vicinity: Option<usize>,
    /// Compute everything but the prompt anew every N calls; with a --cache [default: in the first
    /// call of a block; activity: 8]
    #[arg(long, value_name = "N")]
    pub(crate) refresh_interval: Option<usize>,
    /// Compute new tokens for N more calls; with --cache activity [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) keep_active: Option<usize>,
    /// Compute up to N guesses of coming steps beside each: fewer passes for the same text, if guesses
    /// come true
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) speculate: usize,
    /// Reveal every token that is this sure, at least one a step [default of LLaDA2.0 and 2.1: 0.95, of
    /// 2.2: 0.5; of LLaDA2.0 one above 1 reveals what --steps says]
    #[arg(long, value_name = "P", conflicts_with = "factor")]
    pub(crate) threshold: Option<f32>,
    /// Reveal the k surest tokens as long as the k-th is surer than 1 - FACTOR / (k + 1)
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) factor: Option<f32>,
    /// Reveal the most tokens, the surest first, whose entropies without the largest add up to no
    /// more nats than this; 0 is one a step
    #[arg(long, value_name = "NATS", allow_negative_numbers = true)]
    pub(crate) eb_gamma: Option<f32>,
    /// Reveal what --steps says, and every token of an entropy below this
    #[arg(long, value_name = "NATS")]
    pub(crate) entropy_exit: Option<f32>,
    /// A lower --threshold close to tokens that reach it
    #[arg(long, value_name = "P")]
    pub(crate) relaxed_threshold: Option<f32>,
    /// How many positions count as close for --relaxed-threshold [default: 4]
    #[arg(long, value_name = "N")]
    pub(crate) leap_radius: Option<usize>,
    /// A lower --threshold for the surest token of every run of masks
    #[arg(long, value_name = "P")]
    pub(crate) low_threshold: Option<f32>,
    /// The share that --threshold loses while a block fills
    #[arg(long, value_name = "SHARE")]
    pub(crate) threshold_fall: Option<f32>,
    /// Open a block when this share of the one before it is filled, and reveal in it what passes the
    /// bar; with a --threshold or --entropy-exit, and a --block-length
    #[arg(long, value_name = "SHARE")]
    pub(crate) overlap: Option<f32>,
    /// Reveal all that a block has left once the mean margin of its masks, the difference of the two
    /// highest probabilities, reaches this; beside any rule
    #[arg(long, value_name = "P")]
    pub(crate) margin_exit: Option<f32>,
    /// The share that --margin-exit loses while a block fills [default: 0]
    #[arg(long, value_name = "SHARE")]
    pub(crate) margin_exit_fall: Option<f32>,
    /// End an answer at an end-of-document token without masks before it
    #[arg(long, alias = "early_stop")]
    pub(crate) early_stop: bool,
    /// Seed of everything that is drawn
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Never choose the end-of-document token
    #[arg(long, alias = "logits_eos_inf")]
    pub(crate) logits_eos_inf: bool,
    /// Reveal the end-of-document token last
    #[arg(long, alias = "confidence_eos_eot_inf")]
    pub(crate) confidence_eos_eot_inf: bool,
    /// Write so many samples of each prompt, with the seeds SEED, SEED + 1, ..; with a --temperature
    #[arg(
        long = "n",
        visible_alias = "num-samples",
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(crate) n_samples: u32,
    /// Refuse texts with characters that the model does not know
    #[arg(long)]
    pub(crate) strict: bool,
    /// Write every step to a file, one JSON object a line; llada replay makes a page of it
    #[arg(long, value_name = "FILE.jsonl", conflicts_with = "output")]
    pub(crate) trace: Option<PathBuf>,
    /// Keep the results in a file while they come, one JSON object a line and in order; the same
    /// command goes on where it was stopped
    #[arg(long, value_name = "FILE.jsonl")]
    pub(crate) output: Option<PathBuf>,
    /// Show the denoising while it happens, on standard error
    #[arg(long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) protocol: ProtocolArgs,
}
