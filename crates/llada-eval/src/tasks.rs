//! Tasks out of files of JSON lines: multiple choice by likelihood, and exact answers.

use llada_diffusion::{LikelihoodConfig, ScoredSequence};
use llada_sample::{Overrides, Request, SampleConfig};
use serde::Deserialize;

use crate::lines::json_lines;
use crate::{BATCH, Error, Observer, Result, Subject};

/// A question with choices, as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChoiceTask {
    /// Tokens of the prompt and a choice, and the length of the prompt, for each choice.
    choices: Vec<(Vec<u32>, usize)>,
    /// Which one is right.
    answer: usize,
}

/// What a model chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// Whether the most likely choice is right.
    pub by_likelihood: bool,
    /// Whether the most likely choice per token is right.
    pub by_likelihood_per_token: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChoiceLine {
    prompt: String,
    choices: Vec<String>,
    answer: usize,
}

/// The tasks of a file with lines `{"prompt": "..", "choices": ["..", ".."], "answer": 0}`, where
/// `answer` counts from 0; `limit` of them at most. The choices of a character model are whole to
/// the end of the document: their EOS is scored too.
///
/// # Errors
/// One that names the line.
pub fn read_choices(
    text: &str,
    limit: Option<usize>,
    subject: &Subject<'_>,
) -> Result<Vec<ChoiceTask>> {
    let tasks = json_lines::<ChoiceLine>(text, limit, "tasks")?.into_iter();
    let tasks = tasks.map(|(line, task)| choice_task(subject, line, &task));
    tasks.collect()
}

fn choice_task(subject: &Subject<'_>, line: usize, task: &ChoiceLine) -> Result<ChoiceTask> {
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
        let end_of_document = subject.policy.whole_documents;
        tokens.extend(end_of_document.then_some(subject.info().eos_token_id));
        subject.check_length(line, tokens.len())?;
        choices.push((tokens, prompt.len()));
    }
    Ok(ChoiceTask {
        choices,
        answer: task.answer,
    })
}

/// Lets a model choose by likelihood: eq. 6 for a diffusion model, the chain rule for an
/// autoregressive one. Fewer outcomes come back than tasks if the observer ended it.
///
/// # Errors
/// If the model fails.
pub fn choose(
    subject: &Subject<'_>,
    tasks: &[ChoiceTask],
    config: &LikelihoodConfig,
    observer: &mut Observer<'_>,
) -> Result<Vec<Chosen>> {
    let mut chosen = Vec::with_capacity(tasks.len());
    for task in tasks {
        let sequences: Vec<_> = (task.choices.iter())
            .map(|(tokens, prompt_len)| ScoredSequence {
                tokens,
                prompt_len: *prompt_len,
            })
            .collect();
        let values = subject.log_likelihoods(&sequences, config)?;
        let per_token = (values.iter().zip(&sequences))
            .map(|(value, text)| value / (text.tokens.len() - text.prompt_len) as f64);
        chosen.push(Chosen {
            by_likelihood: best(&values) == task.answer,
            by_likelihood_per_token: best(&per_token.collect::<Vec<_>>()) == task.answer,
        });
        if observer(chosen.len(), tasks.len()).is_break() {
            break;
        }
    }
    Ok(chosen)
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenerationConfig {
    /// Tokens to write; `None`: as many as the right answer has.
    pub gen_length: Option<usize>,
    /// Steps of a diffusion model; `None`: one a token.
    pub steps: Option<usize>,
}

/// Lets a model write the answer greedily, up to an EOS, and compares the text without spaces
/// around it. Fewer outcomes come back than tasks if the observer ended it.
///
/// # Errors
/// [`Error::TooLong`] if an answer does not fit; if the model fails.
pub fn exact_matches(
    subject: &Subject<'_>,
    tasks: &[GenerationTask],
    config: GenerationConfig,
    observer: &mut Observer<'_>,
) -> Result<Vec<bool>> {
    let requests = tasks.iter().map(|task| request(subject, task, config));
    let requests = requests.collect::<Result<Vec<Request>>>()?;
    let mut right = Vec::with_capacity(tasks.len());
    for (requests, tasks_of_chunk) in requests.chunks(BATCH).zip(tasks.chunks(BATCH)) {
        for (output, task) in subject.sample(requests)?.iter().zip(tasks_of_chunk) {
            let answer = output.answer();
            let is_end = |id: &u32| subject.policy.ends().any(|end| end == *id);
            let end = answer.iter().position(is_end);
            let answer = &answer[..end.unwrap_or(answer.len())];
            let text = subject.tokenizer.decode(answer, true)?;
            right.push(text.trim() == task.answer);
        }
        if observer(right.len(), tasks.len()).is_break() {
            break;
        }
    }
    Ok(right)
}

fn request(
    subject: &Subject<'_>,
    task: &GenerationTask,
    config: GenerationConfig,
) -> Result<Request> {
    let gen_length = config.gen_length.unwrap_or(task.answer_len);
    let length = task.prompt.len() + gen_length;
    subject.check_length(task.line, length)?;
    let overrides = Overrides {
        gen_length: Some(gen_length),
        steps: config.steps,
        early_stop: subject.info().is_autoregressive(),
        suppress_mask: Some(true),
        ..Overrides::default()
    };
    // The answer fills its place to the end of the document, which a diffusion model can see.
    let is_document = config.gen_length.is_none();
    let task = Request::generate(task.prompt.clone(), SampleConfig::default()).task;
    Ok(subject.policy.request(task, is_document, &overrides)?)
}
