//! Texts of a form that is guaranteed: JSON that satisfies a schema, and choices among texts.
//!
//! docs/structured-output.md says how, and why the form holds whatever the model prefers.

mod number;
mod schema;
mod vocabulary;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use llada_diffusion::{
    Estimate, Estimator, LikelihoodConfig, MaskPredictor, ScoredSequence, Scoring, TokenSet,
};
use llada_sample::{Output, Overrides, Policy, Request, Task};
use serde_json::Value;

pub use vocabulary::JsonVocabulary;

use crate::{GenerateError, Llada, Prompt};
use number::NumberRule;
use schema::Piece;

/// Errors of texts of a guaranteed form.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum StructuredError {
    /// A schema that no text can be guaranteed to satisfy.
    #[error("the JSON schema at {place}: {what}", place = place(.pointer))]
    Schema {
        /// JSON pointer of the place.
        pointer: String,
        /// What is wrong there.
        what: String,
    },
    /// A schema with more values than tokens.
    #[error("the JSON schema has more values than the {max_values} tokens of the answer")]
    TooManyValues {
        /// Tokens at most.
        max_values: usize,
    },
    /// The vocabulary has no token for characters of JSON or of the schema.
    #[error(
        "the model's vocabulary lacks the characters {missing:?}, so that it can't write this JSON"
    )]
    Characters {
        /// The characters.
        missing: String,
    },
    /// The answer is too short for what is fixed in it.
    #[error("JSON of this schema takes at least {needed} tokens, and the answer has {max_tokens}")]
    TooShort {
        /// Tokens of the shortest answer that is possible.
        needed: usize,
        /// Tokens of the answer.
        max_tokens: usize,
    },
    /// A mask in the prompt would be filled in.
    #[error("the prompt holds the mask token: JSON can only follow a prompt without masks")]
    MaskedPrompt,
    /// A request can't be made, or failed.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}

fn place(pointer: &str) -> &str {
    if pointer.is_empty() {
        "its root"
    } else {
        pointer
    }
}

impl From<llada_text::Error> for StructuredError {
    fn from(error: llada_text::Error) -> Self {
        Self::Generate(error.into())
    }
}

impl From<llada_sample::Error> for StructuredError {
    fn from(error: llada_sample::Error) -> Self {
        Self::Generate(error.into())
    }
}

impl From<llada_diffusion::Error> for StructuredError {
    fn from(error: llada_diffusion::Error) -> Self {
        Self::Generate(error.into())
    }
}

type Result<T> = std::result::Result<T, StructuredError>;

/// Work that a [`Structured`] text needs before it can go on.
#[derive(Debug)]
pub enum Stage {
    /// Likelihoods of the choices at a place.
    Score(Box<Scoring>),
    /// Tokens of a value.
    Write(Box<Request>),
}

/// What came of a [`Stage`].
#[derive(Debug)]
pub enum StageResult {
    /// Of [`Stage::Score`], all of them.
    Scores(Vec<Estimate>),
    /// Of [`Stage::Write`].
    Written(Output),
}

/// JSON on its way, value by value in the order of the text: [`Self::stage`] says what is to be
/// done next, [`Self::take`] takes its result.
#[derive(Debug)]
pub struct Structured {
    vocabulary: Arc<JsonVocabulary>,
    policy: Policy,
    overrides: Overrides,
    slots: Vec<Slot>,
    /// The slot that is being written.
    at: usize,
    /// What is written of a number.
    number: String,
    /// Prompt, and the tokens that are settled.
    ids: Vec<u32>,
    prompt_len: usize,
    text: String,
    /// Tokens of all strings and numbers, at most.
    n_masks: usize,
    nfe: usize,
    steps: usize,
}

/// A part of the text.
#[derive(Debug)]
enum Slot {
    /// What is fixed.
    Given { text: String, ids: Vec<u32> },
    /// One of several texts.
    Choice(Vec<(String, Vec<u32>)>),
    /// The inside of a string.
    String {
        min: usize,
        max: Option<usize>,
        n_masks: usize,
    },
    /// A number.
    Number(NumberRule),
}

impl Slot {
    /// Tokens at most.
    fn length(&self) -> usize {
        match self {
            Self::Given { ids, .. } => ids.len(),
            Self::Choice(texts) => texts.iter().map(|(_, ids)| ids.len()).max().unwrap_or(0),
            Self::String { n_masks, .. } => *n_masks,
            Self::Number(rule) => rule.length(),
        }
    }
}

impl Structured {
    /// What is to be done next; `None` once the text is whole.
    ///
    /// # Errors
    /// [`StructuredError::Generate`] if a request can't be made with the settings that were given.
    pub fn stage(&mut self) -> Result<Option<Stage>> {
        while let Some(slot) = self.slots.get(self.at) {
            match slot {
                Slot::Given { text, ids } => {
                    self.text.push_str(text);
                    self.ids.extend(ids);
                    self.at += 1;
                }
                Slot::Choice(texts) => return self.score(texts).map(Some),
                &Slot::String { min, max, n_masks } => {
                    let set = |may_end| {
                        Arc::new(self.vocabulary.string(max.unwrap_or(usize::MAX), may_end))
                    };
                    let (open, closed) = (set(true), set(false));
                    let sets = (0..n_masks).map(|at| if at < min { &closed } else { &open });
                    return self.write(sets.cloned().collect(), 0).map(Some);
                }
                Slot::Number(rule) => {
                    let next = self.rest().first().copied();
                    let begins = |text: &str| rule.begins(&format!("{}{text}", self.number));
                    let ends = rule.is_complete(&self.number).then_some(next);
                    if let Some(set) = self.vocabulary.number(begins, ends) {
                        let behind = rule.length() - self.number.len() - 1;
                        return self.write(vec![Arc::new(set)], behind).map(Some);
                    }
                    self.end_number();
                }
            }
        }
        Ok(None)
    }

    /// Takes the result of the last stage.
    ///
    /// # Panics
    /// If it is not that of the stage.
    pub fn take(&mut self, result: StageResult) {
        match (&self.slots[self.at], result) {
            (Slot::Choice(texts), StageResult::Scores(estimates)) => {
                // The chain rule shows each choice once for each of its tokens.
                self.nfe += texts.iter().map(|(_, ids)| ids.len()).sum::<usize>();
                let (text, ids) = &texts[likeliest(&estimates)];
                self.text.push_str(text);
                self.ids.extend(ids);
                self.at += 1;
            }
            (&Slot::String { min, max, .. }, StageResult::Written(output)) => {
                self.count(&output);
                self.end_string(output.answer(), min, max.unwrap_or(usize::MAX));
            }
            (Slot::Number(_), StageResult::Written(output)) => {
                self.count(&output);
                let id = output.answer()[0];
                match self.vocabulary.digits(id) {
                    Some(text) => {
                        self.number.push_str(text);
                        self.ids.push(id);
                    }
                    None => self.end_number(),
                }
            }
            _ => panic!("the result is that of the last stage"),
        }
    }

    /// The text so far: nothing of it changes, and after the last stage it is the whole.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The tokens of the text so far.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.ids[self.prompt_len..]
    }

    /// How often the model has seen the text, with each of its choices.
    #[must_use]
    pub fn nfe(&self) -> usize {
        self.nfe
    }

    /// Steps of sampling so far.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    fn count(&mut self, output: &Output) {
        self.nfe += output.nfe;
        self.steps += output.steps;
    }

    /// Tokens after the slot that is being written: masks where something is to be written.
    fn rest(&self) -> Vec<u32> {
        let mask = self.policy.info.mask_token_id;
        let mut rest = Vec::new();
        for slot in &self.slots[self.at + 1..] {
            match slot {
                Slot::Given { ids, .. } => rest.extend(ids),
                _ => rest.extend(std::iter::repeat_n(mask, slot.length())),
            }
        }
        let length = self.ids.len() + self.slots[self.at].length() + rest.len();
        rest.extend(self.policy.end_of_document(length));
        rest
    }

    fn score(&self, texts: &[(String, Vec<u32>)]) -> Result<Stage> {
        let tokens: Vec<Vec<u32>> = (texts.iter())
            .map(|(_, ids)| [&self.ids[..], ids].concat())
            .collect();
        let sequences: Vec<ScoredSequence<'_>> = (tokens.iter())
            .map(|tokens| ScoredSequence {
                tokens,
                prompt_len: self.ids.len(),
            })
            .collect();
        let config = LikelihoodConfig {
            estimator: Estimator::Chain,
            cfg_scale: self.overrides.cfg_scale,
            ..LikelihoodConfig::default()
        };
        let scoring = Scoring::new(&sequences, &config, &self.policy.info)?;
        Ok(Stage::Score(Box::new(scoring.with_suffix(self.rest())?)))
    }

    /// A request for the next tokens, one a set, with `behind` masks more of the same value.
    fn write(&self, sets: Vec<Arc<TokenSet>>, behind: usize) -> Result<Stage> {
        let (n, mask) = (sets.len(), self.policy.info.mask_token_id);
        let mut suffix = vec![mask; behind];
        suffix.extend(self.rest());
        let block_length = self.overrides.block_length.map(|length| length.clamp(1, n));
        let steps = self.overrides.steps.map(|steps| {
            let share = (steps.saturating_mul(n)).div_ceil(self.n_masks.max(1));
            share.max(n.div_ceil(block_length.unwrap_or(n)))
        });
        let overrides = Overrides {
            gen_length: Some(n),
            steps,
            block_length,
            early_stop: false,
            suppress_mask: Some(true),
            ..self.overrides.clone()
        };
        let task = Task::Generate {
            prompt: self.ids.clone(),
            suffix,
            constraints: Vec::new(),
        };
        let mut request = self.policy.request(task, false, &overrides)?;
        let places = self.ids.len()..;
        request.allowed = places.zip(sets).collect::<BTreeMap<_, _>>();
        Ok(Stage::Write(Box::new(request)))
    }

    /// Takes the tokens of a string before the first that ends it: as many as are no longer than
    /// `max`, and of the next one what is missing to `min`.
    fn end_string(&mut self, answer: &[u32], min: usize, max: usize) {
        let mut written = 0;
        for &id in answer {
            let Some((text, length)) = self.vocabulary.text(id) else {
                break;
            };
            let room = max - written;
            if length > room && written >= min {
                break;
            }
            self.text.extend(text.chars().take(room));
            self.ids.push(id);
            written += length.min(room);
        }
        self.at += 1;
    }

    fn end_number(&mut self) {
        self.text.push_str(&self.number);
        self.number.clear();
        self.at += 1;
    }
}

/// The index of the likeliest of several, of equals the first.
///
/// # Panics
/// If there are none.
#[must_use]
pub fn likeliest(estimates: &[Estimate]) -> usize {
    let value = |at: usize| estimates[at].log_likelihood;
    let best = |best, at| if value(at) > value(best) { at } else { best };
    let first = (0..estimates.len()).reduce(best);
    first.expect("there is something to choose from")
}

impl<M: MaskPredictor> Llada<M> {
    /// The tokens that this model can write values of JSON with; to be made once.
    ///
    /// # Errors
    /// [`StructuredError::Characters`] if the vocabulary lacks the quote or digits.
    pub fn json_vocabulary(&self) -> Result<JsonVocabulary> {
        JsonVocabulary::new(&self.tokenizer, &self.policy())
    }

    /// JSON that satisfies a schema, after the tokens of a prompt: all properties in their order,
    /// strings, numbers and choices by the model. [`Overrides::gen_length`] is the most tokens it
    /// takes; its strings share what the rest leaves. [`Overrides::steps`] are shared out likewise,
    /// `early_stop` and `suppress_mask` are not read.
    ///
    /// # Errors
    /// [`StructuredError`] for a schema that can't be guaranteed, with the place in it, or for which
    /// the vocabulary, the answer or the context is too small;
    /// [`llada_sample::Error::NotAutoregressive`].
    pub fn structured(
        &self,
        vocabulary: &Arc<JsonVocabulary>,
        prompt: Vec<u32>,
        schema: &Value,
        overrides: &Overrides,
    ) -> Result<Structured> {
        let (info, policy) = (self.info(), self.policy());
        if info.is_autoregressive() {
            let (request, what) = (0, "a JSON schema");
            return Err(llada_sample::Error::NotAutoregressive { request, what }.into());
        }
        if prompt.contains(&info.mask_token_id) {
            return Err(StructuredError::MaskedPrompt);
        }
        let usual = || policy.gen_length(prompt.len());
        let max_tokens = overrides.gen_length.unwrap_or_else(usual);
        let pieces = schema::pieces(schema, max_tokens)?;
        let mut slots = Vec::new();
        for piece in pieces {
            slots.push(self.slot(piece, vocabulary)?);
        }
        share_out(&mut slots, vocabulary, max_tokens)?;
        let lengths = slots.iter().map(Slot::length);
        let length = prompt.len() + lengths.sum::<usize>();
        if length > info.max_sequence_length {
            return Err(llada_sample::Error::TooLong {
                request: 0,
                length,
                max_sequence_length: info.max_sequence_length,
            }
            .into());
        }
        let is_free = |slot: &&Slot| matches!(slot, Slot::String { .. } | Slot::Number(_));
        Ok(Structured {
            n_masks: slots.iter().filter(is_free).map(Slot::length).sum(),
            vocabulary: Arc::clone(vocabulary),
            policy,
            overrides: overrides.clone(),
            slots,
            at: 0,
            number: String::new(),
            prompt_len: prompt.len(),
            ids: prompt,
            text: String::new(),
            nfe: 0,
            steps: 0,
        })
    }

    fn slot(&self, piece: Piece, vocabulary: &JsonVocabulary) -> Result<Slot> {
        let encode = |text: &str| vocabulary::encode(&self.tokenizer, text);
        Ok(match piece {
            Piece::Text(text) => Slot::Given {
                ids: encode(&text)?,
                text,
            },
            Piece::Choice(texts) => {
                let with_ids = |text: String| Ok((text.clone(), encode(&text)?));
                Slot::Choice(texts.into_iter().map(with_ids).collect::<Result<_>>()?)
            }
            Piece::String { min, max } => {
                let n_masks = min.max(1);
                Slot::String { min, max, n_masks }
            }
            Piece::Number(rule) => {
                vocabulary.check(&rule)?;
                Slot::Number(rule)
            }
        })
    }

    /// Writes JSON that satisfies a schema; see [`Self::structured`].
    ///
    /// # Errors
    /// As [`Self::structured`]; if the model fails.
    pub fn json<'a>(
        &self,
        prompt: impl Into<Prompt<'a>>,
        schema: &Value,
        overrides: &Overrides,
    ) -> Result<Structured> {
        let prompt = self.encode(&crate::Task::generate(prompt))?.ids;
        let vocabulary = Arc::new(self.json_vocabulary()?);
        let mut structured = self.structured(&vocabulary, prompt, schema, overrides)?;
        while let Some(stage) = structured.stage()? {
            structured.take(match stage {
                Stage::Score(mut scoring) => loop {
                    if let Some(estimates) = scoring.step(&self.model)? {
                        break StageResult::Scores(estimates);
                    }
                },
                Stage::Write(request) => {
                    let observer = &mut |_: &llada_sample::StepEvent<'_>| ControlFlow::Continue(());
                    StageResult::Written(self.sample(&[*request], observer)?.remove(0))
                }
            });
        }
        Ok(structured)
    }
}

/// Gives the strings what the rest leaves of an answer, a mask after the other in turns, up to the
/// masks of their greatest length.
fn share_out(slots: &mut [Slot], vocabulary: &JsonVocabulary, max_tokens: usize) -> Result<()> {
    let needed: usize = slots.iter().map(Slot::length).sum();
    let Some(mut rest) = max_tokens.checked_sub(needed) else {
        return Err(StructuredError::TooShort { needed, max_tokens });
    };
    let mut has_room = true;
    while has_room {
        has_room = false;
        for slot in &mut *slots {
            let Slot::String { max, n_masks, .. } = slot else {
                continue;
            };
            let most = max.map_or(usize::MAX, |max| vocabulary.masks_of(max));
            if rest > 0 && *n_masks < most {
                *n_masks += 1;
                rest -= 1;
                has_room = true;
            }
        }
    }
    Ok(())
}
