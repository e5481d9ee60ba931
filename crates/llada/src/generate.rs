//! Requests out of texts: what the command line does, for programs.

use std::borrow::Cow;
use std::ops::ControlFlow;

use llada_diffusion::{
    Estimate, LikelihoodConfig, MaskPredictor, PredictorInfo, ScoredSequence, Scoring,
    log_likelihood,
};
use llada_eval::Subject;
use llada_sample::{
    CacheMode, Ended, Observer, Output, Overrides, Policy, Request, Revealed, SampleConfig,
    Session, sample,
};

use llada_text::{Encoded, Unknown};

use crate::Llada;

/// Errors of generation and of scoring.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// A text can't be encoded or decoded.
    #[error(transparent)]
    Text(#[from] llada_text::Error),
    /// Nothing of a target is left to score.
    #[error(
        "the target {target:?} merges with the end of the prompt into one token, so that nothing of \
         it is left to score; end the prompt before the word that the target ends, or give ids"
    )]
    Merged {
        /// The target.
        target: String,
    },
    /// A request can't be run, or failed.
    #[error(transparent)]
    Sample(#[from] llada_sample::Error),
    /// The model failed.
    #[error(transparent)]
    Diffusion(#[from] llada_diffusion::Error),
}

type Result<T> = std::result::Result<T, GenerateError>;

/// A text, or its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt<'a> {
    /// A text: a whole document, or the beginning of one.
    Text(Cow<'a, str>),
    /// Token ids, used as they are.
    Ids(Cow<'a, [u32]>),
}

impl<'a> From<&'a str> for Prompt<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Prompt<'_> {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl<'a> From<&'a [u32]> for Prompt<'a> {
    fn from(ids: &'a [u32]) -> Self {
        Self::Ids(ids.into())
    }
}

impl From<Vec<u32>> for Prompt<'_> {
    fn from(ids: Vec<u32>) -> Self {
        Self::Ids(ids.into())
    }
}

/// What to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task<'a> {
    prompt: Prompt<'a>,
    is_infill: bool,
    is_strict: bool,
    mark: Option<&'a str>,
    constraints: &'a [(usize, String)],
}

impl<'a> Task<'a> {
    /// An answer to a prompt, or the rest of a text.
    pub fn generate(prompt: impl Into<Prompt<'a>>) -> Self {
        Self {
            prompt: prompt.into(),
            is_infill: false,
            is_strict: false,
            mark: None,
            constraints: &[],
        }
    }

    /// The holes of a text: every □ and every mask token written out, or in a text that has neither
    /// every `_`.
    pub fn infill(text: impl Into<Prompt<'a>>) -> Self {
        Self {
            is_infill: true,
            ..Self::generate(text)
        }
    }

    /// Takes `mark` for the holes of an infill, and nothing else.
    #[must_use]
    pub fn marked(self, mark: Option<&'a str>) -> Self {
        Self { mark, ..self }
    }

    /// Refuses a text with characters that the vocabulary lacks. Otherwise they are given to the
    /// model as unknown, and stay in the text.
    #[must_use]
    pub fn strict(self, is_strict: bool) -> Self {
        Self { is_strict, ..self }
    }

    /// Fixes words of an answer: offsets from its start, in tokens, and texts. A word is encoded as
    /// after a space, as in the reference's demo; a character vocabulary has no words. An infill
    /// has its words in its text, and does not read these.
    #[must_use]
    pub fn constrained(self, constraints: &'a [(usize, String)]) -> Self {
        Self {
            constraints,
            ..self
        }
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The answer up to its EOS; of an infill the text.
    pub text: String,
    /// The same after its prompt.
    pub whole_text: String,
    /// Tokens, and what they took.
    pub output: Output,
}

/// How likely a text is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Its log-likelihood in nats, a lower bound for a masked diffusion model.
    pub estimate: Estimate,
    /// Whether greedy decoding, a token a pass, writes this text.
    pub is_greedy: bool,
}

impl<M: MaskPredictor> Llada<M> {
    /// What the model is, its vocabulary and its context.
    pub fn info(&self) -> PredictorInfo {
        self.model.info()
    }

    /// What a request of this model is by default.
    pub fn policy(&self) -> Policy {
        let unk_token_id = self.tokenizer.unk_token_id();
        Policy {
            further_eos_token_ids: self.further_eos_token_ids.clone(),
            unk_token_id,
            eot_token_id: self.tokenizer.token_to_id("<|eot_id|>"),
            whole_documents: self.whole_documents,
            answer_length: self.answer_length,
            protocol: self.protocol,
            ..Policy::new(self.info())
        }
    }

    /// The model as evaluations see it.
    pub fn subject(&self) -> Subject<'_> {
        Subject::new(&self.model, &self.tokenizer, self.policy())
    }

    /// The request of a task, as the command line makes it: for [`Self::generate`] and
    /// [`Self::infill`], for a [`Session`], or to be changed.
    ///
    /// # Errors
    /// [`GenerateError::Text`] for a character outside the vocabulary,
    /// [`llada_sample::Error::NotAutoregressive`] for what only a masked diffusion model can do. The
    /// rest is checked when the request is submitted.
    pub fn request(&self, task: &Task<'_>, overrides: &Overrides) -> Result<Request> {
        let info = self.info();
        // Before its text is looked at: an autoregressive model can fill in none.
        if task.is_infill && info.is_autoregressive() {
            let (request, what) = (0, "infill");
            return Err(llada_sample::Error::NotAutoregressive { request, what }.into());
        }
        let is_document = matches!(task.prompt, Prompt::Text(_));
        let ids = self.encode(task)?.ids;
        let policy = self.policy();
        let space = if policy.whole_documents { "" } else { " " };
        let mut constraints = Vec::new();
        for (offset, word) in task.constraints {
            let ids = self.tokenizer.encode_strict(&format!("{space}{word}"))?;
            let places = (0..).map(|i| offset.saturating_add(i));
            constraints.extend(places.zip(ids));
        }
        let (prompt, suffix) = (ids, Vec::new());
        let task = match task.is_infill {
            true => llada_sample::Task::Infill {
                canvas: prompt,
                suffix,
            },
            false => llada_sample::Task::Generate {
                prompt,
                suffix,
                constraints,
            },
        };
        Ok(policy.request(task, is_document, overrides)?)
    }

    /// The ids of a task's text, and what of it the vocabulary lacks.
    ///
    /// # Errors
    /// [`GenerateError::Text`] if the vocabulary lacks all of it, or anything of a strict task.
    pub fn encode(&self, task: &Task<'_>) -> Result<Encoded> {
        let mask = self.info().mask_token_id;
        let text = match &task.prompt {
            Prompt::Ids(ids) => {
                let (ids, unknown) = (ids.to_vec(), Vec::new());
                return Ok(Encoded { ids, unknown });
            }
            Prompt::Text(text) => text,
        };
        let encoded = match task.is_infill {
            true => self.tokenizer.encode_with_masks(text, mask, task.mark)?,
            false => self.tokenizer.encode_keeping(text)?,
        };
        if task.is_strict {
            let ids = encoded.strict()?;
            let unknown = Vec::new();
            return Ok(Encoded { ids, unknown });
        }
        Ok(encoded.check()?)
    }

    /// Completes a prompt.
    ///
    /// # Errors
    /// As [`Self::request`] and [`sample`].
    pub fn generate<'a>(
        &self,
        prompt: impl Into<Prompt<'a>>,
        overrides: &Overrides,
    ) -> Result<Answer> {
        self.run(&Task::generate(prompt), overrides)
    }

    /// Fills the holes of a text and keeps the rest.
    ///
    /// # Errors
    /// As [`Self::request`] and [`sample`].
    pub fn infill<'a>(&self, text: impl Into<Prompt<'a>>, overrides: &Overrides) -> Result<Answer> {
        self.run(&Task::infill(text), overrides)
    }

    fn run(&self, task: &Task<'_>, overrides: &Overrides) -> Result<Answer> {
        let request = self.request(task, overrides)?;
        let mut outputs = self.sample(&[request], &mut |_| ControlFlow::Continue(()))?;
        self.answer(task, outputs.remove(0))
    }

    /// Runs requests, see [`sample`].
    ///
    /// # Errors
    /// As [`sample`].
    pub fn sample(
        &self,
        requests: &[Request],
        observer: &mut Observer<'_>,
    ) -> llada_sample::Result<Vec<Output>> {
        sample(&self.model, requests, observer)
    }

    /// A session of this model: requests that join and leave while it writes.
    pub fn session(&self) -> Session<'_> {
        Session::new(&self.model)
    }

    /// Writes step by step.
    ///
    /// # Errors
    /// As [`Self::request`]; if the request can't be run.
    pub fn stream<'a>(&'a self, task: &Task<'a>, overrides: &Overrides) -> Result<Stream<'a, M>> {
        let mut session = self.session();
        session.submit(self.request(task, overrides)?)?;
        Ok(Stream {
            llada: self,
            session,
            task: task.clone(),
            answer: None,
        })
    }

    /// The text of what was written for a task; characters of its text that the vocabulary lacks
    /// stay.
    ///
    /// # Errors
    /// If the tokenizer rejects the tokens.
    pub fn answer(&self, task: &Task<'_>, output: Output) -> Result<Answer> {
        let answer = self.up_to_end(output.answer(), output.is_infill);
        let whole = &output.tokens[..output.prompt_len + answer.len()];
        let unknown = self.encode(task)?.unknown;
        let whole_text = self.text(whole, &unknown)?;
        let text = match output.is_infill {
            true => whole_text.clone(),
            false => self.tokenizer.decode(answer, true)?,
        };
        Ok(Answer {
            text,
            whole_text,
            output,
        })
    }

    /// The text of tokens of which some stand for what the vocabulary lacks.
    ///
    /// # Errors
    /// If the tokenizer rejects the tokens.
    pub fn text(&self, tokens: &[u32], unknown: &[Unknown]) -> Result<String> {
        let (mut text, mut start) = (String::new(), 0);
        for unknown in unknown.iter().filter(|unknown| unknown.at < tokens.len()) {
            text.push_str(&self.tokenizer.decode(&tokens[start..unknown.at], true)?);
            text.push_str(&unknown.text);
            start = unknown.at + 1;
        }
        Ok(text + &self.tokenizer.decode(&tokens[start..], true)?)
    }

    /// The text of a canvas, with □ for masks.
    pub fn canvas_text(&self, canvas: &[u32]) -> String {
        let mask = self.info().mask_token_id;
        let stretches = canvas.chunk_by(|a, b| (*a == mask) == (*b == mask));
        let text = |ids: &[u32]| match ids[0] == mask {
            true => "□".repeat(ids.len()),
            false => self.tokenizer.decode(ids, true).unwrap_or_default(),
        };
        stretches.map(text).collect()
    }

    /// The text of the settled beginning of an answer (of an infill the text): the answer begins
    /// with it. The beginning of a character that is not whole yet is left out.
    pub fn settled_text(&self, settled: &[u32], is_infill: bool) -> String {
        let settled = self.up_to_end(settled, is_infill);
        let text = self.tokenizer.decode(settled, true).unwrap_or_default();
        let whole = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
        whole.to_owned()
    }

    /// The tokens of an answer before its EOS. One in an infill was given, and ends nothing.
    pub fn up_to_end<'t>(&self, answer: &'t [u32], is_infill: bool) -> &'t [u32] {
        let policy = self.policy();
        let is_end = |id: &u32| !is_infill && policy.ends().any(|end| end == *id);
        let end = answer.iter().position(is_end);
        &answer[..end.unwrap_or(answer.len())]
    }

    /// The tokens of a prompt and of the text after it. Two texts are encoded as one, as in the
    /// reference: tokens may not end where the prompt does. After a text comes its EOS, if the model
    /// was trained to see one and the context has room for it.
    ///
    /// # Errors
    /// [`GenerateError::Text`] for a character outside the vocabulary.
    pub fn encode_pair(
        &self,
        prompt: &Prompt<'_>,
        target: &Prompt<'_>,
    ) -> Result<(Vec<u32>, Vec<u32>)> {
        let ids = |prompt: &Prompt<'_>| -> Result<Vec<u32>> {
            match prompt {
                Prompt::Ids(ids) => Ok(ids.to_vec()),
                Prompt::Text(text) => Ok(self.tokenizer.encode_keeping(text)?.check()?.ids),
            }
        };
        let (mut prompt_ids, mut target_ids) = (ids(prompt)?, ids(target)?);
        if let (Prompt::Text(prompt), Prompt::Text(target)) = (prompt, target) {
            let is_empty = target_ids.is_empty();
            (prompt_ids, target_ids) = self.tokenizer.encode_pair(prompt, target)?;
            if target_ids.is_empty() && !is_empty {
                return Err(GenerateError::Merged {
                    target: target.to_string(),
                });
            }
        }
        if matches!(target, Prompt::Text(_)) && !target_ids.is_empty() {
            let length = prompt_ids.len() + target_ids.len();
            target_ids.extend(self.policy().end_of_document(length));
        }
        Ok((prompt_ids, target_ids))
    }

    /// Likelihoods of several targets after one prompt, a call of the model at a time; see
    /// [`Self::encode_pair`].
    ///
    /// # Errors
    /// As [`Self::encode_pair`] and [`Scoring::new`].
    pub fn scoring(
        &self,
        prompt: &Prompt<'_>,
        targets: &[Prompt<'_>],
        config: &LikelihoodConfig,
    ) -> Result<Scoring> {
        let mut texts = Vec::new();
        for target in targets {
            let (prompt, target) = self.encode_pair(prompt, target)?;
            texts.push(([&prompt[..], &target].concat(), prompt.len()));
        }
        let sequences: Vec<ScoredSequence<'_>> = (texts.iter())
            .map(|(tokens, prompt_len)| ScoredSequence {
                tokens,
                prompt_len: *prompt_len,
            })
            .collect();
        Ok(Scoring::new(&sequences, config, &self.info())?)
    }

    /// How likely a text is after a prompt; see [`log_likelihood`]. Where this must not hold up
    /// other work, its parts are [`Self::encode_pair`], [`Self::scoring`] and
    /// [`Self::greedy_request`].
    ///
    /// # Errors
    /// As [`Self::encode_pair`] and [`log_likelihood`].
    pub fn score<'a>(
        &self,
        prompt: impl Into<Prompt<'a>>,
        target: impl Into<Prompt<'a>>,
        config: &LikelihoodConfig,
    ) -> Result<Score> {
        let (prompt, target) = self.encode_pair(&prompt.into(), &target.into())?;
        let tokens = [&prompt[..], &target].concat();
        let sequence = ScoredSequence {
            tokens: &tokens,
            prompt_len: prompt.len(),
        };
        let estimate = log_likelihood(&self.model, &[sequence], config)?[0];
        let request = self.greedy_request(prompt, target.len(), config.cfg_scale);
        let outputs = self.sample(&[request], &mut |_| ControlFlow::Continue(()))?;
        Ok(Score {
            estimate,
            is_greedy: outputs[0].answer() == target,
        })
    }

    /// The request whose answer says whether greedy decoding, a token a pass, writes a target of
    /// `length` tokens ([`Score::is_greedy`]). No token is suppressed.
    ///
    /// Source: `suffix_greedy_prediction` of the reference's `eval_llada.py`.
    pub fn greedy_request(&self, prompt: Vec<u32>, length: usize, cfg_scale: f32) -> Request {
        let greedy = SampleConfig {
            steps: length,
            gen_length: length,
            block_length: None,
            cfg_scale,
            cache: match self.info().is_autoregressive() {
                true => CacheMode::Prefix,
                false => CacheMode::None,
            },
            ..SampleConfig::default()
        };
        Request::generate(prompt, greedy)
    }
}

/// A step of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Which one, from 0.
    pub step: usize,
    /// All steps, see [`llada_sample::StepEvent::steps`].
    pub steps: usize,
    /// The text after this step, with □ for masks.
    pub text: String,
    /// The part of the answer (of an infill the text) before its first mask, without the beginning
    /// of a character that is not whole yet: the answer begins with it.
    pub settled: String,
    /// Tokens that this step has revealed.
    pub revealed: Vec<Revealed>,
    /// Tokens after this step.
    pub canvas: Vec<u32>,
}

/// The steps of one request, and at last its answer.
#[derive(Debug)]
pub struct Stream<'a, M> {
    llada: &'a Llada<M>,
    session: Session<'a>,
    task: Task<'a>,
    answer: Option<Answer>,
}

impl<M> Stream<'_, M> {
    /// What was written, once the steps have come to their end.
    #[must_use]
    pub fn into_answer(self) -> Option<Answer> {
        self.answer
    }
}

impl<M: MaskPredictor> Iterator for Stream<'_, M> {
    type Item = Result<Step>;

    fn next(&mut self) -> Option<Result<Step>> {
        let (llada, is_infill, mut step) = (self.llada, self.task.is_infill, None);
        let ended = self.session.step(&mut |event| {
            let settled = &event.canvas[event.settled.clone()];
            step = Some(Step {
                step: event.step,
                steps: event.steps,
                text: llada.canvas_text(event.canvas),
                settled: llada.settled_text(settled, is_infill),
                revealed: event.revealed.to_vec(),
                canvas: event.canvas.to_vec(),
            });
            ControlFlow::Continue(())
        });
        for Ended { result, .. } in ended {
            match result
                .map_err(GenerateError::from)
                .and_then(|output| llada.answer(&self.task, output))
            {
                Ok(answer) => self.answer = Some(answer),
                Err(error) => return Some(Err(error)),
            }
        }
        step.map(Ok)
    }
}
