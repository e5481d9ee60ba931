//! `cargo xtask data`: fetches and prepares what models are trained on.

#![expect(clippy::print_stdout, reason = "a task reports to the terminal")]

mod baseline;
mod clean;
mod instructions;
mod opencc;
mod poems;
mod split;
mod variants;

use std::path::Path;

use anyhow::bail;

/// Runs `cargo xtask data NAME` in the root of the workspace.
pub(crate) fn run(sh: &xshell::Shell, arguments: &[String]) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["poems"] => {
            let report = poems::prepare(sh, &root.join("data"))?;
            println!("{}", serde_json::to_string_pretty(&report)?);
            Ok(())
        }
        ["instructions"] => {
            let data = root.join("data");
            let report = instructions::prepare(&data.join("poems"), &data.join("instructions"))?;
            println!("{}", serde_json::to_string_pretty(&report)?);
            Ok(())
        }
        ["baselines"] => {
            let report = baseline::report(&root.join("data/poems"))?;
            println!("{}", serde_json::to_string_pretty(&report)?);
            Ok(())
        }
        _ => bail!("usage: cargo xtask data poems | instructions | baselines"),
    }
}
