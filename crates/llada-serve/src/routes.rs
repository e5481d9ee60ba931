//! What is answered on each path.

pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod infill;
pub(crate) mod likelihood;
mod logprobs;
pub(crate) mod models;
pub(crate) mod tokens;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::app::Context;
use crate::error::{ApiError, Result, whole};

/// Tokens that were given and written.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: usize,
    /// Those of the answers before their EOS.
    pub(crate) completion_tokens: usize,
    pub(crate) total_tokens: usize,
}

impl Usage {
    pub(crate) fn new(prompt_tokens: usize, completion_tokens: usize) -> Self {
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
        }
    }
}

/// One text, or several.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
pub(crate) enum Texts {
    One(String),
    Many(Vec<String>),
}

/// The texts before which an answer ends.
pub(crate) fn stops(stop: Option<&Texts>) -> Result<Vec<String>> {
    const MOST: usize = 16;
    let stops = match stop {
        None => Vec::new(),
        Some(Texts::One(stop)) => vec![stop.clone()],
        Some(Texts::Many(stops)) => stops.clone(),
    };
    if stops.iter().any(String::is_empty) {
        return Err(ApiError::field("stop", "stop: a text to stop at is empty"));
    }
    if stops.len() > MOST {
        let message = format!("stop: {} texts, at most {MOST} are taken", stops.len());
        return Err(ApiError::field("stop", message));
    }
    Ok(stops)
}

/// What a stream tells besides its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StreamMode {
    /// Nothing: settled text alone.
    #[default]
    Append,
    /// Every step, by events of the type `denoise`.
    Denoise,
}

/// Settings of a stream. Chunks are never padded (`include_obfuscation`).
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamOptions {
    #[serde(rename = "include_obfuscation")]
    _include_obfuscation: Option<bool>,
    /// A last chunk says how many tokens were given and written.
    pub(crate) include_usage: Option<bool>,
}

/// Whether a stream ends with its usage.
pub(crate) fn includes_usage(options: Option<StreamOptions>) -> bool {
    options.is_some_and(|options| options.include_usage == Some(true))
}

/// Refuses a field of OpenAI's interface that this server lacks, unless it asks for nothing.
pub(crate) fn only_neutral(fields: &[(&str, &Option<Value>, &[Value])]) -> Result<()> {
    for (name, value, neutral) in fields {
        let is_neutral = |value: &Value| match (value, value.as_f64()) {
            (_, Some(number)) => neutral.iter().any(|n| n.as_f64() == Some(number)),
            (value, None) => neutral.contains(value),
        };
        if let Some(value) = value
            && !value.is_null()
            && !is_neutral(value)
        {
            let message = format!("{name}: this server does not have it; leave it out");
            return Err(ApiError::unsupported(*name, message));
        }
    }
    Ok(())
}

/// The two names of the length of an answer.
pub(crate) fn one_length(names: &[(&str, Option<usize>)]) -> Result<Option<usize>> {
    let mut found: Option<(&str, usize)> = None;
    for (name, length) in names {
        match (found, length) {
            (Some((other, first)), Some(length)) if first != *length => {
                let message =
                    format!("{name} is {length} and {other} is {first}: give one of them");
                return Err(ApiError::field(*name, message));
            }
            (None, Some(length)) => found = Some((name, *length)),
            _ => {}
        }
    }
    Ok(found.map(|(_, length)| length))
}

/// Whether the server takes requests.
#[utoipa::path(get, path = "/health", responses(
    (status = 200, description = "It does", body = Value),
    (status = 503, description = "It shuts down", body = Value),
))]
pub(crate) async fn health(State(app): State<Context>) -> Response {
    match app.stops() {
        false => Json(json!({"status": "ok"})).into_response(),
        true => {
            let body = Json(json!({"status": "shutting down"}));
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}

/// Figures for Prometheus.
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, description = "OpenMetrics text", body = String,
     content_type = "application/openmetrics-text"),
))]
pub(crate) async fn metrics(State(app): State<Context>) -> Result<Response> {
    let text = app.metrics.text();
    let text = text.map_err(|error| ApiError::internal(whole(&error)))?;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}
