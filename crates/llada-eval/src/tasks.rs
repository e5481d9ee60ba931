//! Tasks out of files of JSON lines: multiple choice by likelihood, and exact answers.

use llada_diffusion::{Estimate, LikelihoodConfig, ScoredSequence};
use llada_sample::{Output, Overrides, Request, SampleConfig};
use serde::Deserialize;

use crate::lines::json_lines;
use crate::{Error, Result, Subject};

/// A question with choices, as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChoiceTask {
    choices: Vec<Choice>,
    /// Which one is right.
    answer: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Choice {
    /// Prompt and choice.
    tokens: Vec<u32>,
    prompt_len: usize,
    /// Characters of the choice, without white space before it.
    n_characters: usize,
}

/// What a model chose.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// `ln p(choice | prompt)` of each choice.
    pub estimates: Vec<Estimate>,
    /// The most likely choice.
    pub by_likelihood: usize,
    /// The most likely choice per token.
    pub by_likelihood_per_token: usize,
    /// The most likely choice per character, `acc_norm` of lm-evaluation-harness.
    pub by_likelihood_per_character: usize,
    /// The right one.
    pub answer: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChoiceLine {
    prompt: String,
    choices: Vec<String>,
    answer: usize,
}

/// The tasks of a file with lines `{"prompt": "..", "choices": ["..", ".."], "answer": 0}`, where
/// `answer` counts from 0; `limit` of them at most. `with_end`: the choices of a model that was
/// trained on whole documents go to the end of the document, and their EOS is scored too.
///
/// # Errors
/// One that names the line.
pub fn read_choices(
    text: &str,
    limit: Option<usize>,
    with_end: bool,
    subject: &Subject<'_>,
) -> Result<Vec<ChoiceTask>> {
    let tasks = json_lines::<ChoiceLine>(text, limit, "tasks")?.into_iter();
    let with_end = with_end && subject.policy.whole_documents;
    let tasks = tasks.map(|(line, task)| choice_task(subject, line, &task, with_end));
    tasks.collect()
}

fn choice_task(
    subject: &Subject<'_>,
    line: usize,
    task: &ChoiceLine,
    with_end: bool,
) -> Result<ChoiceTask> {
    let bad = |expected| Error::BadLine { line, expected };
    if task.choices.len() < 2 {
        return Err(bad("expected at least two choices"));
    }
    if task.answer >= task.choices.len() {
        return Err(bad("answer is the number of a choice, from 0"));
    }
    let mut choices = Vec::with_capacity(task.choices.len());
    for choice in &task.choices {
        for text in [&task.prompt, choice] {
            subject.encode(line, text)?;
        }
        let pair = subject.tokenizer.encode_pair(&task.prompt, choice);
        let (prompt, end) = pair.map_err(|source| Error::BadText { line, source })?;
        if prompt.is_empty() {
            return Err(bad("the prompt is empty"));
        }
        if end.is_empty() && choice.is_empty() {
            return Err(bad("a choice is empty"));
        }
        if end.is_empty() {
            return Err(bad(
                "a choice merges with the end of the prompt into one token, so that nothing of it is \
                 left to score; end the prompt before the word that the choice ends",
            ));
        }
        let mut tokens = [&prompt[..], &end].concat();
        tokens.extend(with_end.then_some(subject.info().eos_token_id));
        subject.check_length(line, tokens.len())?;
        choices.push(Choice {
            tokens,
            prompt_len: prompt.len(),
            n_characters: choice.trim_start().chars().count(),
        });
    }
    Ok(ChoiceTask {
        choices,
        answer: task.answer,
    })
}

/// Lets a model choose by likelihood: eq. 6 for a diffusion model, the chain rule for an
/// autoregressive one. The draws depend on the seed and on the place of a choice in its task.
///
/// # Errors
/// If the model fails.
pub fn choose(
    subject: &Subject<'_>,
    task: &ChoiceTask,
    config: &LikelihoodConfig,
) -> Result<Chosen> {
    let sequences: Vec<_> = (task.choices.iter())
        .map(|choice| ScoredSequence {
            tokens: &choice.tokens,
            prompt_len: choice.prompt_len,
        })
        .collect();
    let estimates = subject.log_likelihoods(&sequences, config)?;
    let best_per = |length: fn(&Choice) -> usize| {
        let lengths = task.choices.iter().map(|choice| length(choice) as f64);
        let values = estimates.iter().zip(lengths);
        best(
            &values
                .map(|(x, n)| x.log_likelihood / n)
                .collect::<Vec<_>>(),
        )
    };
    Ok(Chosen {
        by_likelihood: best_per(|_| 1),
        by_likelihood_per_token: best_per(|choice| choice.tokens.len() - choice.prompt_len),
        by_likelihood_per_character: best_per(|choice| choice.n_characters),
        estimates,
        answer: task.answer,
    })
}

/// Index of the largest value, the first of several.
fn best(values: &[f64]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

/// A prompt with the text that should follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationTask {
    line: usize,
    prompt: Vec<u32>,
    answer: String,
    /// Tokens of the answer.
    answer_len: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GenerationLine {
    prompt: String,
    answer: String,
}

/// The tasks of a file with lines `{"prompt": "..", "answer": ".."}`; `limit` of them at most.
///
/// # Errors
/// One that names the line.
pub fn read_generations(
    text: &str,
    limit: Option<usize>,
    subject: &Subject<'_>,
) -> Result<Vec<GenerationTask>> {
    let tasks = json_lines::<GenerationLine>(text, limit, "tasks")?.into_iter();
    let task = |(line, task): (usize, GenerationLine)| {
        let prompt = subject.encode(line, &task.prompt)?;
        let answer_len = subject.encode(line, &task.answer)?.len();
        let bad = |expected| Err(Error::BadLine { line, expected });
        match (prompt.is_empty(), answer_len) {
            (true, _) => bad("the prompt is empty"),
            (_, 0) => bad("the answer is empty"),
            _ => Ok(GenerationTask {
                line,
                prompt,
                answer: task.answer.trim().to_owned(),
                answer_len,
            }),
        }
    };
    tasks.map(task).collect()
}

/// How answers are written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GenerationConfig {
    /// What of a request is not as usual. `gen_length` is `None`: as many tokens as the right answer
    /// has. The mask is never predicted, and an autoregressive model stops at an EOS.
    pub overrides: Overrides,
    /// An answer ends before the first of them.
    pub stops: Vec<String>,
}

/// An answer that a model wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its text.
    pub text: String,
    /// Whether it is the right one.
    pub is_right: bool,
}

/// Tasks with the request of each.
#[derive(Debug, Clone, PartialEq)]
pub struct Generations {
    tasks: Vec<GenerationTask>,
    requests: Vec<Request>,
    stops: Vec<String>,
}

impl Generations {
    /// Makes the requests of tasks.
    ///
    /// # Errors
    /// [`Error::TooLong`] if an answer does not fit; [`Error::Sampler`] for what the model cannot do.
    pub fn new(
        subject: &Subject<'_>,
        tasks: Vec<GenerationTask>,
        config: &GenerationConfig,
    ) -> Result<Self> {
        let requests = tasks
            .iter()
            .map(|task| request(subject, task, &config.overrides));
        Ok(Self {
            requests: requests.collect::<Result<_>>()?,
            tasks,
            stops: config.stops.clone(),
        })
    }

    /// Each task with its request.
    pub fn iter(&self) -> impl Iterator<Item = (&GenerationTask, &Request)> {
        self.tasks.iter().zip(&self.requests)
    }

    /// Lets a model write the answers of some of the tasks, named by their places, each up to an EOS
    /// or a stop, and compares the text without spaces around it.
    ///
    /// # Errors
    /// If the model fails.
    pub fn write(&self, subject: &Subject<'_>, places: &[usize]) -> Result<Vec<Written>> {
        let requests: Vec<Request> = places.iter().map(|&at| self.requests[at].clone()).collect();
        let outputs = subject.sample(&requests)?;
        let written = |(output, &at): (&Output, &usize)| {
            let answer = output.answer();
            let is_end = |id: &u32| subject.policy.ends().any(|end| end == *id);
            let end = answer.iter().position(is_end);
            let answer = &answer[..end.unwrap_or(answer.len())];
            let mut text = subject.tokenizer.decode(answer, true)?;
            let stops = self.stops.iter().filter_map(|stop| text.find(&**stop));
            text.truncate(stops.min().unwrap_or(text.len()));
            let is_right = text.trim() == self.tasks[at].answer;
            Ok(Written { text, is_right })
        };
        outputs.iter().zip(places).map(written).collect()
    }
}

fn request(subject: &Subject<'_>, task: &GenerationTask, overrides: &Overrides) -> Result<Request> {
    let gen_length = overrides.gen_length.unwrap_or(task.answer_len);
    subject.check_length(task.line, task.prompt.len().saturating_add(gen_length))?;
    // The answer fills its place to the end of the document, which a diffusion model can see.
    let is_document = overrides.gen_length.is_none();
    let overrides = Overrides {
        gen_length: Some(gen_length),
        early_stop: overrides.early_stop || subject.info().is_autoregressive(),
        suppress_mask: Some(true),
        ..overrides.clone()
    };
    let task = Request::generate(task.prompt.clone(), SampleConfig::default()).task;
    Ok(subject.policy.request(task, is_document, &overrides)?)
}
