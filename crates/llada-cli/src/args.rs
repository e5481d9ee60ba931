//! Raw flags.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

/// LLaDA, masked diffusion language models.
#[derive(Debug, Parser)]
#[command(name = "llada", version, about)]
pub(crate) struct Args {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Pre-trains a model; run again to resume
    Train(TrainArgs),
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON object on standard output.
    Json,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct TrainArgs {
    /// Folder of the run: checkpoints, metrics and the finished model
    #[arg(required_unless_present = "help_config")]
    pub(crate) run_dir: Option<PathBuf>,
    /// Training configuration, TOML
    #[arg(long, required_unless_present = "help_config")]
    pub(crate) config: Option<PathBuf>,
    /// Explain every key of the configuration
    #[arg(long)]
    pub(crate) help_config: bool,
    /// Resume even if a configuration key changed that changes the run
    #[arg(long)]
    pub(crate) allow_changes: bool,
    /// Worker threads; 0 means one per core
    #[arg(long, default_value_t = 0)]
    pub(crate) threads: usize,
    /// How the result is printed
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}
