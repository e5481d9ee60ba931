//! How a run goes on, for people: a bar in a terminal, and lines elsewhere.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};
use llada::train::{Error, Evaluation, Observer, Start, StepReport};

use crate::output::note;

/// Seconds after which a line is due.
const PAUSE: f64 = 60.0;

/// An observer for standard error as it is; `begin` is said when the run has begun.
pub(super) fn observer<'a>(begin: Vec<String>, clock: &'a dyn Fn() -> f64) -> Box<dyn Finish + 'a> {
    match std::io::stderr().is_terminal() {
        true => Box::new(Bar {
            begin,
            bar: ProgressBar::hidden(),
            seen: Seen::default(),
        }),
        false => Box::new(Lines::new(begin, clock, note)),
    }
}

/// An observer that is told how the run ended.
pub(super) trait Finish: Observer {
    fn finish(&mut self, is_finished: bool);
}

/// What is shown of the loss.
#[derive(Default)]
struct Seen {
    loss: Option<f64>,
    bound: Option<f64>,
}

impl Seen {
    /// A running mean over about fifty steps: single losses are noisy.
    fn step(&mut self, report: &StepReport) {
        let mean = |mean: f64| mean + 0.02 * (report.loss - mean);
        self.loss = Some(self.loss.map_or(report.loss, mean));
    }

    fn text(&self, tokens_per_second: f64) -> String {
        let loss = self.loss.unwrap_or(f64::NAN);
        let bound = self.bound.map(|bound| format!(", held-out {bound:.3}"));
        let bound = bound.unwrap_or_default();
        format!("loss {loss:.3}{bound}, {tokens_per_second:.0} tokens/s")
    }
}

/// Draws the progress.
struct Bar {
    begin: Vec<String>,
    bar: ProgressBar,
    seen: Seen,
}

impl Observer for Bar {
    fn started(&mut self, start: &Start) {
        self.begin.iter().for_each(|line| note(line));
        let style = "{bar:24} {pos}/{len} steps, {msg}, {elapsed} passed, {eta} left";
        let style = ProgressStyle::with_template(style).unwrap_or(ProgressStyle::default_bar());
        self.bar = ProgressBar::new(start.steps).with_style(style);
        self.bar.set_position(start.resumed_from.unwrap_or(0));
        self.bar.reset_eta();
    }

    fn stepped(&mut self, report: &StepReport) {
        self.seen.step(report);
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = self.bar.per_sec() * report.tokens as f64;
        self.bar.set_message(self.seen.text(rate));
        self.bar.set_position(report.step);
    }

    fn skipped(&mut self, _report: &StepReport, why: &Error) {
        self.bar.suspend(|| note(&left_out(why)));
    }

    fn rolled_back(&mut self, step: u64, to_step: u64) {
        self.bar.suspend(|| note(&rolled_back(step, to_step)));
    }

    fn evaluated(&mut self, _step: u64, evaluation: &Evaluation) {
        self.seen.bound = Some(evaluation.bound);
    }
}

impl Finish for Bar {
    fn finish(&mut self, is_finished: bool) {
        match is_finished {
            true => self.bar.finish(),
            // It would fill up, and the result says where the run stopped.
            false => self.bar.finish_and_clear(),
        }
    }
}

/// Writes a line after the first step, after each evaluation, and at least one a minute.
struct Lines<'a, W> {
    begin: Vec<String>,
    clock: &'a dyn Fn() -> f64,
    write: W,
    seen: Seen,
    steps: u64,
    /// Step and time at the beginning and at the last line.
    first: (u64, f64),
    last: Option<f64>,
    /// Tokens since the beginning.
    tokens: usize,
}

impl<'a, W: FnMut(&str)> Lines<'a, W> {
    fn new(begin: Vec<String>, clock: &'a dyn Fn() -> f64, write: W) -> Self {
        Self {
            begin,
            clock,
            write,
            seen: Seen::default(),
            steps: 0,
            first: (0, 0.0),
            last: None,
            tokens: 0,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn line(&mut self, step: u64) {
        let now = (self.clock)();
        let (first, began) = self.first;
        let passed = now - began;
        let rate = self.tokens as f64 / passed.max(1e-9);
        let left = passed / (step - first).max(1) as f64 * (self.steps - step) as f64;
        let text = format!(
            "step {step}/{}, {}, {} passed, {} left",
            self.steps,
            self.seen.text(rate),
            duration(passed),
            duration(left)
        );
        (self.write)(&text);
        self.last = Some(now);
    }
}

impl<W: FnMut(&str)> Observer for Lines<'_, W> {
    fn started(&mut self, start: &Start) {
        for line in std::mem::take(&mut self.begin) {
            (self.write)(&line);
        }
        self.steps = start.steps;
        self.first = (start.resumed_from.unwrap_or(0), (self.clock)());
    }

    fn stepped(&mut self, report: &StepReport) {
        self.seen.step(report);
        self.tokens += report.tokens;
        if self.last.is_none_or(|last| (self.clock)() - last >= PAUSE) {
            self.line(report.step);
        }
    }

    fn skipped(&mut self, _report: &StepReport, why: &Error) {
        (self.write)(&left_out(why));
    }

    fn rolled_back(&mut self, step: u64, to_step: u64) {
        (self.write)(&rolled_back(step, to_step));
    }

    fn evaluated(&mut self, step: u64, evaluation: &Evaluation) {
        self.seen.bound = Some(evaluation.bound);
        self.line(step);
    }
}

impl<W: FnMut(&str)> Finish for Lines<'_, W> {
    fn finish(&mut self, _is_finished: bool) {}
}

fn left_out(why: &Error) -> String {
    format!("left out: {why}")
}

fn rolled_back(step: u64, to_step: u64) -> String {
    format!("step {step}: the parameters are those of step {to_step} again")
}

/// Seconds in words.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    //! Tests of the lines, with a clock of their own.

    use std::cell::{Cell, RefCell};

    use super::*;

    fn report(step: u64) -> StepReport {
        StepReport {
            step,
            loss: 2.0,
            grad_norm: 1.0,
            learning_rate: 0.1,
            tokens: 100,
            predicted: 50,
        }
    }

    #[test]
    fn a_line_comes_after_the_first_step_each_minute_and_each_evaluation() {
        let time = Cell::new(1000.0);
        let clock = || time.get();
        let written = RefCell::new(Vec::new());
        let write = |line: &str| written.borrow_mut().push(line.to_owned());
        let mut lines = Lines::new(vec!["a plan".to_owned()], &clock, write);
        lines.started(&Start {
            resumed_from: Some(5),
            steps: 20,
            n_parameters: 1,
            n_train_tokens: 1,
        });
        // Twenty seconds a step.
        for step in 6..=10 {
            time.set(time.get() + 20.0);
            lines.stepped(&report(step));
        }
        lines.evaluated(
            10,
            &Evaluation {
                bound: 3.5,
                standard_error: 0.1,
                sequences: 1,
                tokens: 1,
            },
        );
        let expected = [
            "a plan",
            "step 6/20, loss 2.000, 5 tokens/s, 20 s passed, 5 min left",
            "step 9/20, loss 2.000, 5 tokens/s, 80 s passed, 4 min left",
            "step 10/20, loss 2.000, held-out 3.500, 5 tokens/s, 2 min passed, 3 min left",
        ];
        assert_eq!(*written.borrow(), expected);
    }

    #[test]
    fn durations_are_in_the_unit_that_fits() {
        let texts = [12.0, 100.0, 7200.0, 400_000.0].map(duration);
        assert_eq!(texts, ["12 s", "2 min", "2.0 h", "4.6 days"]);
    }
}
