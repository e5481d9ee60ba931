//! Server-sent events: chunks of settled text in OpenAI's form, and the denoising beside them.
//!
//! No event has an `id:` or a `retry:`, and none is without data: OpenAI's client takes such a
//! block for an event and fails. Keep-alives are comments.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::unfold;
use llada::text::{Parts, Reasoning, Unknown};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::app::Context;
use crate::engine::Event;
use crate::error::{ApiError, Result};
use crate::parts::Events;
use crate::progress::{Progress, Written};
use crate::routes::completions::Cost;
use crate::routes::{StreamMode, Usage};

/// Time without an event after which a comment is sent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Which interface a stream has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Completion,
    Chat,
    Infill,
}

impl Form {
    /// What names of answers begin with.
    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Completion => "cmpl",
            Self::Chat => "chatcmpl",
            Self::Infill => "infill",
        }
    }

    /// What a whole answer is called.
    pub(crate) fn object(self) -> &'static str {
        match self {
            Self::Completion => "text_completion",
            Self::Chat => "chat.completion",
            Self::Infill => "infill",
        }
    }
}

/// The chunks of a stream in OpenAI's form.
#[derive(Debug)]
pub(crate) struct Chunks {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) form: Form,
    pub(crate) includes_usage: bool,
}

impl Chunks {
    /// The chunk before the first text of a choice, where the interface has one.
    pub(crate) fn first(&self, index: usize) -> Option<SseEvent> {
        let role = json!({"role": "assistant", "content": ""});
        (self.form == Form::Chat).then(|| self.chunk(index, &role, None))
    }

    /// A piece of text.
    pub(crate) fn piece(&self, index: usize, text: &str) -> SseEvent {
        let piece = match self.form {
            Form::Chat => json!({"content": text}),
            _ => json!(text),
        };
        self.chunk(index, &piece, None)
    }

    /// A piece of what the model reasons.
    pub(crate) fn reasoning(&self, index: usize, text: &str) -> SseEvent {
        self.chunk(index, &json!({"reasoning_content": text}), None)
    }

    /// The end of a choice.
    pub(crate) fn end(&self, index: usize, finish_reason: &str) -> SseEvent {
        let piece = match self.form {
            Form::Chat => json!({}),
            _ => json!(""),
        };
        self.chunk(index, &piece, Some(finish_reason))
    }

    fn chunk(&self, index: usize, piece: &Value, finish_reason: Option<&str>) -> SseEvent {
        let choice = match self.form {
            Form::Chat => json!({
                "index": index, "delta": piece, "logprobs": null, "finish_reason": finish_reason,
            }),
            _ => json!({
                "index": index, "text": piece, "logprobs": null, "finish_reason": finish_reason,
            }),
        };
        self.with_choices(&json!([choice]), None)
    }

    /// What was given and written, after the last choice.
    pub(crate) fn usage(&self, usage: Usage) -> SseEvent {
        self.with_choices(&json!([]), Some(usage))
    }

    fn with_choices(&self, choices: &Value, usage: Option<Usage>) -> SseEvent {
        let mut chunk = json!({
            "id": self.id,
            "object": match self.form {
                Form::Chat => "chat.completion.chunk",
                form => form.object(),
            },
            "created": self.created,
            "model": self.model,
            "choices": choices,
        });
        if self.includes_usage {
            chunk["usage"] = json!(usage);
        }
        data(&chunk)
    }

    /// The end of a stream in which all went well.
    pub(crate) fn done() -> SseEvent {
        SseEvent::default().data("[DONE]")
    }

    /// The end of a stream in which something went wrong.
    pub(crate) fn error(error: &ApiError) -> SseEvent {
        data(&error.to_json())
    }
}

fn data(value: &Value) -> SseEvent {
    SseEvent::default().data(value.to_string())
}

fn sse(
    events: impl futures_util::Stream<Item = std::result::Result<SseEvent, Infallible>> + Send + 'static,
) -> Response {
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("working");
    Sse::new(events).keep_alive(keep_alive).into_response()
}

/// A stream of events that are made elsewhere.
pub(crate) fn response(events: UnboundedReceiver<SseEvent>) -> Response {
    sse(unfold(events, |mut events| async {
        let event = events.recv().await?;
        Some((Ok(event), events))
    }))
}

/// What a stream says of its request.
#[derive(Debug)]
pub(crate) struct Streamed {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) form: Form,
    pub(crate) prompt_tokens: usize,
    /// What stands before the answer of each choice.
    pub(crate) before: Vec<String>,
    pub(crate) is_infill: bool,
    /// Of a chat: how reasoning is told from the rest.
    pub(crate) reasoning: Option<Reasoning>,
    pub(crate) includes_usage: bool,
    pub(crate) mode: StreamMode,
    pub(crate) stops: Vec<String>,
    pub(crate) cost: Cost,
    pub(crate) since: Instant,
}

/// A stream on its way.
#[derive(Debug)]
pub(crate) struct Stream {
    chunks: Chunks,
    streamed: Streamed,
    events: Events,
    choices: Vec<Choice>,
    completion_tokens: usize,
    open: usize,
    pending: VecDeque<SseEvent>,
    is_done: bool,
}

#[derive(Debug)]
struct Choice {
    progress: Progress,
    has_begun: bool,
}

impl Stream {
    pub(crate) fn new(app: &Context, model: usize, streamed: Streamed, events: Events) -> Self {
        let choice = |_: &String| Choice {
            progress: Progress::new(app, model, streamed.stops.clone(), streamed.is_infill)
                .telling(streamed.reasoning),
            has_begun: false,
        };
        Self {
            chunks: Chunks {
                id: streamed.id.clone(),
                created: streamed.created,
                model: app.models[model].id.clone(),
                form: streamed.form,
                includes_usage: streamed.includes_usage,
            },
            choices: streamed.before.iter().map(choice).collect(),
            open: streamed.before.len(),
            streamed,
            events,
            completion_tokens: 0,
            pending: VecDeque::new(),
            is_done: false,
        }
    }

    /// What the vocabulary lacks stays in the text of an infill.
    pub(crate) fn keeping(mut self, unknown: &[Unknown]) -> Self {
        for choice in &mut self.choices {
            choice.progress.keep(unknown.to_vec());
        }
        self
    }

    pub(crate) fn response(self) -> Response {
        sse(unfold(self, |mut stream| async {
            let event = stream.next().await?;
            Some((Ok(event), stream))
        }))
    }

    async fn next(&mut self) -> Option<SseEvent> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if self.is_done {
                return None;
            }
            let took = match self.events.next().await {
                Ok((index, event)) => self.take(index, event),
                Err(error) => Err(error),
            };
            if let Err(error) = took {
                self.pending.push_back(Chunks::error(&error));
                self.is_done = true;
            }
        }
    }

    /// Turns what happened to a part into events.
    fn take(&mut self, index: usize, event: Event) -> Result<()> {
        match event {
            Event::Begun { canvas, steps } => {
                self.choices[index].progress.begin(canvas);
                if self.streamed.mode == StreamMode::Denoise {
                    let canvas = self.choices[index].progress.canvas_event(index, steps);
                    self.named("canvas", &canvas);
                }
            }
            Event::Step(step) => {
                let new = self.choices[index].progress.step(&step);
                if self.streamed.mode == StreamMode::Denoise {
                    let denoise = self.choices[index].progress.denoise_event(index, &step);
                    self.named("denoise", &denoise);
                }
                self.text(index, &new);
                if self.choices[index].progress.is_stopped() {
                    self.events.stop(index);
                }
            }
            Event::Written(output) => {
                let written = self.choices[index].progress.finish(*output)?;
                self.end(index, &written);
            }
            Event::Scored(..) => {}
            Event::Failed(error) => return Err(error),
        }
        Ok(())
    }

    /// Text that is settled.
    fn text(&mut self, index: usize, new: &Parts) {
        if self.streamed.form == Form::Infill {
            return;
        }
        if !std::mem::replace(&mut self.choices[index].has_begun, true) {
            self.pending.extend(self.chunks.first(index));
            let before = std::mem::take(&mut self.streamed.before[index]);
            self.piece(index, &before);
        }
        if !new.reasoning.is_empty() {
            let reasoning = self.chunks.reasoning(index, &new.reasoning);
            self.pending.push_back(reasoning);
        }
        self.piece(index, &new.content);
    }

    fn piece(&mut self, index: usize, text: &str) {
        if !text.is_empty() {
            self.pending.push_back(self.chunks.piece(index, text));
        }
    }

    /// The end of a choice, and after the last one that of the stream.
    fn end(&mut self, index: usize, written: &Written) {
        self.completion_tokens += written.completion_tokens;
        self.streamed.cost.add(&written.output);
        self.text(index, &written.rest);
        let seconds = self.streamed.since.elapsed().as_secs_f64();
        if self.streamed.mode == StreamMode::Denoise {
            let mut end = json!({
                "index": index, "nfe": written.output.nfe, "steps": written.output.steps,
                "seconds": seconds, "tokens": written.output.tokens,
                "text": written.parts.content,
            });
            if let Some(reasoning) = written.reasoning() {
                end["reasoning_content"] = json!(reasoning);
            }
            self.named("end", &end);
        }
        if self.streamed.form == Form::Infill {
            let result = crate::routes::infill::result(
                &self.chunks.id,
                &self.chunks.model,
                &[(written, self.streamed.prompt_tokens)],
                &self.streamed.cost,
            );
            self.data(&result);
        } else {
            let end = self.chunks.end(index, written.finish_reason);
            self.pending.push_back(end);
        }
        self.open -= 1;
        if self.open > 0 {
            return;
        }
        if self.streamed.includes_usage && self.streamed.form != Form::Infill {
            let usage = Usage::new(self.streamed.prompt_tokens, self.completion_tokens);
            self.pending.push_back(self.chunks.usage(usage));
        }
        self.pending.push_back(Chunks::done());
        self.is_done = true;
    }

    fn data(&mut self, value: &Value) {
        self.pending
            .push_back(SseEvent::default().data(value.to_string()));
    }

    fn named(&mut self, name: &str, value: &Value) {
        let event = SseEvent::default().event(name).data(value.to_string());
        self.pending.push_back(event);
    }
}
