//! `cargo xtask build`: the release binary.

use std::env::consts::EXE_SUFFIX;

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use crate::cuda;
use crate::metadata::{Metadata, Reach};

/// What to build.
#[derive(Debug, Default, PartialEq, Eq)]
struct Args {
    cuda: bool,
    /// Architectures that get machine code, as in `80,90a`; all that are known without it.
    architectures: Option<String>,
}

impl Args {
    fn parse(args: &[String]) -> Result<Self> {
        let mut parsed = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--cuda" => parsed.cuda = true,
                "--arch" => {
                    let list = args
                        .next()
                        .context("build: --arch needs a list as in 80,90a")?;
                    check_architectures(list)?;
                    parsed.architectures = Some(list.clone());
                }
                _ => anyhow::bail!("build: takes --cuda and --arch LIST, got {arg:?}"),
            }
        }
        anyhow::ensure!(
            parsed.cuda || parsed.architectures.is_none(),
            "build: --arch needs --cuda"
        );
        Ok(parsed)
    }
}

/// `ptx` stands for no machine code.
fn check_architectures(list: &str) -> Result<()> {
    let is_known = |name: &str| {
        let digits = name.trim_end_matches(['a', 'f']);
        name == "ptx" || digits.parse().is_ok_and(|number: u32| number >= 80)
    };
    anyhow::ensure!(
        list.split(',').all(is_known),
        "build: --arch is a list of compute capabilities from 80 on, as in 80,90a; got {list:?}"
    );
    Ok(())
}

pub(crate) fn run(sh: &Shell, args: &[String]) -> Result<()> {
    let args = Args::parse(args)?;
    let target = Metadata::load(sh, Reach::Members)?.target_directory;
    let mut features = Vec::new();
    if args.cuda {
        cuda::install(sh, &target)?;
        features.extend(["--features", "cuda"]);
    }
    let mut build = cmd!(sh, "cargo build --release -p llada-cli {features...}");
    if args.cuda {
        build = build.env("LLADA_CUDA_COMPRESS", "1");
    }
    if let Some(architectures) = args.architectures {
        build = build.env("LLADA_CUDA_ARCHS", architectures);
    }
    build.run()?;
    println!(
        "{}",
        target
            .join("release")
            .join(format!("llada{EXE_SUFFIX}"))
            .display()
    );
    Ok(())
}

#[cfg(test)]
mod tests;
