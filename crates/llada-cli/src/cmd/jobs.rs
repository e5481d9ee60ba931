//! The tasks of a command: requests out of them, and what of their texts a model does not know.

use std::collections::BTreeSet;

use anyhow::Result;
use llada::sample::Request;
use llada::train::Communicator;
use llada::{GenerateError, Llada, Overrides, Task};

use super::observe::{Batch, Shown, of_sampler, run_all};
use crate::args::{ModelArgs, SamplerArgs};
use crate::config::{Misuse, check_flags};
use crate::output::note;

/// Tasks, each with its request.
#[derive(Debug)]
pub(super) struct Jobs<'a> {
    llada: &'a Llada,
    sampler: &'a SamplerArgs,
    overrides: Overrides,
    tasks: Vec<Task<'a>>,
    requests: Vec<Request>,
}

impl<'a> Jobs<'a> {
    pub(super) fn new(llada: &'a Llada, sampler: &'a SamplerArgs, overrides: Overrides) -> Self {
        Self {
            llada,
            sampler,
            overrides,
            tasks: Vec::new(),
            requests: Vec::new(),
        }
    }

    /// Adds the samples of a task; `place` is where its text comes from, if not from the command
    /// line.
    pub(super) fn push(
        &mut self,
        task: Task<'a>,
        place: Option<&str>,
        check: impl Fn(&Request, &Llada) -> Result<()>,
    ) -> Result<()> {
        let task = task.strict(self.sampler.strict);
        for sample in 0..self.sampler.n_samples {
            let overrides = Overrides {
                seed: self.overrides.seed.wrapping_add(sample.into()),
                ..self.overrides.clone()
            };
            let request = match self.llada.request(&task, &overrides) {
                Ok(request) => check(&request, self.llada).map(|()| request),
                Err(error) if place.is_some() => Err(inner(error)),
                Err(error) => Err(of_text(error)),
            };
            let request = match place {
                Some(place) => request.map_err(|error| error.context(place.to_owned())),
                None => request,
            };
            self.requests.push(request?);
            self.tasks.push(task.clone());
        }
        Ok(())
    }

    /// Runs them on all ranks of a job and prints or keeps the results.
    pub(super) fn run(
        self,
        communicator: &dyn Communicator,
        model: &ModelArgs,
        shown: Shown<'_>,
    ) -> Result<()> {
        let mut unknown = BTreeSet::new();
        for task in &self.tasks {
            let of_task = self.llada.encode(task)?.unknown.into_iter();
            unknown.extend(of_task.map(|unknown| unknown.text));
        }
        let hint = match model.model {
            None => {
                "; the embedded model knows classical Chinese poems, give a --model for other texts"
            }
            Some(_) => "",
        };
        if communicator.rank() == 0 {
            note_unknown(&unknown, hint);
        }
        check_flags(self.sampler, self.overrides.gen_length)?;
        let batch = Batch {
            llada: self.llada,
            tasks: &self.tasks,
            requests: &self.requests,
            model: model.identity(),
        };
        run_all(communicator, &batch, self.sampler, shown)
    }
}

/// A warning of texts that the vocabulary lacks, if there are any.
pub(super) fn note_unknown(unknown: &BTreeSet<String>, hint: &str) {
    const SHOWN: usize = 10;
    if unknown.is_empty() {
        return;
    }
    let shown = unknown.iter().take(SHOWN);
    let shown: Vec<String> = shown.map(|text| format!("{text:?}")).collect();
    let more = if unknown.len() > SHOWN { ", .." } else { "" };
    note(&format!(
        "warning: not in the vocabulary, and unknown to the model: {}{more}{hint}",
        shown.join(", ")
    ));
}

/// What the user wrote and can't be encoded is a wrong use of the command.
pub(super) fn of_text(error: GenerateError) -> anyhow::Error {
    match error {
        GenerateError::Text(error) => Misuse::from_error(error),
        error @ GenerateError::Merged { .. } => Misuse::from_error(error),
        error => inner(error),
    }
}

/// The error of the crate that it comes from.
pub(super) fn inner(error: GenerateError) -> anyhow::Error {
    match error {
        GenerateError::Text(error) => error.into(),
        GenerateError::Sample(error) => of_sampler(error),
        GenerateError::Diffusion(error) => error.into(),
        error => error.into(),
    }
}
