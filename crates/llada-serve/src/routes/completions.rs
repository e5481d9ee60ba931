//! `POST /v1/completions`.

use std::time::Instant;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use llada::diffusion::{Estimator, LikelihoodConfig, ScoredSequence, Scoring};
use llada::sample::{Request, Task as TokenTask};
use llada::text::Unknown;
use llada::{Overrides, Task};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::logprobs::{Logprobs, PromptScores, logprobs};
use super::{
    StreamMode, StreamOptions, Texts, Usage, includes_usage, one_length, only_neutral, stops,
};
use crate::app::Context;
use crate::body::Body;
use crate::engine::Event;
use crate::error::{ApiError, Result};
use crate::model::{Model, find};
use crate::parts::Parts;
use crate::progress::{Progress, Written};
use crate::queue::{Client, Ticket};
use crate::sampler::request_body;
use crate::stream::{Form, Stream, Streamed};
use crate::structured::{Job, Wanted};

/// What is to be completed.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected a text, a list of texts, a list of token ids, or a list of such lists"
)]
pub(crate) enum Prompts {
    Text(String),
    Texts(Vec<String>),
    Ids(Vec<u32>),
    ManyIds(Vec<Vec<u32>>),
}

request_body! {
    /// A completion of OpenAI's interface, with the settings of the sampler.
    CompletionRequest {
        /// The first model of `/v1/models` if not given.
        model: Option<String>,
        /// A text, texts, token ids, or lists of them. A mask token written out is text.
        prompt: Prompts,
        /// A text that follows the answer, which is written to fit before it.
        suffix: Option<String>,
        /// Tokens of the answer: the size of the canvas that is filled.
        max_tokens: Option<usize>,
        /// Samples of each prompt, with the seeds `seed`, `seed + 1`, ..
        #[schema(minimum = 1)]
        n: Option<usize>,
        /// The answer ends before the first of these texts.
        stop: Option<Texts>,
        /// Server-sent events.
        stream: Option<bool>,
        stream_options: Option<StreamOptions>,
        /// What a stream tells besides its text.
        stream_mode: Option<StreamMode>,
        /// The prompt before the answer. With `logprobs` the prompt is scored too, by the chain
        /// rule from left to right.
        echo: Option<bool>,
        /// Log-probabilities of the tokens, with so many likeliest tokens in the place of each. For
        /// tokens of the answer 0 or 1: the probability that it had when it was revealed.
        #[schema(maximum = 20)]
        logprobs: Option<usize>,
        /// The answer is one of these texts: the likeliest, by the chain rule.
        guided_choice: Option<Vec<String>>,
        /// `{"type": "json_schema", ..}`: an answer in JSON.
        response_format: Option<Value>,
        /// As `n`, or left out.
        best_of: Option<usize>,
        /// 0, or left out.
        frequency_penalty: Option<Value>,
        /// 0, or left out.
        presence_penalty: Option<Value>,
        /// Empty, or left out.
        logit_bias: Option<Value>,
        /// Not used.
        user: Option<String>,
    }
}

/// An answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CompletionChoice {
    index: usize,
    text: String,
    logprobs: Option<Logprobs>,
    /// `stop` at an EOS or a stop text, `length` where the canvas is full.
    finish_reason: &'static str,
}

/// What it took.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Cost {
    /// Forward passes, of all sequences.
    pub(crate) nfe: usize,
    /// Steps, of all sequences.
    pub(crate) steps: usize,
    /// Positions that the passes have computed.
    pub(crate) rows: usize,
    /// From the request to the answer.
    pub(crate) seconds: f64,
    /// What of the texts the vocabulary lacks: the model took it as unknown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) unknown: Vec<String>,
}

impl Cost {
    pub(crate) fn add(&mut self, output: &llada::sample::Output) {
        self.nfe += output.nfe;
        self.steps += output.steps;
        self.rows += output.rows;
    }
}

/// Answers to prompts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CompletionResponse {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    choices: Vec<CompletionChoice>,
    usage: Usage,
    llada: Cost,
}

/// A prompt as the model is shown it.
#[derive(Debug)]
struct Prompt {
    request: Request,
    ids: Vec<u32>,
    /// What the client wrote.
    text: String,
    unknown: Vec<Unknown>,
}

impl CompletionRequest {
    /// What does not depend on the model.
    fn check(&self) -> Result<()> {
        let n = self.n.unwrap_or(1);
        only_neutral(&[
            ("frequency_penalty", &self.frequency_penalty, &[json!(0)]),
            ("presence_penalty", &self.presence_penalty, &[json!(0)]),
            ("logit_bias", &self.logit_bias, &[json!({})]),
        ])?;
        let _ = &self.user;
        if n == 0 {
            return Err(ApiError::field("n", "n must be at least 1"));
        }
        if self.best_of.is_some_and(|best_of| best_of != n) {
            let message = "best_of: this server gives all samples that it writes; leave it out";
            return Err(ApiError::unsupported("best_of", message));
        }
        let has_echo = self.echo.unwrap_or(false);
        let is_stream = self.stream.unwrap_or(false);
        let logprobs = self.logprobs.unwrap_or(0);
        if logprobs > 20 {
            return Err(ApiError::field("logprobs", "logprobs must be at most 20"));
        }
        if self.logprobs.is_some() && is_stream {
            let message = "logprobs: not in a stream, where tokens settle in another order than \
                           they are revealed; leave out stream";
            return Err(ApiError::unsupported("logprobs", message));
        }
        if logprobs > 1 && !has_echo {
            let message = "logprobs: of the tokens of an answer, the likeliest alone is known; \
                           give 0 or 1, or echo to score the prompt";
            return Err(ApiError::unsupported("logprobs", message));
        }
        if has_echo && self.suffix.is_some() {
            let message = "echo cannot be used with suffix";
            return Err(ApiError::field("echo", message));
        }
        Ok(())
    }

    /// The form that is asked for.
    fn wanted(&self) -> Result<Option<Wanted>> {
        let wanted = Wanted::of(self.response_format.as_ref(), self.guided_choice.as_ref())?;
        if let Some(wanted) = &wanted {
            wanted.refuse(&[
                ("n", self.n.unwrap_or(1) > 1),
                ("stop", self.stop.is_some()),
                ("suffix", self.suffix.is_some()),
                ("echo", self.echo.unwrap_or(false)),
                ("logprobs", self.logprobs.is_some()),
                ("stream_mode", self.stream_mode == Some(StreamMode::Denoise)),
            ])?;
        }
        Ok(wanted)
    }

    /// The only prompt, where the form of the answer is given.
    fn one_prompt(&self) -> Result<llada::Prompt<'static>> {
        let mut prompts = self.prompts();
        match (prompts.pop(), prompts.is_empty()) {
            (Some(prompt), true) => Ok(prompt),
            _ => Err(ApiError::unsupported(
                "prompt",
                "prompt: one at a time where the form of the answer is given",
            )),
        }
    }

    fn length(&self) -> Result<Option<usize>> {
        one_length(&[
            ("max_tokens", self.max_tokens),
            ("gen_length", self.gen_length),
        ])
    }

    fn prompts(&self) -> Vec<llada::Prompt<'static>> {
        match self.prompt.clone() {
            Prompts::Text(text) => vec![text.into()],
            Prompts::Texts(texts) => texts.into_iter().map(Into::into).collect(),
            Prompts::Ids(ids) => vec![ids.into()],
            Prompts::ManyIds(lists) => lists.into_iter().map(Into::into).collect(),
        }
    }
}

/// Completes prompts.
#[utoipa::path(post, path = "/v1/completions", request_body = CompletionRequest,
    responses((status = 200, description = "With `stream`: server-sent events",
        body = CompletionResponse), crate::openapi::Errors))]
pub(crate) async fn create(
    State(app): State<Context>,
    Extension(client): Extension<Client>,
    Body(body): Body<CompletionRequest>,
) -> Result<Response> {
    let since = Instant::now();
    body.check()?;
    let ticket = Ticket::new(&client, body.order(), &app.config.limits)?;
    let at = find(&app.models, body.model.as_deref())?;
    let stops = stops(body.stop.as_ref())?;
    let n = body.n.unwrap_or(1);
    let mut sampler = body.sampler();
    sampler.gen_length = body.length()?;
    // A prompt alone may be scored.
    let is_scored = body.echo.unwrap_or(false) && body.logprobs.is_some();
    let writes = sampler.gen_length != Some(0) || !body.echo.unwrap_or(false);
    if !writes {
        sampler.gen_length = None;
    }
    let overrides = sampler.overrides(&app.models[at])?;
    let (given, suffix) = (body.prompts(), body.suffix.clone());
    let context = Context::clone(&app);
    if let Some(wanted) = body.wanted()? {
        let job = Job {
            prompt: body.one_prompt()?,
            app,
            model: at,
            ticket,
            wanted,
            overrides,
            form: Form::Completion,
            since,
            includes_usage: includes_usage(body.stream_options),
        };
        return job.answer(body.stream.unwrap_or(false)).await;
    }
    let prompts = crate::off_thread(move || {
        let model = &context.models[at];
        let prompts = given.into_iter().enumerate();
        let prompts = prompts.map(|(i, prompt)| {
            encode(model, prompt, suffix.as_deref(), &overrides).map_err(|error| error.in_list(i))
        });
        prompts.collect::<Result<Vec<Prompt>>>()
    })
    .await?;
    if prompts.is_empty() {
        return Err(ApiError::field("prompt", "prompt: the list is empty"));
    }
    let mut parts = Parts::new(&app, at, ticket);
    if writes {
        for prompt in &prompts {
            for sample in 0..n {
                let mut request = prompt.request.clone();
                let seed = request.config.seed;
                request.config.seed = seed.wrapping_add(sample as u64);
                parts.write(request)?;
            }
        }
    }
    let work = Completion {
        app,
        model: at,
        n,
        prompts,
        stops,
        writes,
        logprobs: body.logprobs,
        has_echo: body.echo.unwrap_or(false),
        since,
    };
    if body.stream.unwrap_or(false) {
        let events = parts.submit(false)?;
        return Ok(work.stream(events, &body));
    }
    let scored = if is_scored {
        work.score(&mut parts)?
    } else {
        0
    };
    let response = work.answer(parts, scored).await?;
    Ok(Json(response).into_response())
}

/// The request of one prompt.
fn encode(
    model: &Model,
    prompt: llada::Prompt<'static>,
    suffix: Option<&str>,
    overrides: &Overrides,
) -> Result<Prompt> {
    let llada = &model.llada;
    let (is_document, text) = match &prompt {
        llada::Prompt::Text(text) => (true, text.to_string()),
        llada::Prompt::Ids(ids) => {
            let limit = llada.info().vocab_size;
            if let Some(id) = ids.iter().find(|&&id| id as usize >= limit) {
                let message = format!("token id {id}: the vocabulary ends at {}", limit - 1);
                return Err(ApiError::field("prompt", message));
            }
            let text = llada.tokenizer.decode(ids, true);
            (
                false,
                text.map_err(|error| ApiError::field("prompt", error.to_string()))?,
            )
        }
    };
    let is_empty = match &prompt {
        llada::Prompt::Text(text) => text.is_empty(),
        llada::Prompt::Ids(ids) => ids.is_empty(),
    };
    if is_empty {
        let message = "the prompt is empty: give at least one token";
        return Err(ApiError::field("prompt", message));
    }
    let encoded = llada.encode(&Task::generate(prompt))?;
    let suffix = match suffix {
        None | Some("") => Vec::new(),
        Some(suffix) => {
            let encoded = llada.encode(&Task::generate(suffix));
            encoded
                .map_err(|error| ApiError::from(error).with_param("suffix"))?
                .ids
        }
    };
    let task = TokenTask::Generate {
        prompt: encoded.ids.clone(),
        suffix,
        constraints: Vec::new(),
    };
    Ok(Prompt {
        request: llada.policy().request(task, is_document, overrides)?,
        ids: encoded.ids,
        text,
        unknown: encoded.unknown,
    })
}

/// A request that was understood.
#[derive(Debug)]
struct Completion {
    app: Context,
    model: usize,
    /// Samples of each prompt.
    n: usize,
    prompts: Vec<Prompt>,
    stops: Vec<String>,
    writes: bool,
    logprobs: Option<usize>,
    has_echo: bool,
    since: Instant,
}

impl Completion {
    fn model(&self) -> &Model {
        &self.app.models[self.model]
    }

    /// Adds the likelihoods of the prompts, and returns how many parts that are.
    fn score(&self, parts: &mut Parts) -> Result<usize> {
        let info = self.model().info();
        let config = LikelihoodConfig {
            estimator: Estimator::Chain,
            max_batch_tokens: self.app.config.limits.max_batch_tokens,
            ..LikelihoodConfig::default()
        };
        for prompt in &self.prompts {
            if prompt.ids.len() > info.max_sequence_length {
                let message = format!(
                    "a prompt of {} tokens exceeds the context of {}",
                    prompt.ids.len(),
                    info.max_sequence_length
                );
                return Err(ApiError::field("prompt", message));
            }
            // A single token has none before it to be scored after.
            if prompt.ids.len() < 2 {
                continue;
            }
            let sequence = ScoredSequence {
                tokens: &prompt.ids,
                prompt_len: 1,
            };
            let scoring = Scoring::new(&[sequence], &config, &info)?;
            // The likeliest token is needed where greedy decoding is asked for.
            let scoring = scoring.with_top(self.logprobs.unwrap_or(0).max(1))?;
            let call = config.max_batch_tokens.max(prompt.ids.len());
            let n_logits = match info.is_autoregressive() {
                true => prompt.ids.len(),
                false => call / prompt.ids.len() + 1,
            };
            parts.score(scoring, call, n_logits);
        }
        Ok(self
            .prompts
            .iter()
            .filter(|prompt| prompt.ids.len() > 1)
            .count())
    }

    /// The whole answer.
    async fn answer(&self, parts: Parts, n_scored: usize) -> Result<CompletionResponse> {
        let n_written = if self.writes {
            self.prompts.len() * self.n
        } else {
            0
        };
        let mut events = parts.submit(false)?;
        let new = || Progress::new(&self.app, self.model, self.stops.clone(), false);
        let mut progress: Vec<Progress> = (0..n_written).map(|_| new()).collect();
        let mut written: Vec<Option<Written>> = (0..n_written).map(|_| None).collect();
        let mut scores: Vec<PromptScores> = vec![Vec::new(); n_scored];
        let mut open = n_written + n_scored;
        while open > 0 {
            match events.next().await? {
                (at, Event::Begun { canvas, .. }) => progress[at].begin(canvas),
                (at, Event::Step(step)) => {
                    progress[at].step(&step);
                    if progress[at].is_stopped() {
                        events.stop(at);
                    }
                }
                (at, Event::Written(output)) => {
                    written[at] = Some(progress[at].finish(*output)?);
                    open -= 1;
                }
                (at, Event::Scored(_, scoring)) => {
                    let found = scoring.token_scores(0);
                    let found = found.map(|score| (score.log_probability, score.top.clone()));
                    scores[at - n_written] = found.collect();
                    open -= 1;
                }
                (_, Event::Failed(error)) => return Err(error),
            }
        }
        Ok(self.response(&written, &scores))
    }

    fn response(&self, written: &[Option<Written>], scores: &[PromptScores]) -> CompletionResponse {
        let mut cost = self.cost();
        let (mut choices, mut completion_tokens) = (Vec::new(), 0);
        let mut scores = scores.iter();
        for (at, prompt) in self.prompts.iter().enumerate() {
            let none = PromptScores::new();
            let score = match prompt.ids.len() > 1 {
                true => scores.next().unwrap_or(&none),
                false => &none,
            };
            for sample in 0..self.n {
                let index = at * self.n + sample;
                let written = written.get(index).and_then(Option::as_ref);
                if let Some(written) = written {
                    cost.add(&written.output);
                    completion_tokens += written.completion_tokens;
                }
                let text = written.map_or("", |written| &written.parts.content);
                choices.push(CompletionChoice {
                    index,
                    text: match self.has_echo {
                        true => format!("{}{text}", prompt.text),
                        false => text.to_owned(),
                    },
                    logprobs: self.logprobs.map(|n| {
                        let echo = self.has_echo.then_some((&prompt.ids[..], score));
                        logprobs(self.model(), n, echo, written)
                    }),
                    finish_reason: written.map_or("length", |written| written.finish_reason),
                });
            }
        }
        let prompt_tokens = self.prompt_tokens();
        CompletionResponse {
            id: self.app.new_id("cmpl"),
            object: "text_completion",
            created: self.app.now(),
            model: self.model().id.clone(),
            choices,
            usage: Usage::new(prompt_tokens, completion_tokens),
            llada: cost,
        }
    }

    fn prompt_tokens(&self) -> usize {
        self.prompts.iter().map(|prompt| prompt.ids.len()).sum()
    }

    fn cost(&self) -> Cost {
        let unknown = self.prompts.iter().flat_map(|prompt| &prompt.unknown);
        let mut unknown: Vec<String> = unknown.map(|unknown| unknown.text.clone()).collect();
        unknown.sort_unstable();
        unknown.dedup();
        Cost {
            seconds: self.since.elapsed().as_secs_f64(),
            unknown,
            ..Cost::default()
        }
    }

    fn stream(self, events: crate::parts::Events, body: &CompletionRequest) -> Response {
        let echo = |prompt: &Prompt| match self.has_echo {
            true => prompt.text.clone(),
            false => String::new(),
        };
        let n = self.n;
        let before = self.prompts.iter().flat_map(|prompt| vec![echo(prompt); n]);
        let streamed = Streamed {
            id: self.app.new_id("cmpl"),
            created: self.app.now(),
            form: Form::Completion,
            prompt_tokens: self.prompt_tokens(),
            before: before.collect(),
            is_infill: false,
            reasoning: None,
            includes_usage: includes_usage(body.stream_options),
            mode: body.stream_mode.unwrap_or_default(),
            stops: self.stops.clone(),
            cost: self.cost(),
            since: self.since,
        };
        Stream::new(&self.app, self.model, streamed, events).response()
    }
}
