//! `llada eval`.

mod reversal;
mod scaling;
mod tasks;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};
use llada::eval::Figure;
use serde_json::{Value, json};

use crate::args::{EvalArgs, EvalCommand};
use crate::output::{note, print};

pub(crate) fn run(args: &EvalArgs) -> Result<()> {
    match &args.task {
        EvalCommand::Reversal(args) => reversal::run(args),
        EvalCommand::Scaling(args) => scaling::run(args),
        EvalCommand::Likelihood(args) => tasks::likelihood(args),
        EvalCommand::Generation(args) => tasks::generation(args),
    }
}

/// The content of a data file.
fn read(path: &Path) -> Result<String> {
    llada_files::read_text(path).with_context(|| format!("reading {}", path.display()))
}

/// Bars on standard error, and whether Ctrl-C was pressed.
struct Progress {
    stop: Arc<AtomicBool>,
    start: Instant,
}

impl Progress {
    fn new() -> Result<Self> {
        let stop = crate::stop::on_signal()?;
        let start = Instant::now();
        Ok(Self { stop, start })
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Prints a result as JSON, with how the evaluation ended.
    fn print(&self, mut result: Value) -> Result<()> {
        result["interrupted"] = json!(self.is_stopped());
        result["seconds"] = json!(self.seconds());
        print(&format!("{result}\n"))
    }

    /// An observer that draws a bar and ends the evaluation at Ctrl-C, saying where.
    fn observe(&self, what: String) -> impl FnMut(usize, usize) -> ControlFlow<()> + '_ {
        let style = "{bar:24} {pos}/{len} {msg}, {elapsed} passed, {eta} left";
        let style = ProgressStyle::with_template(style).unwrap_or(ProgressStyle::default_bar());
        let bar = ProgressBar::new(0)
            .with_style(style)
            .with_message(what.clone());
        move |done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
            if done == all {
                bar.finish_and_clear();
            } else if self.is_stopped() {
                bar.finish_and_clear();
                note(&format!("interrupted: {done} of {all} {what} count"));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        }
    }
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
