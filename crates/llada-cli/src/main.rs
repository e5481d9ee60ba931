//! The command line of llada.

mod args;
mod cmd;
mod config;
#[path = "../../llada-serve/src/edits.rs"]
mod edits;
mod hub;
mod output;
mod stop;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let args = args::Args::parse();
    match cmd::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = config::explain(error);
            output::note(&format!("error: {error:#}"));
            ExitCode::from(if error.is::<config::Misuse>() { 2 } else { 1 })
        }
    }
}
