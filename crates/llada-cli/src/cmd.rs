//! The commands.

mod bench;
mod chat;
mod convert;
mod ends;
mod eval;
mod generate;
mod infill;
mod inspect;
mod jobs;
mod logits;
mod manual;
mod memory;
mod observe;
mod progress;
mod prompts;
mod ranks;
mod replay;
mod result_file;
mod score;
#[cfg(feature = "serve")]
mod serve;
mod sft;
mod train;
mod tune;
mod work;

use anyhow::Result;

use crate::args::{Args, Command};

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Generate(args) => generate::run(args),
        Command::Chat(args) => chat::run(args),
        Command::Infill(args) => infill::run(args),
        Command::Score(args) => score::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Train(args) => train::run(args),
        Command::Sft(args) => sft::run(args),
        Command::Logits(args) => logits::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Tune(args) => tune::run(args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Completions { shell } => manual::completions(*shell),
        Command::Man => manual::page(),
    }
}
