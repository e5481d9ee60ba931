//! Bodies of requests: read up to a limit and within a time, and parsed with the path of what is
//! wrong.

use std::time::Duration;

use axum::body::Body as RawBody;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;

use crate::app::Context;
use crate::error::{ApiError, Result};

/// A JSON body.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Context> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Context) -> Result<Self> {
        // A form of a foreign page can't send this type without asking first.
        if !is_json(request.headers()) {
            return Err(ApiError::content_type());
        }
        let limit = app.config.max_body_bytes;
        let read = read(request.into_body(), limit);
        let bytes = (tokio::time::timeout(app.config.body_timeout, read).await)
            .map_err(|_| ApiError::body_too_slow())??;
        parse(&bytes).map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// The bytes of a body. One that is too long is read on for a while without being kept: a client
/// that is cut off in the middle of what it sends does not read the answer.
async fn read(body: RawBody, limit: usize) -> Result<Vec<u8>> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk =
            chunk.map_err(|error| ApiError::body(format!("the body broke off: {error}")))?;
        if bytes.len() + chunk.len() > limit {
            let rest = async { while let Some(Ok(_)) = stream.next().await {} };
            let _ = tokio::time::timeout(PATIENCE, rest).await;
            return Err(ApiError::body_too_large(limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// A value out of JSON; an error names the field.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        ApiError::body(format!("the body is not UTF-8 at byte {at}"))
    })?;
    // A list would be taken for the fields in their order.
    if !text.trim_start().starts_with('{') {
        return Err(ApiError::body(
            "the body is not JSON: expected an object, { .. }",
        ));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        of_json(&path, error.inner())
    })?;
    json.end().map_err(|error| of_json(".", &error))?;
    Ok(value)
}

fn of_json(path: &str, error: &serde_json::Error) -> ApiError {
    let message = error.to_string();
    if error.is_data() {
        // The field says where it is.
        let message = message.split(" at line ").next().unwrap_or_default();
        return of_field(path, &in_plain_words(message));
    }
    ApiError::body(format!("the body is not JSON: {message}"))
}

/// Without the names of Rust's types.
fn in_plain_words(message: &str) -> String {
    let words = [
        ("expected usize", "expected a whole number, 0 or more"),
        (
            "expected a nonzero usize",
            "expected a whole number, 1 or more",
        ),
        ("expected u32", "expected a whole number, 0 or more"),
        ("expected i32", "expected a whole number"),
        ("expected i64", "expected a whole number"),
        ("expected f32", "expected a number"),
        ("expected f64", "expected a number"),
        ("expected a sequence", "expected a list"),
        ("expected a map", "expected an object"),
        ("expected a boolean", "expected true or false"),
    ];
    let found = words.iter().find(|(rust, _)| message.ends_with(rust));
    match found {
        Some((rust, plain)) => message.replace(rust, plain),
        None => message.to_owned(),
    }
}

fn of_field(path: &str, message: &str) -> ApiError {
    let quoted = |start: &str| {
        let rest = message.strip_prefix(start)?;
        rest.split('`').next().map(str::to_owned)
    };
    // Their path is that of the object around them.
    let within = |name: &str| match path {
        "." => name.to_owned(),
        path if path.ends_with(name) => path.to_owned(),
        path => format!("{path}.{name}"),
    };
    if let Some(name) = quoted("unknown field `") {
        let field = within(&name);
        let message = format!("{field}: this server has no such field; see /openapi.json");
        return ApiError::unsupported(field, message);
    }
    if let Some(name) = quoted("missing field `") {
        let field = within(&name);
        return ApiError::field(field.clone(), format!("{field} is missing"));
    }
    match path {
        "." => ApiError::body(message),
        path => ApiError::field(path, format!("{path}: {message}")),
    }
}

#[cfg(test)]
mod tests;
