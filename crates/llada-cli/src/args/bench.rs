//! Raw flags of `llada bench`.

use std::num::NonZeroUsize;

use clap::{Args as ClapArgs, Subcommand};

use super::ModelArgs;

#[derive(Debug, ClapArgs)]
pub(crate) struct BenchArgs {
    /// What is timed.
    #[command(subcommand)]
    pub(crate) command: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// One forward pass: the most likely token of each masked position
    Forward(BenchForwardArgs),
    /// Answers to prompts of random tokens
    Generate(BenchGenerateArgs),
    /// One optimizer step on random tokens
    Train(BenchTrainArgs),
}

/// Flags of every benchmark.
#[derive(Debug, ClapArgs)]
pub(crate) struct SubjectArgs {
    /// A shape in place of a model, with random weights made in memory: llada-1b, llada-8b, arm-1b,
    /// arm-7b, llama3-8b, llada-25m, llada-100m, illada-8b, llada-moe-7b-a1b, llada2-mini or
    /// dream-7b; any other is a --model of nothing but a config.json [train: llada-25m, unless there is a --model]
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    pub(crate) preset: Option<String>,
    /// Sequences that run together [default: 1; train: 16]
    #[arg(long)]
    pub(crate) batch: Option<usize>,
    /// Timed repetitions, after one that is not [default: as many as take three seconds]
    #[arg(long, value_name = "N")]
    pub(crate) rounds: Option<NonZeroUsize>,
    /// Seed of weights and tokens
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BenchForwardArgs {
    /// Positions of each sequence
    #[arg(long, default_value_t = 128)]
    pub(crate) length: usize,
    /// Positions of each sequence that are masked, and go through the head [default: all]
    #[arg(long)]
    pub(crate) masked: Option<usize>,
    /// Positions before those, whose keys and values are taken from a cache: a step of a block
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) cached_prefix: usize,
    #[command(flatten)]
    pub(crate) subject: SubjectArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BenchGenerateArgs {
    /// Tokens of each prompt [default: 32, or half of --length if that is less]
    #[arg(long, alias = "prompt_length")]
    pub(crate) prompt_length: Option<usize>,
    /// Tokens to generate [default: 128, or what --length has room for]
    #[arg(long, alias = "gen_length", visible_alias = "max-new-tokens")]
    pub(crate) gen_length: Option<usize>,
    /// Positions of prompt and answer together
    #[arg(long, conflicts_with = "gen_length")]
    pub(crate) length: Option<usize>,
    /// Denoising steps in all [default: one token a step]
    #[arg(long)]
    pub(crate) steps: Option<usize>,
    /// Tokens per semi-autoregressive block [default: one block]
    #[arg(long, alias = "block_length", visible_alias = "block-size")]
    pub(crate) block_length: Option<usize>,
    /// Keys and values taken from earlier steps: none, prefix (those before the block) or dual
    /// (all but the block's)
    #[arg(long, default_value = "none")]
    pub(crate) cache: String,
    /// Reveal every token that is this sure, at least one a step; --steps is not used
    #[arg(long, value_name = "P", conflicts_with = "steps")]
    pub(crate) threshold: Option<f32>,
    /// Compute up to N guesses of coming steps beside each
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) speculate: usize,
    #[command(flatten)]
    pub(crate) subject: SubjectArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BenchTrainArgs {
    /// Tokens of each sequence
    #[arg(long, default_value_t = 128)]
    pub(crate) length: usize,
    /// Optimizer steps that are timed: another name of --rounds
    #[arg(long, value_name = "N", conflicts_with = "rounds")]
    pub(crate) steps: Option<NonZeroUsize>,
    /// Keep of each block its input alone, and compute the rest again in the backward pass
    #[arg(long)]
    pub(crate) activation_checkpointing: bool,
    #[command(flatten)]
    pub(crate) subject: SubjectArgs,
}
