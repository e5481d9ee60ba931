//! How far a command is, and whether it is to stop.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::output::{note, print};

/// Bars on standard error, and whether Ctrl-C was pressed.
pub(super) struct Progress {
    stop: Arc<AtomicBool>,
    start: Instant,
    is_shown: bool,
}

impl Progress {
    pub(super) fn new() -> Result<Self> {
        Self::of_rank(0)
    }

    /// That of a rank, of which the first alone shows it.
    pub(super) fn of_rank(rank: usize) -> Result<Self> {
        Ok(Self {
            stop: crate::stop::on_signal()?,
            is_shown: rank == 0,
            ..Self::silent()
        })
    }

    /// Shows nothing and leaves signals as they are.
    pub(super) fn silent() -> Self {
        Self {
            stop: Arc::default(),
            start: Instant::now(),
            is_shown: false,
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Stops as if Ctrl-C had been pressed.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Prints a result as JSON, with how the work ended.
    pub(super) fn print(&self, mut result: Value) -> Result<()> {
        result["interrupted"] = json!(self.is_stopped());
        result["seconds"] = json!(self.seconds());
        print(&format!("{result}\n"))
    }

    /// An observer that draws a bar and ends the work at Ctrl-C, saying where.
    pub(super) fn observe(&self, what: String) -> impl FnMut(usize, usize) -> ControlFlow<()> + '_ {
        let style = "{bar:24} {pos}/{len} {msg}, {elapsed} passed, {eta} left";
        let style = ProgressStyle::with_template(style).unwrap_or(ProgressStyle::default_bar());
        let bar = match self.is_shown {
            true => ProgressBar::new(0),
            false => ProgressBar::hidden(),
        };
        let bar = bar.with_style(style).with_message(what.clone());
        move |done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
            if done == all {
                bar.finish_and_clear();
            } else if self.is_stopped() {
                bar.finish_and_clear();
                if self.is_shown {
                    note(&format!("interrupted: {done} of {all} {what} count"));
                }
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        }
    }
}
