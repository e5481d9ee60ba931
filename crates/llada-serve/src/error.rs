//! Errors as clients see them, in the form of OpenAI's interface.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use llada::GenerateError;
use llada::diffusion::Error as DiffusionError;
use llada::sample::{Error as SampleError, RulesError};
use serde_json::{Value, json};

/// An answer that says what went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
    /// The field of the request that is to blame.
    param: Option<String>,
    code: &'static str,
    /// When to come again, in seconds.
    retry_after: Option<u64>,
}

pub(crate) type Result<T> = std::result::Result<T, ApiError>;

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
            code,
            retry_after: None,
        }
    }

    /// A field that does not fit.
    pub(crate) fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            param: Some(param.into()),
            ..Self::new(StatusCode::BAD_REQUEST, "invalid_value", message)
        }
    }

    /// A field that this server does not have, or not with this value.
    pub(crate) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: "unsupported",
            ..Self::field(param, message)
        }
    }

    /// A body that is none.
    pub(crate) fn body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_body", message)
    }

    pub(crate) fn content_type() -> Self {
        let message = "send a JSON body with the header Content-Type: application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", message)
    }

    pub(crate) fn body_too_large(limit: usize) -> Self {
        let message = format!("the body is larger than the limit of {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    }

    pub(crate) fn body_too_slow() -> Self {
        let message = "the body did not come to its end in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", message)
    }

    pub(crate) fn unauthorized() -> Self {
        let message = "send an API key of this server: Authorization: Bearer KEY";
        Self::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
    }

    pub(crate) fn forbidden_host(host: &str) -> Self {
        let message = format!(
            "the host {host:?} is not one of this server, which listens on loopback; start it with \
             --allow-host {host:?} if it is"
        );
        Self::new(StatusCode::FORBIDDEN, "unknown_host", message)
    }

    pub(crate) fn no_such_model(name: &str, known: &[&str]) -> Self {
        let known = known.join(", ");
        Self {
            param: Some("model".to_owned()),
            ..Self::new(
                StatusCode::NOT_FOUND,
                "model_not_found",
                format!("there is no model {name:?} here; there are: {known}"),
            )
        }
    }

    pub(crate) fn no_such_path(method: &str, path: &str) -> Self {
        let message = format!("there is no {method} {path} here; GET /openapi.json has the paths");
        Self::new(StatusCode::NOT_FOUND, "path_not_found", message)
    }

    pub(crate) fn no_such_method(method: &str, path: &str) -> Self {
        let message = format!("{path} is not asked by {method}; GET /openapi.json has the methods");
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            message,
        )
    }

    pub(crate) fn too_many(waiting: usize, limit: usize, retry_after: u64) -> Self {
        let message = format!(
            "the queue is full ({waiting} sequences wait, the limit is {limit}); come again in \
             {retry_after} s"
        );
        Self {
            retry_after: Some(retry_after),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message)
        }
    }

    pub(crate) fn shutting_down() -> Self {
        let message = "the server shuts down and takes no more work";
        Self {
            retry_after: Some(1),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", message)
        }
    }

    pub(crate) fn deadline() -> Self {
        let message = "the work did not end within its timeout; ask for less, or for more time";
        Self {
            param: Some("timeout".to_owned()),
            ..Self::new(StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded", message)
        }
    }

    /// A fault of the server or of its device.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", message)
    }

    pub(crate) fn with_param(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self
    }

    /// The same for a chat, whose prompt is made of messages.
    pub(crate) fn with_param_of_chat(self) -> Self {
        self.renamed("prompt", "messages")
    }

    /// The same for an infill, whose prompt is its text.
    pub(crate) fn with_param_of_infill(self) -> Self {
        self.renamed("prompt", "text").renamed("max_tokens", "text")
    }

    fn renamed(mut self, from: &str, to: &str) -> Self {
        if self.param.as_deref() == Some(from) {
            self.param = Some(to.to_owned());
        }
        self
    }

    /// The same about an element of a list.
    pub(crate) fn in_list(mut self, at: usize) -> Self {
        if let Some(param) = &mut self.param
            && param == "prompt"
            && at > 0
        {
            *param = format!("prompt[{at}]");
        }
        self
    }

    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// The body of the answer, and of an error within a stream.
    pub(crate) fn to_json(&self) -> Value {
        json!({"error": {
            "message": self.message, "type": self.kind(), "param": self.param, "code": self.code,
        }})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.to_json())).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The field of a setting of the sampler.
fn field_of(what: &str) -> &str {
    match what {
        "gen_length" | "the length of the answer" => "max_tokens",
        "the prompt" => "prompt",
        "allowed" => "response_format",
        "a suffix" => "suffix",
        "logit_boost" => "end_think_boost",
        "power" => "end_think_power",
        what => what,
    }
}

impl From<SampleError> for ApiError {
    fn from(error: SampleError) -> Self {
        let param = match (&error, error.setting()) {
            // An infill has no prompt beside its text.
            (SampleError::NoMask { .. }, _) => "text",
            (_, Some(setting)) => field_of(setting),
            (_, None) => return Self::internal(whole(&error)),
        };
        // A request has a number in its session alone.
        let message = error.to_string();
        let message = message.strip_prefix("request 0: ").unwrap_or(&message);
        Self::field(param, message)
    }
}

impl From<RulesError> for ApiError {
    fn from(error: RulesError) -> Self {
        let param = match error {
            RulesError::Conflict { one, .. } => one,
            RulesError::Needs { what, .. } => what,
        };
        Self::field(param, error.to_string())
    }
}

impl From<DiffusionError> for ApiError {
    fn from(error: DiffusionError) -> Self {
        match error.argument() {
            Some(argument) => Self::field(field_of(argument), error.to_string()),
            None => Self::internal(whole(&error)),
        }
    }
}

impl From<GenerateError> for ApiError {
    fn from(error: GenerateError) -> Self {
        match error {
            GenerateError::Sample(error) => error.into(),
            GenerateError::Diffusion(error) => error.into(),
            // What a client wrote.
            error => Self::field("prompt", whole(&error)),
        }
    }
}

/// An error with its causes.
pub(crate) fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
