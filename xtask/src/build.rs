//! `cargo xtask build`: the release binary.

use std::env::consts::EXE_SUFFIX;

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::metadata::{Metadata, Reach};

pub(crate) fn run(sh: &Shell, args: &[String]) -> Result<()> {
    crate::no_arguments("build", args)?;
    cmd!(sh, "cargo build --release -p llada-cli").run()?;
    let target = Metadata::load(sh, Reach::Members)?.target_directory;
    println!(
        "{}",
        target
            .join("release")
            .join(format!("llada{EXE_SUFFIX}"))
            .display()
    );
    Ok(())
}
