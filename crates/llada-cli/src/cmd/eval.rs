//! `llada eval`.

mod reversal;
mod scaling;
mod tasks;

use std::path::Path;

use anyhow::{Context as _, Result};
use llada::eval::Figure;
use serde_json::{Value, json};

use super::progress::Progress;
use super::ranks;
use crate::args::{EvalArgs, EvalCommand};

pub(crate) fn run(args: &EvalArgs) -> Result<()> {
    match &args.task {
        EvalCommand::Reversal(args) => reversal::run(args),
        EvalCommand::Scaling(args) => scaling::run(args),
        EvalCommand::Likelihood(args) => ranks::of_all(args.model.run.threads, |communicator| {
            tasks::likelihood(communicator, args)
        }),
        EvalCommand::Generation(args) => ranks::of_all(args.model.run.threads, |communicator| {
            tasks::generation(communicator, args)
        }),
    }
}

/// The content of a data file.
fn read(path: &Path) -> Result<String> {
    llada_files::read_text(path).with_context(|| format!("reading {}", path.display()))
}

/// A figure of a task; an interrupted one may have none.
fn figure_json(figure: Option<Figure>) -> Value {
    figure.map_or(Value::Null, |figure| {
        json!({
            "accuracy": figure.mean,
            "standard_error": figure.standard_error,
            "n": figure.n,
        })
    })
}

/// Percent with its standard error.
fn percent(figure: Option<Figure>) -> String {
    figure.map_or("-".to_owned(), |figure| {
        let [mean, error] = [figure.mean, figure.standard_error].map(|x| 100.0 * x);
        format!("{mean:.1} ± {error:.1} %")
    })
}
