//! `POST /v1/infill`: any pattern of masks.

use std::time::Instant;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use llada::Task;
use serde_json::{Value, json};

use super::completions::Cost;
use super::{StreamMode, Usage};
use crate::app::Context;
use crate::body::Body;
use crate::error::{ApiError, Result};
use crate::model::find;
use crate::parts::Parts;
use crate::progress::{Progress, Written, all_written};
use crate::queue::{Client, Ticket};
use crate::sampler::request_body;
use crate::stream::{Form, Stream, Streamed};

request_body! {
    /// A text with holes.
    InfillRequest {
        /// The first model of `/v1/models` if not given.
        model: Option<String>,
        /// The text: every □ and every mask token written out is a hole of one token, or in a text
        /// that has neither every `_`. The rest is kept as it is.
        #[schema(example = "□□□□□，低头思故乡。")]
        text: Option<String>,
        /// In place of a text its tokens, the mask token for each hole.
        tokens: Option<Vec<u32>>,
        /// What stands for a hole in the text, and nothing else does.
        mask: Option<String>,
        /// Words at places: in tokens from the start of the canvas; each must be a hole there.
        words: Option<Vec<Word>>,
        /// Samples, with the seeds `seed`, `seed + 1`, ..
        #[schema(minimum = 1)]
        n: Option<usize>,
        /// Server-sent events.
        stream: Option<bool>,
        /// What a stream tells besides its result.
        stream_mode: Option<StreamMode>,
    }
}

/// A word that is fixed among the holes.
#[derive(Debug, Clone, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Word {
    /// Where its first token stands, from 0.
    at: usize,
    text: String,
}

/// A text whose holes are filled.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub(crate) struct InfillResponse {
    id: String,
    object: String,
    model: String,
    /// The whole text.
    text: String,
    /// All its tokens.
    tokens: Vec<u32>,
    usage: Usage,
    /// Forward passes.
    nfe: usize,
    steps: usize,
    /// Positions that the passes have computed.
    rows: usize,
    seconds: f64,
    /// What of the text the vocabulary lacks; it stays in the text.
    unknown: Option<Vec<String>>,
    /// Of several samples each one; the first is given above as well.
    choices: Option<Vec<Value>>,
}

/// Fills the holes of a text.
#[utoipa::path(post, path = "/v1/infill", request_body = InfillRequest,
    responses((status = 200, description = "With `stream`: server-sent events",
        body = InfillResponse), crate::openapi::Errors))]
pub(crate) async fn create(
    State(app): State<Context>,
    Extension(client): Extension<Client>,
    Body(body): Body<InfillRequest>,
) -> Result<Response> {
    let since = Instant::now();
    let at = find(&app.models, body.model.as_deref())?;
    let n = body.n.unwrap_or(1);
    if n == 0 {
        return Err(ApiError::field("n", "n must be at least 1"));
    }
    let is_stream = body.stream.unwrap_or(false);
    if is_stream && n > 1 {
        return Err(ApiError::unsupported(
            "n",
            "n: a stream has one sample; leave out n",
        ));
    }
    let overrides = body.sampler().overrides(&app.models[at])?;
    if overrides.gen_length.is_some() {
        let message = "gen_length: an infill has the length of its text";
        return Err(ApiError::unsupported("gen_length", message));
    }
    let ticket = Ticket::new(&client, body.order(), &app.config.limits)?;
    let (mode, context) = (body.stream_mode.unwrap_or_default(), Context::clone(&app));
    let (request, unknown) = crate::off_thread(move || {
        let llada = &context.models[at].llada;
        let task = task(&body)?;
        let by = |error| ApiError::from(error).with_param_of_infill();
        let unknown = llada.encode(&task).map_err(by)?.unknown;
        let mut request = llada.request(&task, &overrides).map_err(by)?;
        for word in body.words.iter().flatten() {
            place(&context.models[at], &mut request, word)?;
        }
        Ok((request, unknown))
    })
    .await?;
    let mask = app.models[at].info().mask_token_id;
    let llada::sample::Task::Infill { canvas, .. } = &request.task else {
        return Err(ApiError::internal("an infill became something else"));
    };
    let given = canvas.iter().filter(|&&id| id != mask).count();
    let mut parts = Parts::new(&app, at, ticket);
    for sample in 0..n {
        let mut request = request.clone();
        request.config.seed = request.config.seed.wrapping_add(sample as u64);
        let written = parts.write(request);
        written.map_err(ApiError::with_param_of_infill)?;
    }
    let mut cost = Cost {
        unknown: unknown.iter().map(|unknown| unknown.text.clone()).collect(),
        ..Cost::default()
    };
    let id = app.new_id("infill");
    let mut events = parts.submit(false)?;
    if is_stream {
        let streamed = Streamed {
            id,
            created: app.now(),
            form: Form::Infill,
            prompt_tokens: given,
            before: vec![String::new()],
            is_infill: true,
            reasoning: None,
            includes_usage: false,
            mode,
            stops: Vec::new(),
            cost,
            since,
        };
        return Ok(Stream::new(&app, at, streamed, events)
            .keeping(&unknown)
            .response());
    }
    let new = || {
        let mut progress = Progress::new(&app, at, Vec::new(), true);
        progress.keep(unknown.clone());
        progress
    };
    let mut progress: Vec<Progress> = (0..n).map(|_| new()).collect();
    let written = all_written(&mut events, &mut progress).await?;
    for written in &written {
        cost.add(&written.output);
    }
    cost.seconds = since.elapsed().as_secs_f64();
    let written: Vec<(&Written, usize)> = written.iter().map(|w| (w, given)).collect();
    let result = result(&id, &app.models[at].id, &written, &cost);
    Ok(Json(result).into_response())
}

/// The text or the tokens that are given.
fn task(body: &InfillRequest) -> Result<Task<'_>> {
    let task = match (&body.text, &body.tokens) {
        (Some(text), None) => Task::infill(text.as_str()),
        (None, Some(tokens)) => Task::infill(&tokens[..]),
        (None, None) => {
            let message = "text is missing: a text with □ for every token to fill in, or tokens";
            return Err(ApiError::field("text", message));
        }
        (Some(_), Some(_)) => {
            let message = "tokens cannot be used with text: give one of them";
            return Err(ApiError::field("tokens", message));
        }
    };
    match body.mask.as_deref() {
        Some("") => Err(ApiError::field(
            "mask",
            "mask: the text that stands for a hole is empty",
        )),
        mask => Ok(task.marked(mask)),
    }
}

/// Fixes a word among the holes.
fn place(
    model: &crate::model::Model,
    request: &mut llada::sample::Request,
    word: &Word,
) -> Result<()> {
    let (llada, mask) = (&model.llada, model.info().mask_token_id);
    let space = if llada.whole_documents { "" } else { " " };
    let ids = llada
        .tokenizer
        .encode_strict(&format!("{space}{}", word.text));
    let ids = ids.map_err(|error| ApiError::field("words", error.to_string()))?;
    let llada::sample::Task::Infill { canvas, .. } = &mut request.task else {
        return Ok(());
    };
    let places = word.at..word.at.saturating_add(ids.len());
    match canvas.get_mut(places) {
        Some(places) if places.iter().all(|&id| id == mask) => {
            places.copy_from_slice(&ids);
            Ok(())
        }
        _ => Err(ApiError::field(
            "words",
            format!(
                "words: {:?} has {} tokens, and at {} there are not so many holes",
                word.text,
                ids.len(),
                word.at
            ),
        )),
    }
}

/// The answer to a request: the first sample, and all of them where there are several.
pub(crate) fn result(id: &str, model: &str, written: &[(&Written, usize)], cost: &Cost) -> Value {
    let choice = |(index, (written, _)): (usize, &(&Written, usize))| {
        json!({
            "index": index, "text": written.parts.content, "tokens": written.output.answer(),
            "nfe": written.output.nfe, "steps": written.output.steps,
        })
    };
    let Some((first, given)) = written.first() else {
        return Value::Null;
    };
    let filled: usize = (written.iter())
        .map(|(written, given)| written.output.answer().len() - given)
        .sum();
    let mut result = json!({
        "id": id,
        "object": "infill",
        "model": model,
        "text": first.parts.content,
        "tokens": first.output.answer(),
        "usage": Usage::new(*given, filled),
        "nfe": cost.nfe,
        "steps": cost.steps,
        "rows": cost.rows,
        "seconds": cost.seconds,
    });
    if !cost.unknown.is_empty() {
        result["unknown"] = json!(cost.unknown);
    }
    if written.len() > 1 {
        let choices: Vec<Value> = written.iter().enumerate().map(choice).collect();
        result["choices"] = json!(choices);
    }
    result
}
