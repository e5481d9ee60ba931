//! Answers of a guaranteed form: one of several texts, or JSON that satisfies a schema. The method
//! is that of [`llada::Structured`]; here its stages go through the engine's queue, so that other
//! requests are worked on in between.

use std::time::Instant;

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use llada::diffusion::{Estimate, Estimator, LikelihoodConfig, ScoredSequence, Scoring};
use llada::{Overrides, Prompt};
use llada::{Stage, StageResult, Structured, StructuredError, likeliest};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use crate::app::Context;
use crate::engine::Event;
use crate::error::{ApiError, Result};
use crate::model::Model;
use crate::parts::Parts;
use crate::queue::Ticket;
use crate::routes::Usage;
use crate::routes::completions::Cost;
use crate::stream::{Chunks, Form};

/// The form that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wanted {
    /// One of these texts.
    Choice(Vec<String>),
    /// JSON of this schema.
    Schema(Value),
}

impl Wanted {
    /// What the two fields ask for, if they ask for anything.
    pub(crate) fn of(
        response_format: Option<&Value>,
        guided_choice: Option<&Vec<String>>,
    ) -> Result<Option<Self>> {
        let schema = match response_format {
            None | Some(Value::Null) => None,
            Some(format) => schema(format)?,
        };
        match (schema, guided_choice) {
            (Some(_), Some(_)) => {
                let message = "guided_choice cannot be used with response_format";
                Err(ApiError::field("guided_choice", message))
            }
            (Some(schema), None) => Ok(Some(Self::Schema(schema))),
            (None, Some(texts)) => {
                if texts.is_empty() || texts.iter().any(String::is_empty) {
                    let message = "guided_choice: give at least one text, and no empty one";
                    return Err(ApiError::field("guided_choice", message));
                }
                Ok(Some(Self::Choice(texts.clone())))
            }
            (None, None) => Ok(None),
        }
    }

    fn field(&self) -> &'static str {
        match self {
            Self::Choice(_) => "guided_choice",
            Self::Schema(_) => "response_format",
        }
    }

    /// Refuses settings that mean nothing for an answer of a guaranteed form.
    pub(crate) fn refuse(&self, fields: &[(&str, bool)]) -> Result<()> {
        match fields.iter().find(|(_, is_set)| *is_set) {
            Some((name, _)) => {
                let message = format!("{name} cannot be used with {}", self.field());
                Err(ApiError::unsupported(*name, message))
            }
            None => Ok(()),
        }
    }
}

/// The schema of a `response_format`, if it asks for one.
fn schema(format: &Value) -> Result<Option<Value>> {
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(None),
        Some("json_schema") => match format.pointer("/json_schema/schema") {
            Some(schema) => Ok(Some(schema.clone())),
            None => {
                let field = "response_format.json_schema.schema";
                Err(ApiError::field(field, format!("{field} is missing")))
            }
        },
        Some("json_object") => Err(ApiError::unsupported(
            "response_format.type",
            "response_format.type: json_object is not supported, since nothing says which keys the \
             object has; give a json_schema, which is guaranteed to be satisfied",
        )),
        _ => Err(ApiError::field(
            "response_format.type",
            "response_format.type must be text or json_schema",
        )),
    }
}

/// A request for an answer of a guaranteed form.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) app: Context,
    pub(crate) model: usize,
    pub(crate) ticket: Ticket,
    pub(crate) wanted: Wanted,
    pub(crate) prompt: Prompt<'static>,
    pub(crate) overrides: Overrides,
    pub(crate) form: Form,
    pub(crate) since: Instant,
    pub(crate) includes_usage: bool,
}

/// What came out.
#[derive(Debug)]
struct Done {
    text: String,
    prompt_tokens: usize,
    completion_tokens: usize,
    nfe: usize,
    steps: usize,
    /// What of the prompt the vocabulary lacks.
    unknown: Vec<String>,
    /// `ln p` of every choice, in nats.
    choices: Option<Vec<f64>>,
}

impl Job {
    fn model(&self) -> &Model {
        &self.app.models[self.model]
    }

    /// The answer, whole or as a stream.
    pub(crate) async fn answer(self, is_stream: bool) -> Result<Response> {
        if !is_stream {
            let mut whole = String::new();
            let done = self.run(&mut |text| whole.push_str(text)).await?;
            return Ok(Json(self.response(&done)).into_response());
        }
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let chunks = Chunks {
            id: self.app.new_id(self.form.id()),
            created: self.app.now(),
            model: self.model().id.clone(),
            form: self.form,
            includes_usage: self.includes_usage,
        };
        tokio::spawn(async move { self.stream(&chunks, &sender).await });
        Ok(crate::stream::response(receiver))
    }

    async fn stream(&self, chunks: &Chunks, sender: &UnboundedSender<axum::response::sse::Event>) {
        let send = |event| {
            // A client that is gone ends the work by its parts.
            let _ = sender.send(event);
        };
        if let Some(first) = chunks.first(0) {
            send(first);
        }
        let ended = self.run(&mut |text| send(chunks.piece(0, text))).await;
        match ended {
            Ok(done) => {
                send(chunks.end(0, "stop"));
                if self.includes_usage {
                    send(chunks.usage(Usage::new(done.prompt_tokens, done.completion_tokens)));
                }
                send(Chunks::done());
            }
            Err(error) => send(Chunks::error(&error)),
        }
    }

    fn response(&self, done: &Done) -> Value {
        let choice = match self.form {
            Form::Chat => json!({
                "index": 0,
                "message": {"role": "assistant", "content": done.text, "refusal": null},
                "logprobs": null, "finish_reason": "stop",
            }),
            _ => json!({
                "index": 0, "text": done.text, "logprobs": null, "finish_reason": "stop",
            }),
        };
        let cost = Cost {
            nfe: done.nfe,
            steps: done.steps,
            rows: 0,
            seconds: self.since.elapsed().as_secs_f64(),
            unknown: done.unknown.clone(),
        };
        let mut response = json!({
            "id": self.app.new_id(self.form.id()),
            "object": self.form.object(),
            "created": self.app.now(),
            "model": self.model().id,
            "choices": [choice],
            "usage": Usage::new(done.prompt_tokens, done.completion_tokens),
            "llada": cost,
        });
        if let Some(choices) = &done.choices {
            response["llada"]["choice_log_likelihoods"] = json!(choices);
        }
        response
    }

    async fn run(&self, settled: &mut (dyn FnMut(&str) + Send)) -> Result<Done> {
        let task = llada::Task::generate(self.prompt.clone());
        let encoded = self.model().llada.encode(&task)?;
        if encoded.ids.is_empty() {
            let message = "the prompt is empty: give at least one token";
            return Err(ApiError::field("prompt", message));
        }
        let mut done = match &self.wanted {
            Wanted::Choice(texts) => self.choose(texts, settled).await?,
            Wanted::Schema(schema) => self.write(encoded.ids, schema, settled).await?,
        };
        done.unknown = encoded
            .unknown
            .into_iter()
            .map(|unknown| unknown.text)
            .collect();
        Ok(done)
    }

    /// The likeliest of the texts, by the chain rule.
    async fn choose(
        &self,
        texts: &[String],
        settled: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Done> {
        let (llada, info) = (&self.model().llada, self.model().info());
        let mut pairs = Vec::new();
        for (at, text) in texts.iter().enumerate() {
            let pair = llada.encode_pair(&self.prompt, &text.as_str().into());
            let (prompt, text) = pair.map_err(|error| {
                ApiError::from(error).with_param(&format!("guided_choice[{at}]"))
            })?;
            let length = prompt.len() + text.len();
            if length > info.max_sequence_length {
                let limit = info.max_sequence_length;
                return Err(ApiError::field(
                    format!("guided_choice[{at}]"),
                    format!("{length} tokens with the prompt exceed the context of {limit}"),
                ));
            }
            pairs.push(([&prompt[..], &text].concat(), prompt.len()));
        }
        let sequences: Vec<ScoredSequence<'_>> = (pairs.iter())
            .map(|(tokens, prompt_len)| ScoredSequence {
                tokens,
                prompt_len: *prompt_len,
            })
            .collect();
        let config = LikelihoodConfig {
            estimator: Estimator::Chain,
            max_batch_tokens: self.app.config.limits.max_batch_tokens,
            cfg_scale: self.overrides.cfg_scale,
            ..LikelihoodConfig::default()
        };
        let scoring = Scoring::new(&sequences, &config, &info)?;
        let estimates = self.score(Box::new(scoring), false).await?;
        let best = likeliest(&estimates);
        settled(&texts[best]);
        Ok(Done {
            text: texts[best].clone(),
            prompt_tokens: pairs[best].1,
            completion_tokens: estimates[best].n_tokens,
            nfe: estimates.iter().map(|estimate| estimate.n_tokens).sum(),
            steps: 0,
            unknown: Vec::new(),
            choices: Some(
                estimates
                    .iter()
                    .map(|estimate| estimate.log_likelihood)
                    .collect(),
            ),
        })
    }

    /// JSON of a schema, stage by stage.
    async fn write(
        &self,
        ids: Vec<u32>,
        schema: &Value,
        settled: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Done> {
        let model = self.model();
        let prompt_tokens = ids.len();
        let vocabulary = model.json_vocabulary()?;
        let structured = (model.llada).structured(&vocabulary, ids, schema, &self.overrides);
        let mut structured: Structured = structured.map_err(of_structured)?;
        let (mut given, mut is_further) = (0, false);
        while let Some(stage) = structured.stage().map_err(of_structured)? {
            settled(&structured.text()[given..]);
            given = structured.text().len();
            let result = match stage {
                Stage::Score(scoring) => {
                    StageResult::Scores(self.score(scoring, is_further).await?)
                }
                Stage::Write(request) => {
                    let mut parts = Parts::new(&self.app, self.model, self.ticket.clone());
                    parts.write(*request)?;
                    let mut events = parts.submit(is_further)?;
                    loop {
                        if let (_, Event::Written(output)) = events.next().await? {
                            break StageResult::Written(*output);
                        }
                    }
                }
            };
            structured.take(result);
            is_further = true;
        }
        settled(&structured.text()[given..]);
        Ok(Done {
            text: structured.text().to_owned(),
            prompt_tokens,
            completion_tokens: structured.tokens().len(),
            nfe: structured.nfe(),
            steps: structured.steps(),
            unknown: Vec::new(),
            choices: None,
        })
    }

    async fn score(&self, scoring: Box<Scoring>, is_further: bool) -> Result<Vec<Estimate>> {
        let limits = &self.app.config.limits;
        let context = self.model().info().max_sequence_length;
        let mut parts = Parts::new(&self.app, self.model, self.ticket.clone());
        parts.score(*scoring, limits.max_batch_tokens.max(context), 0);
        let mut events = parts.submit(is_further)?;
        loop {
            if let (_, Event::Scored(estimates, _)) = events.next().await? {
                return Ok(estimates);
            }
        }
    }
}

/// An error of the form is one of the field that asks for it.
pub(crate) fn of_structured(error: StructuredError) -> ApiError {
    match error {
        StructuredError::Generate(error) => error.into(),
        StructuredError::TooShort { .. } | StructuredError::TooManyValues { .. } => {
            ApiError::field("max_tokens", error.to_string())
        }
        StructuredError::MaskedPrompt => ApiError::field("prompt", error.to_string()),
        error => ApiError::unsupported("response_format", error.to_string()),
    }
}
