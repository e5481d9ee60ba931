//! The commands.

mod train;

use anyhow::Result;

use crate::args::{Args, Command};

pub(crate) fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Train(args) => train::run(&args),
    }
}
