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
use llada::text::Unknown;
use serde_json::{Value, json};

use crate::app::Context;
use crate::engine::Event;
use crate::error::Result;
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
    pub(crate) includes_usage: bool,
    pub(crate) mode: StreamMode,
    pub(crate) stops: Vec<String>,
    pub(crate) cost: Cost,
    pub(crate) since: Instant,
}

/// A stream on its way.
#[derive(Debug)]
pub(crate) struct Stream {
    app: Context,
    model: usize,
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
            progress: Progress::new(app, model, streamed.stops.clone(), streamed.is_infill),
            has_begun: false,
        };
        Self {
            app: Context::clone(app),
            model,
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
    pub(crate) fn keeping(mut self, unknown: Vec<Unknown>) -> Self {
        for choice in &mut self.choices {
            choice.progress.keep(unknown.clone());
        }
        self
    }

    pub(crate) fn response(self) -> Response {
        let events = unfold(self, |mut stream| async {
            let event = stream.next().await?;
            Some((Ok::<_, Infallible>(event), stream))
        });
        let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("working");
        Sse::new(events).keep_alive(keep_alive).into_response()
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
                self.data(&error.to_json());
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
                self.text(index, new);
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
    fn text(&mut self, index: usize, new: String) {
        if self.streamed.form == Form::Infill {
            return;
        }
        if !std::mem::replace(&mut self.choices[index].has_begun, true) {
            if self.streamed.form == Form::Chat {
                self.chunk(index, &json!({"role": "assistant", "content": ""}), None);
            }
            let before = std::mem::take(&mut self.streamed.before[index]);
            self.piece(index, before);
        }
        self.piece(index, new);
    }

    fn piece(&mut self, index: usize, text: String) {
        if text.is_empty() {
            return;
        }
        let piece = match self.streamed.form {
            Form::Chat => json!({"content": text}),
            _ => json!(text),
        };
        self.chunk(index, &piece, None);
    }

    fn chunk(&mut self, index: usize, piece: &Value, finish_reason: Option<&str>) {
        let choice = match self.streamed.form {
            Form::Chat => json!({
                "index": index, "delta": piece, "logprobs": null, "finish_reason": finish_reason,
            }),
            _ => json!({
                "index": index, "text": piece, "logprobs": null, "finish_reason": finish_reason,
            }),
        };
        let chunk = self.with_choices(&json!([choice]), None);
        self.data(&chunk);
    }

    fn with_choices(&self, choices: &Value, usage: Option<Usage>) -> Value {
        let object = match self.streamed.form {
            Form::Chat => "chat.completion.chunk",
            _ => "text_completion",
        };
        let mut chunk = json!({
            "id": self.streamed.id,
            "object": object,
            "created": self.streamed.created,
            "model": self.app.models[self.model].id,
            "choices": choices,
        });
        if self.streamed.includes_usage {
            chunk["usage"] = json!(usage);
        }
        chunk
    }

    /// The end of a choice, and after the last one that of the stream.
    fn end(&mut self, index: usize, written: &Written) {
        self.completion_tokens += written.completion_tokens;
        self.streamed.cost.add(&written.output);
        self.text(index, written.rest.clone());
        let seconds = self.streamed.since.elapsed().as_secs_f64();
        if self.streamed.mode == StreamMode::Denoise {
            let end = json!({
                "index": index, "nfe": written.output.nfe, "steps": written.output.steps,
                "seconds": seconds, "tokens": written.output.tokens, "text": written.text,
            });
            self.named("end", &end);
        }
        match self.streamed.form {
            Form::Chat => self.chunk(index, &json!({}), Some(written.finish_reason)),
            Form::Completion => self.chunk(index, &json!(""), Some(written.finish_reason)),
            Form::Infill => {
                let result = crate::routes::infill::result(
                    &self.streamed.id,
                    &self.app.models[self.model].id,
                    &[(written, self.streamed.prompt_tokens)],
                    &self.streamed.cost,
                );
                self.data(&result);
            }
        }
        self.open -= 1;
        if self.open > 0 {
            return;
        }
        if self.streamed.includes_usage && self.streamed.form != Form::Infill {
            let usage = Usage::new(self.streamed.prompt_tokens, self.completion_tokens);
            let chunk = self.with_choices(&json!([]), Some(usage));
            self.data(&chunk);
        }
        self.pending.push_back(SseEvent::default().data("[DONE]"));
        self.is_done = true;
    }

    fn data(&mut self, value: &Value) {
        self.pending.push_back(SseEvent::default().data(value.to_string()));
    }

    fn named(&mut self, name: &str, value: &Value) {
        let event = SseEvent::default().event(name).data(value.to_string());
        self.pending.push_back(event);
    }
}

