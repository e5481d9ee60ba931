//! `llada tune`.

mod report;

use std::path::Path;

use anyhow::{Context as _, Result};
use llada::eval::{
    Bars, Measured, Setting, Tried, Tuner, combinations, drawn_lines, settings, tradeoff_svg,
};
use llada::sample::Request;
use llada::text::{ChatTemplate, Message};
use llada::{Checkpoint, GenerateError, Llada, Overrides, Prompt, Protocol, Task};

use super::jobs::{inner, note_unknown, of_text};
use super::observe::of_sampler;
use super::progress::Progress;
use super::prompts::{self, Given, chat_template};
use crate::args::{Format, TuneArgs};
use crate::config::{Embedded, Misuse, load_checkpoint};
use crate::output::{print, save};
use report::{Report, Skipped};

/// A line of a poem of the embedded model: five characters and a mark.
const LINE: usize = 6;
/// Lines of such a poem.
const LINES: usize = 4;
/// Rules of each kind that are tried with every cache.
const COMBINED: usize = 2;

pub(crate) fn run(args: &TuneArgs) -> Result<()> {
    if args.model.model.is_some() && args.data.is_none() {
        return Err(Misuse::of(
            "--data is needed with --model: the prompts that the model is tuned for",
        ));
    }
    let bars = bars(args)?;
    let given = match &args.data {
        Some(path) => prompts::read(path)?,
        None => Vec::new(),
    };
    let is_chat = args.chat
        || args.chat_template.is_some()
        || given.iter().any(|given| given.messages.is_some());
    let embedded = match is_chat {
        true => Embedded::Instruct,
        false => Embedded::Poems,
    };
    let only_ids = !given.is_empty() && given.iter().all(Given::is_ids);
    let (llada, checkpoint) = load_checkpoint(&args.model, embedded, only_ids)?;
    let base = base(args, &llada);
    let tasks = match args.data {
        Some(_) => tasks(args, given, is_chat, &checkpoint)?,
        None => {
            let drawn = drawn_lines(&llada.subject(), args.limit.get(), LINE, LINES)?;
            drawn.into_iter().map(Tuned::document).collect()
        }
    };
    tell_unknown(&llada, &tasks)?;
    let progress = Progress::new()?;
    let mut run = Run {
        llada: &llada,
        tasks: &tasks,
        base: &base,
        measured: Vec::new(),
        skipped: Vec::new(),
    };
    run.all(args, bars, &progress)?;
    anyhow::ensure!(
        !run.measured.is_empty(),
        "interrupted before the first setting was measured"
    );
    let report = Report {
        measured: &run.measured,
        skipped: &run.skipped,
        bars,
        base_flags: base_flags(args, &base),
        n_prompts: tasks.len(),
    };
    match args.model.run.format {
        Format::Json => progress.print(report.json())?,
        Format::Text => print(&report.text())?,
    }
    // Last: what was measured is told even where a picture can't be written.
    match &args.plot {
        Some(path) => draw(path, &run.measured),
        None => Ok(()),
    }
}

fn bars(args: &TuneArgs) -> Result<Bars> {
    if !(0.0..=100.0).contains(&args.agreement) {
        return Err(Misuse::of(format!(
            "--agreement must be in [0, 100], got {}",
            args.agreement
        )));
    }
    if !(args.nats.is_finite() && args.nats >= 0.0) {
        return Err(Misuse::of(format!(
            "--nats must be a number, 0 or more, got {}",
            args.nats
        )));
    }
    Ok(Bars {
        agreement: args.agreement / 100.0,
        nats: args.nats,
    })
}

/// What all settings have in common.
fn base(args: &TuneArgs, llada: &Llada) -> Overrides {
    let is_poems = args.data.is_none();
    let usual = match llada.protocol {
        _ if llada.info().is_autoregressive() => None,
        _ if is_poems => Some(LINE),
        Protocol::Llada => Some(32),
        // They have their own, or none.
        _ => None,
    };
    Overrides {
        gen_length: match is_poems {
            true => Some(args.gen_length.map_or(LINE * (LINES - 1), Into::into)),
            false => args.gen_length.map(Into::into),
        },
        block_length: args.block_length.map(Into::into).or(usual),
        early_stop: args.early_stop,
        logits_eos_inf: args.logits_eos_inf || is_poems,
        confidence_eos_eot_inf: args.confidence_eos_eot_inf,
        ..Overrides::default()
    }
}

/// The same as flags, for whoever takes what is recommended.
fn base_flags(args: &TuneArgs, base: &Overrides) -> String {
    let count = |flag: &str, n: Option<usize>| n.map(|n| format!("{flag} {n}"));
    let switch = |flag: &str, is_set: bool| is_set.then(|| flag.to_owned());
    let flags = [
        count("--gen-length", base.gen_length.filter(|_| !args.infill)),
        count("--block-length", base.block_length),
        switch("--early-stop", base.early_stop),
        switch("--logits-eos-inf", base.logits_eos_inf),
        switch("--confidence-eos-eot-inf", base.confidence_eos_eot_inf),
    ];
    flags.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// What is asked of the model in each setting.
struct Tuned {
    task: Task<'static>,
    place: Option<String>,
    /// Ids that are the beginning of a whole text.
    document: Option<Vec<u32>>,
}

impl Tuned {
    fn document(ids: Vec<u32>) -> Self {
        Self {
            task: Task::generate(ids.clone()),
            place: None,
            document: Some(ids),
        }
    }

    fn request(&self, llada: &Llada, overrides: &Overrides) -> Result<Request, GenerateError> {
        let Some(ids) = &self.document else {
            return llada.request(&self.task, overrides);
        };
        let task = Request::generate(ids.clone(), llada::sample::SampleConfig::default()).task;
        Ok(llada.policy().request(task, true, overrides)?)
    }
}

fn tasks(
    args: &TuneArgs,
    given: Vec<Given>,
    is_chat: bool,
    checkpoint: &Checkpoint,
) -> Result<Vec<Tuned>> {
    let template = match is_chat {
        true => Some(chat_template(args.chat_template.as_deref(), checkpoint)?),
        false => None,
    };
    let task = |given: Given| {
        let render = |template: &ChatTemplate, messages: &[Message]| -> Result<Prompt<'static>> {
            Ok(template.render(messages, true)?.into())
        };
        let prompt = match (&template, given.prompt, given.messages) {
            (Some(template), _, Some(messages)) => render(template, &messages)?,
            (Some(template), Some(Prompt::Text(text)), None) => {
                render(template, &[Message::user(text)])?
            }
            (_, Some(prompt), _) => prompt,
            (..) => Vec::new().into(),
        };
        Ok(Tuned {
            task: match args.infill {
                true => Task::infill(prompt),
                false => Task::generate(prompt),
            },
            place: given.place,
            document: None,
        })
    };
    given.into_iter().take(args.limit.get()).map(task).collect()
}

fn tell_unknown(llada: &Llada, tasks: &[Tuned]) -> Result<()> {
    let mut unknown = std::collections::BTreeSet::new();
    for tuned in tasks {
        let encoded = llada.encode(&tuned.task).map_err(of_text)?;
        unknown.extend(encoded.unknown.into_iter().map(|unknown| unknown.text));
    }
    note_unknown(&unknown, "");
    Ok(())
}

fn draw(path: &Path, measured: &[Measured]) -> Result<()> {
    let name = path
        .file_name()
        .context("--plot needs the name of a file")?;
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    save(folder, &name.to_string_lossy(), &tradeoff_svg(measured)?)
}

struct Run<'a> {
    llada: &'a Llada,
    tasks: &'a [Tuned],
    base: &'a Overrides,
    measured: Vec<Measured>,
    skipped: Vec<Skipped>,
}

impl Run<'_> {
    /// Measures the settings of the model, and then the best rules with each cache.
    fn all(&mut self, args: &TuneArgs, bars: Bars, progress: &Progress) -> Result<()> {
        let subject = self.llada.subject();
        let mut tuner = Tuner::new(&subject, args.mc_samples.get());
        self.each(&mut tuner, settings(&subject, self.base), progress)?;
        let combined = combinations(&self.measured, bars, COMBINED);
        self.each(&mut tuner, combined, progress)
    }

    fn each(
        &mut self,
        tuner: &mut Tuner<'_>,
        settings: Vec<Setting>,
        progress: &Progress,
    ) -> Result<()> {
        let n = settings.len();
        let mut bar = progress.observe("settings".to_owned());
        for (at, setting) in settings.into_iter().enumerate() {
            if bar(at, n).is_break() {
                return Ok(());
            }
            let flags = setting.flags();
            let requests = match self.requests(&setting) {
                Ok(requests) => requests,
                Err(reason) if self.measured.is_empty() => return Err(reason),
                Err(reason) => {
                    let reason = format!("{reason:#}");
                    self.skipped.push(Skipped { flags, reason });
                    continue;
                }
            };
            match tuner.measure(setting, &requests, &mut |_, _| bar(at, n))? {
                Tried::Measured(measured) => self.measured.push(*measured),
                Tried::Skipped(error) => self.skipped.push(Skipped {
                    flags,
                    reason: format!("{:#}", of_sampler(error)),
                }),
                Tried::Interrupted => return Ok(()),
            }
        }
        if n > 0 {
            let _ = bar(n, n);
        }
        Ok(())
    }

    fn requests(&self, setting: &Setting) -> Result<Vec<Request>> {
        let overrides = setting.overrides(self.base);
        let request = |tuned: &Tuned| {
            let request = tuned.request(self.llada, &overrides);
            let request = request.map_err(inner);
            match &tuned.place {
                Some(place) => request.with_context(|| place.clone()),
                None => request,
            }
        };
        self.tasks.iter().map(request).collect()
    }
}

#[cfg(test)]
mod tests;
