//! What is shown and written while the sampler works, and how its results are reported.

mod picture;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use console::Term;
use llada::sample::{Error as SampleError, Output, Request, StepEvent};
use llada::train::Communicator;
use llada::{Llada, Task};
use serde_json::{Value, json};

use super::ends::{Ends, Writer};
use super::progress::Progress;
use super::result_file;
use super::work::{Done, Work};
use crate::args::{Format, SamplerArgs};
use crate::config::{Misuse, of_setting};
use crate::edits::edits_json;
use crate::output::{note, print};
use llada::text::Parts;
use picture::{Mark, cells, edits_text, wrap};

/// Sequences that run together.
const BATCH: usize = 64;
/// The same where results are kept while they come: what a process that is killed loses.
const KEPT_BATCH: usize = 8;
/// Pause after a step that is watched in a terminal.
const PAUSE: Duration = Duration::from_millis(80);

/// What is shown of the answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a> {
    /// An answer ends before the first of them.
    pub(super) stops: &'a [String],
    /// Whether it is shown without its prompt: in a chat, whose template is no text of the user.
    pub(super) answer_only: bool,
    pub(super) format: Format,
}

/// What answers are made of.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    pub(super) llada: &'a Llada,
    pub(super) tasks: &'a [Task<'a>],
    /// Of each task.
    pub(super) requests: &'a [Request],
    /// Stands for the model.
    pub(super) model: String,
}

/// Runs the requests of all tasks, on all ranks of a job, and prints or keeps the results.
pub(super) fn run_all(
    communicator: &dyn Communicator,
    batch: &Batch<'_>,
    sampler: &SamplerArgs,
    shown: Shown<'_>,
) -> Result<()> {
    let output = sampler.output.as_deref();
    let is_alone = communicator.size() == 1;
    if !is_alone && (sampler.trace.is_some() || sampler.watch) {
        let message = "--trace and --watch show one process: leave mpirun out";
        return Err(Misuse::of(message));
    }
    let progress = match output {
        Some(_) => Progress::of_rank(communicator.rank())?,
        None => Progress::silent(),
    };
    let key = |request: &Request| {
        let stops = shown.stops;
        result_file::key(&format!("generate {} {stops:?} {request:?}", batch.model))
    };
    let work = Work {
        communicator,
        progress: &progress,
        what: "answers",
        output,
        keys: batch.requests.iter().map(key).collect(),
        round: if output.is_some() { KEPT_BATCH } else { BATCH },
    };
    let mut observer = Observer::new(batch.llada, sampler.trace.as_deref(), sampler.watch)?;
    let is_kept = output.is_some();
    let done = work.run(|places| batch.answers(places, &mut observer, shown, is_kept))?;
    let Some(Done { mut results, kept }) = done else {
        return Ok(());
    };
    let seconds = progress.seconds() - observer.take_paused().as_secs_f64();
    let new = &mut results[kept..];
    let n_tokens: usize = new
        .iter()
        .map(|x| x["tokens"].as_array().map_or(0, Vec::len))
        .sum();
    let nfe: u64 = new.iter().filter_map(|result| result["nfe"].as_u64()).sum();
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let tokens_per_second = n_tokens as f64 / seconds;
    match (shown.format, output) {
        (Format::Json, None) => {
            let result = json!({
                "outputs": results, "seconds": seconds, "tokens_per_second": tokens_per_second,
            });
            return print(&format!("{result}\n"));
        }
        (Format::Json, Some(path)) => {
            return progress.print(json!({
                "output": path, "outputs": results.len(), "resumed_from": kept,
                "tokens_per_second": tokens_per_second,
            }));
        }
        (Format::Text, None) => {
            for result in &results {
                print(&format!("{}\n", result[SHOWN].as_str().unwrap_or_default()))?;
            }
        }
        (Format::Text, Some(path)) => {
            let (n, all, path) = (results.len(), batch.tasks.len(), path.display());
            note(&format!(
                "{n} of {all} answers are in {path}, of which {kept} were there"
            ));
        }
    }
    note(&format!(
        "{nfe} forward passes, {seconds:.2} s, {tokens_per_second:.0} tokens/s"
    ));
    Ok(())
}

/// The field of a result that is printed as it is.
const SHOWN: &str = "shown";

impl Batch<'_> {
    /// The results of the tasks at some places.
    fn answers(
        &self,
        places: &[usize],
        observer: &mut Observer<'_>,
        shown: Shown<'_>,
        is_kept: bool,
    ) -> Result<Vec<Value>> {
        let requests: Vec<Request> = places.iter().map(|&at| self.requests[at].clone()).collect();
        let ends = |request| Ends::of(self.llada, request, shown.stops, shown.answer_only);
        let ends: Vec<Ends<'_>> = requests.iter().map(ends).collect();
        observer.places = places.to_vec();
        let sampled = self.llada.sample(&requests, &mut |event| {
            let (at, flow) = (event.request, observer.step(event));
            match ends[at].is_reached(self.llada, &requests[at], event) {
                true => ControlFlow::Break(()),
                false => flow,
            }
        });
        let outputs = sampled.map_err(of_sampler)?;
        observer.finish()?;
        let is_shown = shown.format == Format::Text && !is_kept;
        let all = places.iter().zip(outputs).zip(&ends);
        all.map(|((&at, output), ends)| self.result(at, output, ends, shown, is_shown))
            .collect()
    }

    /// What was written for the task at a place.
    fn result(
        &self,
        at: usize,
        output: Output,
        ends: &Ends<'_>,
        shown: Shown<'_>,
        is_shown: bool,
    ) -> Result<Value> {
        let mut answer = self.llada.answer(&self.tasks[at], output)?;
        let output = &answer.output;
        let parts = match output.is_infill {
            true => Parts {
                content: answer.text.clone(),
                ..Parts::default()
            },
            false => ends.parts(&ends.text(self.llada, output.answer())?),
        };
        let mut tokens = output.answer();
        if output.stopped {
            // Blocks that were not begun.
            let mask = self.llada.info().mask_token_id;
            let n = tokens.iter().rposition(|&id| id != mask);
            tokens = &tokens[..n.map_or(0, |n| n + 1)];
        }
        let mut result = json!({
            "text": parts.content, "tokens": tokens,
            "prompt_tokens": output.prompt_len, "nfe": output.nfe, "rows": output.rows,
            "steps": output.steps, "saved_steps": output.saved_steps,
        });
        if output.guesses > 0 {
            result["guesses"] = json!(output.guesses);
            result["right_guesses"] = json!(output.right_guesses);
        }
        if !parts.reasoning.is_empty() {
            result["reasoning_content"] = json!(parts.reasoning);
        }
        if is_shown {
            result[SHOWN] = json!(match shown.answer_only {
                true => Writer::of_stdout().rest(&parts),
                false => {
                    let left_out = answer.text.strip_prefix(&*parts.content);
                    let kept = left_out.and_then(|rest| answer.whole_text.strip_suffix(rest));
                    let kept = kept.map_or(answer.whole_text.len(), str::len);
                    answer.whole_text.truncate(kept);
                    answer.whole_text
                }
            });
        }
        Ok(result)
    }
}

/// All but a failing model is a wrong setting.
pub(super) fn of_sampler(error: SampleError) -> anyhow::Error {
    match error {
        SampleError::Predictor(_) | SampleError::NotANumber { .. } => error.into(),
        error => of_setting(&error).unwrap_or_else(|| Misuse::from_error(error)),
    }
}

/// Writes the trace and draws the canvas.
pub(super) struct Observer<'a> {
    llada: &'a Llada,
    trace: Option<(PathBuf, BufWriter<File>)>,
    error: Option<std::io::Error>,
    /// Whether the canvas is drawn.
    pub(super) watch: bool,
    /// Whether answers are drawn without their prompts, one after another in the same place.
    pub(super) answers_alone: bool,
    terminal: Term,
    /// Lines of the picture that the next step draws over.
    drawn_lines: usize,
    /// Time in which nothing was computed, for the eye to follow.
    paused: Duration,
    /// What the trace calls the requests that run.
    pub(super) places: Vec<usize>,
}

impl<'a> Observer<'a> {
    pub(super) fn new(llada: &'a Llada, trace: Option<&Path>, watch: bool) -> Result<Self> {
        let create = |path: &Path| -> Result<_> {
            let file =
                File::create(path).with_context(|| format!("creating {}", path.display()))?;
            Ok((path.to_owned(), BufWriter::new(file)))
        };
        Ok(Self {
            llada,
            trace: trace.map(create).transpose()?,
            error: None,
            watch,
            answers_alone: false,
            terminal: Term::stderr(),
            drawn_lines: 0,
            paused: Duration::ZERO,
            places: vec![0],
        })
    }

    pub(super) fn step(&mut self, event: &StepEvent<'_>) -> ControlFlow<()> {
        let request = self.places[event.request];
        if let Some((_, file)) = &mut self.trace {
            let mut line = trace_line(self.llada, event, request);
            if event.step == 0 {
                let texts = event.canvas.iter().map(|&id| token_text(self.llada, id));
                line["prompt_tokens"] = json!(event.settled.start);
                line["texts"] = texts.collect();
            }
            if let Err(error) = writeln!(file, "{line}") {
                self.error = Some(error);
                return ControlFlow::Break(());
            }
        }
        if self.watch {
            self.draw(event, request);
        }
        ControlFlow::Continue(())
    }

    fn draw(&mut self, event: &StepEvent<'_>, request: usize) {
        let first = match self.answers_alone {
            true => event.settled.start,
            false => 0,
        };
        let cells = cells(self.llada, event, first);
        let head = format!("{:>3}/{} ", event.step + 1, event.steps);
        let is_another = request > 0 && !self.answers_alone;
        if !self.terminal.is_term() || is_another || event.steps == 0 {
            let is_there = |(text, mark): (String, Mark)| (mark != Mark::Deleted).then_some(text);
            let text: String = cells.into_iter().filter_map(is_there).collect();
            let edits = edits_text(self.llada, event.edits);
            return note(&format!("{head}{text}{edits}"));
        }
        let (rows, columns) = self.terminal.size();
        let mut lines = wrap(&head, &cells, usize::from(columns));
        // What has left the screen can't be drawn over.
        let hidden = lines.len().saturating_sub(usize::from(rows).max(2) - 1);
        lines.drain(..hidden);
        let _ = self.terminal.clear_last_lines(self.drawn_lines);
        let _ = self.terminal.write_line(&lines.join("\n"));
        let is_last = event.masked == 0 && !self.answers_alone;
        self.drawn_lines = if is_last { 0 } else { lines.len() };
        std::thread::sleep(PAUSE);
        self.paused += PAUSE;
    }

    /// Takes the picture away.
    pub(super) fn erase(&mut self) {
        if self.drawn_lines > 0 {
            // The terminal may have written what was typed, such as ^C, below it.
            let _ = self.terminal.clear_line();
            let _ = self.terminal.clear_last_lines(self.drawn_lines);
        }
        self.drawn_lines = 0;
    }

    /// The time in which nothing was computed since this was asked.
    pub(super) fn take_paused(&mut self) -> Duration {
        std::mem::take(&mut self.paused)
    }

    /// Everything is written, or the error says what was not.
    pub(super) fn finish(&mut self) -> Result<()> {
        if let Some((path, file)) = &mut self.trace {
            let flushed = match self.error.take() {
                Some(error) => Err(error),
                None => file.flush(),
            };
            flushed.with_context(|| format!("writing the trace {}", path.display()))?;
        }
        Ok(())
    }
}

/// The text of one token: □ for the mask, the name of any other special token.
fn token_text(llada: &Llada, id: u32) -> String {
    match id == llada.info().mask_token_id {
        true => "□".to_owned(),
        false => llada.tokenizer.decode(&[id], false).unwrap_or_default(),
    }
}

/// A step as a line of the trace. The first line of a request also has `texts`, the text of each
/// token of its canvas, and `prompt_tokens`, how many of them were there before the answer; a step
/// that edits has `edits` and the block in which they are, `window`.
fn trace_line(llada: &Llada, event: &StepEvent<'_>, request: usize) -> serde_json::Value {
    let revealed: Vec<_> = event
        .revealed
        .iter()
        .map(|revealed| {
            json!({
                "position": revealed.position,
                "token": revealed.token,
                "text": token_text(llada, revealed.token),
                "confidence": revealed.confidence,
            })
        })
        .collect();
    let mut line = json!({
        "request": request,
        "step": event.step,
        "steps": event.steps,
        "block": event.block,
        "masked": event.masked,
        "revealed": revealed,
        "canvas": event.canvas,
        "text": llada.canvas_text(event.canvas),
    });
    if !event.edits.is_empty() {
        line["edits"] = json!(edits_json(event.edits, |id| token_text(llada, id)));
        line["window"] = json!([event.window.start, event.window.end]);
    }
    line
}
