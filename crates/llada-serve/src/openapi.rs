//! `/openapi.json`: the routes, as they are in the code.

use axum::Json;
use serde::Serialize;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{IntoResponses, Modify, OpenApi, ToSchema};

use crate::routes;

/// What went wrong, in the form of OpenAI's interface.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorFields,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorFields {
    /// What is wrong, and what to do.
    message: String,
    #[serde(rename = "type")]
    kind: String,
    /// The field of the request that is to blame.
    param: Option<String>,
    code: String,
}

/// How a route that takes a body can fail.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it says in /openapi.json which errors there are")]
pub(crate) enum Errors {
    /// A field does not fit, or is not supported.
    #[response(status = 400)]
    BadRequest(ErrorBody),
    /// No API key of this server.
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// A name of the server that is not its own.
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// No such model.
    #[response(status = 404)]
    NotFound(ErrorBody),
    /// The body did not come in time.
    #[response(status = 408)]
    TooSlow(ErrorBody),
    /// The body is too large.
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// The body is not JSON by its header.
    #[response(status = 415)]
    NotJson(ErrorBody),
    /// The queue is full; Retry-After says when to come again.
    #[response(status = 429)]
    TooMany(ErrorBody),
    /// A fault of the server.
    #[response(status = 500)]
    Failed(ErrorBody),
    /// The server shuts down.
    #[response(status = 503)]
    Unavailable(ErrorBody),
    /// The work did not end in time.
    #[response(status = 504)]
    TimedOut(ErrorBody),
}

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("api_key", SecurityScheme::Http(scheme));
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "llada",
        description = "Masked diffusion language models over HTTP: OpenAI's interface, infilling, \
                       likelihoods, and the denoising as it happens.",
    ),
    paths(
        routes::models::list,
        routes::models::one,
        routes::completions::create,
        routes::chat::create,
        routes::infill::create,
        routes::likelihood::create,
        routes::tokens::tokenize,
        routes::tokens::detokenize,
        routes::tokens::info,
        routes::health,
        routes::metrics,
    ),
    modifiers(&Bearer),
    security((), ("api_key" = [])),
)]
struct Document;

/// The document.
pub(crate) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}
