//! `POST /v1/chat/completions`.

use std::time::Instant;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use llada::Task;
use llada::sample::Task as TokenTask;
use llada::text::{ChatInputs, Message, Reasoning};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::completions::Cost;
use super::{
    StreamMode, StreamOptions, Texts, Usage, includes_usage, one_length, only_neutral, stops,
};
use crate::app::Context;
use crate::body::Body;
use crate::error::{ApiError, Result, whole};
use crate::model::{Model, find};
use crate::parts::{Events, Parts};
use crate::progress::{Progress, Written, all_written};
use crate::queue::{Client, Ticket};
use crate::sampler::request_body;
use crate::stream::{Form, Stream, Streamed};
use crate::structured::{Job, Wanted};

request_body! {
    /// A chat of OpenAI's interface, with the settings of the sampler.
    ChatRequest {
        /// The first model of `/v1/models` if not given.
        model: Option<String>,
        /// The turns so far, with `role` and `content`; the chat template makes a prompt of them.
        #[schema(value_type = Vec<Object>)]
        messages: Vec<Map<String, Value>>,
        /// Tokens of the answer: the size of the canvas that is filled.
        max_tokens: Option<usize>,
        /// The same as `max_tokens`.
        max_completion_tokens: Option<usize>,
        /// Samples, with the seeds `seed`, `seed + 1`, ..
        #[schema(minimum = 1)]
        n: Option<usize>,
        /// The answer ends before the first of these texts.
        stop: Option<Texts>,
        /// Server-sent events.
        stream: Option<bool>,
        stream_options: Option<StreamOptions>,
        /// What a stream tells besides its text.
        stream_mode: Option<StreamMode>,
        /// The probability that each token had when it was revealed.
        logprobs: Option<bool>,
        /// 0 or 1: of the tokens of an answer, the likeliest alone is known.
        #[schema(maximum = 1)]
        top_logprobs: Option<usize>,
        /// `{"type": "json_schema", ..}`: an answer in JSON.
        response_format: Option<Value>,
        /// The answer is one of these texts: the likeliest, by the chain rule.
        guided_choice: Option<Vec<String>>,
        /// Variables of the chat template.
        #[schema(value_type = Option<Object>)]
        chat_template_kwargs: Option<Map<String, Value>>,
        /// Empty, or left out: calls of tools are not read out of answers.
        tools: Option<Value>,
        /// `none` or `auto`, or left out.
        tool_choice: Option<Value>,
        /// Not used without tools.
        parallel_tool_calls: Option<bool>,
        /// 0, or left out.
        frequency_penalty: Option<Value>,
        /// 0, or left out.
        presence_penalty: Option<Value>,
        /// Empty, or left out.
        logit_bias: Option<Value>,
        /// `["text"]`, or left out.
        modalities: Option<Value>,
        /// False, or left out: nothing is stored.
        store: Option<Value>,
        /// Not used.
        #[schema(value_type = Option<Object>)]
        metadata: Option<Map<String, Value>>,
        /// `auto` or `default`, or left out.
        service_tier: Option<Value>,
        /// Not used.
        user: Option<String>,
        /// Not used.
        safety_identifier: Option<String>,
        /// Not used.
        prompt_cache_key: Option<String>,
    }
}

/// An answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatChoice {
    index: usize,
    message: ChatMessage,
    logprobs: Option<Value>,
    finish_reason: &'static str,
}

/// What the model says.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatMessage {
    role: &'static str,
    content: String,
    /// What it reasoned before, between `<think>` and `</think>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    refusal: Option<String>,
}

/// Answers to a chat.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatResponse {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    choices: Vec<ChatChoice>,
    usage: Usage,
    llada: Cost,
}

impl ChatRequest {
    /// What does not depend on the model.
    fn check(&self) -> Result<()> {
        only_neutral(&[
            ("tools", &self.tools, &[json!([])]),
            (
                "tool_choice",
                &self.tool_choice,
                &[json!("none"), json!("auto")],
            ),
            ("frequency_penalty", &self.frequency_penalty, &[json!(0)]),
            ("presence_penalty", &self.presence_penalty, &[json!(0)]),
            ("logit_bias", &self.logit_bias, &[json!({})]),
            ("modalities", &self.modalities, &[json!(["text"])]),
            ("store", &self.store, &[json!(false)]),
            (
                "service_tier",
                &self.service_tier,
                &[json!("auto"), json!("default")],
            ),
        ])?;
        // Accepted, as they change no answer.
        let _ = (&self.user, &self.safety_identifier, &self.prompt_cache_key);
        let _ = (&self.metadata, &self.parallel_tool_calls);
        if self.n == Some(0) {
            return Err(ApiError::field("n", "n must be at least 1"));
        }
        if self.top_logprobs.is_some_and(|n| n > 1) {
            let message = "top_logprobs: of the tokens of an answer, the likeliest alone is known; \
                           give 0 or 1";
            return Err(ApiError::unsupported("top_logprobs", message));
        }
        let wants_logprobs = self.logprobs.unwrap_or(false);
        if self.top_logprobs.is_some_and(|n| n > 0) && !wants_logprobs {
            let message = "top_logprobs needs logprobs: true";
            return Err(ApiError::field("top_logprobs", message));
        }
        if wants_logprobs && self.stream.unwrap_or(false) {
            let message = "logprobs: not in a stream, where tokens settle in another order than \
                           they are revealed; leave out stream";
            return Err(ApiError::unsupported("logprobs", message));
        }
        if self.messages.is_empty() {
            return Err(ApiError::field("messages", "messages: the list is empty"));
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
                ("logprobs", self.logprobs.unwrap_or(false)),
                ("stream_mode", self.stream_mode == Some(StreamMode::Denoise)),
            ])?;
        }
        Ok(wanted)
    }

    /// The messages, with parts of the type `text` joined.
    fn messages(&self) -> Result<Vec<Message>> {
        let messages = self.messages.iter().enumerate();
        messages
            .map(|(at, message)| read_message(at, message))
            .collect()
    }
}

fn read_message(at: usize, message: &Map<String, Value>) -> Result<Message> {
    let field = |name: &str| format!("messages[{at}].{name}");
    let mut message = message.clone();
    match message.get("role") {
        Some(Value::String(role)) if !role.is_empty() => {}
        _ => {
            let role = field("role");
            let text = format!("{role} is missing: a text such as \"user\"");
            return Err(ApiError::field(role, text));
        }
    }
    let content = match message.get("content") {
        None | Some(Value::Null | Value::String(_)) => None,
        Some(Value::Array(parts)) => {
            let mut whole = String::new();
            for (i, part) in parts.iter().enumerate() {
                let kind = part.get("type").and_then(Value::as_str);
                match (kind, part.get("text").and_then(Value::as_str)) {
                    (Some("text"), Some(text)) => whole.push_str(text),
                    (kind, _) => {
                        let param = format!("{}[{i}]", field("content"));
                        let kind = kind.unwrap_or("none");
                        let text = format!("{param}: a part of the type {kind}; only text is read");
                        return Err(ApiError::unsupported(param, text));
                    }
                }
            }
            Some(whole)
        }
        Some(_) => {
            let param = field("content");
            let text = format!("{param} must be a text or a list of parts");
            return Err(ApiError::field(param, text));
        }
    };
    if let Some(content) = content {
        message.insert("content".to_owned(), content.into());
    }
    Ok(Message(message))
}

/// Answers a chat.
#[utoipa::path(post, path = "/v1/chat/completions", request_body = ChatRequest,
    responses((status = 200, description = "With `stream`: server-sent events",
        body = ChatResponse), crate::openapi::Errors))]
pub(crate) async fn create(
    State(app): State<Context>,
    Extension(client): Extension<Client>,
    Body(body): Body<ChatRequest>,
) -> Result<Response> {
    let since = Instant::now();
    body.check()?;
    let ticket = Ticket::new(&client, body.order(), &app.config.limits)?;
    let at = find(&app.models, body.model.as_deref())?;
    let stops = stops(body.stop.as_ref())?;
    let n = body.n.unwrap_or(1);
    let mut sampler = body.sampler();
    sampler.gen_length = one_length(&[
        ("max_completion_tokens", body.max_completion_tokens),
        ("max_tokens", body.max_tokens),
        ("gen_length", body.gen_length),
    ])?;
    let overrides = sampler.overrides(&app.models[at])?;
    let (messages, variables) = (body.messages()?, body.chat_template_kwargs.clone());
    let context = Context::clone(&app);
    let render = move || {
        render(
            &context.models[at],
            &messages,
            variables.unwrap_or_default(),
        )
    };
    let prompt = crate::off_thread(render).await?;
    if let Some(wanted) = body.wanted()? {
        let job = Job {
            app,
            model: at,
            ticket,
            wanted,
            prompt: prompt.into(),
            overrides,
            form: Form::Chat,
            since,
            includes_usage: includes_usage(body.stream_options),
        };
        let answered = job.answer(body.stream.unwrap_or(false)).await;
        return answered.map_err(ApiError::with_param_of_chat);
    }
    let context = Context::clone(&app);
    let (request, unknown) = crate::off_thread(move || {
        let model = &context.models[at];
        let task = Task::generate(prompt);
        let by = |error| ApiError::from(error).with_param_of_chat();
        let unknown = model.llada.encode(&task).map_err(by)?.unknown;
        let request = model.llada.request(&task, &overrides).map_err(by)?;
        Ok((request, unknown))
    })
    .await?;
    let mut parts = Parts::new(&app, at, ticket);
    for sample in 0..n {
        let mut request = request.clone();
        request.config.seed = request.config.seed.wrapping_add(sample as u64);
        parts.write(request).map_err(ApiError::with_param_of_chat)?;
    }
    let prompt: &[u32] = match &request.task {
        TokenTask::Generate { prompt, .. } => prompt,
        TokenTask::Infill { canvas, .. } => canvas,
    };
    let streamed = Streamed {
        id: app.new_id(Form::Chat.id()),
        created: app.now(),
        form: Form::Chat,
        prompt_tokens: prompt.len(),
        reasoning: Reasoning::of(&app.models[at].llada.tokenizer, prompt),
        before: vec![String::new(); n],
        is_infill: false,
        includes_usage: includes_usage(body.stream_options),
        mode: body.stream_mode.unwrap_or_default(),
        stops,
        cost: Cost {
            unknown: unknown.iter().map(|unknown| unknown.text.clone()).collect(),
            ..Cost::default()
        },
        since,
    };
    let events = parts.submit(false)?;
    match body.stream.unwrap_or(false) {
        true => Ok(Stream::new(&app, at, streamed, events).response()),
        false => whole_answer(&app, at, streamed, events, &body).await,
    }
}

/// The answer once it is written.
async fn whole_answer(
    app: &Context,
    at: usize,
    streamed: Streamed,
    mut events: Events,
    body: &ChatRequest,
) -> Result<Response> {
    let new = |_: &String| {
        Progress::new(app, at, streamed.stops.clone(), false).telling(streamed.reasoning)
    };
    let mut progress: Vec<Progress> = streamed.before.iter().map(new).collect();
    let written = all_written(&mut events, &mut progress).await?;
    let mut cost = streamed.cost;
    for written in &written {
        cost.add(&written.output);
    }
    cost.seconds = streamed.since.elapsed().as_secs_f64();
    let n_tokens = written.iter().map(|written| written.completion_tokens);
    let choices = written.iter().enumerate();
    let response = ChatResponse {
        id: streamed.id,
        object: Form::Chat.object(),
        created: streamed.created,
        model: app.models[at].id.clone(),
        choices: choices
            .map(|(index, written)| choice(&app.models[at], body, index, written))
            .collect(),
        usage: Usage::new(streamed.prompt_tokens, n_tokens.sum()),
        llada: cost,
    };
    Ok(Json(response).into_response())
}

fn render(model: &Model, messages: &[Message], variables: Map<String, Value>) -> Result<String> {
    let inputs = ChatInputs {
        add_generation_prompt: true,
        variables,
        ..ChatInputs::default()
    };
    let rendered = model.chat_template()?.render_with(messages, &inputs);
    rendered.map_err(|error| ApiError::field("messages", whole(&error)))
}

fn choice(model: &Model, body: &ChatRequest, index: usize, written: &Written) -> ChatChoice {
    let of_token = |&(id, log_p): &(u32, f64)| {
        let text = model
            .llada
            .tokenizer
            .decode(&[id], false)
            .unwrap_or_default();
        let token = json!({"token": text, "logprob": log_p, "bytes": text.as_bytes()});
        let top: Vec<Value> = match body.top_logprobs {
            Some(1) => vec![token.clone()],
            _ => Vec::new(),
        };
        let mut token = token;
        token["top_logprobs"] = json!(top);
        token
    };
    let logprobs = body.logprobs.unwrap_or(false).then(|| {
        let content: Vec<Value> = written.token_logprobs.iter().map(of_token).collect();
        json!({"content": content, "refusal": null})
    });
    ChatChoice {
        index,
        message: ChatMessage {
            role: "assistant",
            content: written.parts.content.clone(),
            reasoning_content: written.reasoning().map(str::to_owned),
            refusal: None,
        },
        logprobs,
        finish_reason: written.finish_reason,
    }
}
