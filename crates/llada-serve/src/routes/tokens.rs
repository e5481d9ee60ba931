//! `/tokenize`, `/detokenize` and `/tokenizer_info`, in the form of vLLM's, which
//! lm-evaluation-harness asks.

use axum::Json;
use axum::extract::Query;
use axum::extract::State;
use axum::extract::rejection::QueryRejection;
use llada::GenerateError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::app::Context;
use crate::body::Body;
use crate::error::{ApiError, Result};
use crate::model::find;

/// A text for its tokens.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenizeRequest {
    model: Option<String>,
    /// The text; a mask token written out is text.
    prompt: String,
    /// Not used: a tokenizer that adds special tokens does so, as for a prompt.
    add_special_tokens: Option<bool>,
}

/// The tokens of a text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenizeResponse {
    tokens: Vec<u32>,
    count: usize,
    /// Longest sequence of the model.
    max_model_len: usize,
}

/// The tokens that a prompt has.
#[utoipa::path(post, path = "/tokenize", request_body = TokenizeRequest,
    responses((status = 200, body = TokenizeResponse), crate::openapi::Errors))]
pub(crate) async fn tokenize(
    State(app): State<Context>,
    Body(body): Body<TokenizeRequest>,
) -> Result<Json<TokenizeResponse>> {
    let at = find(&app.models, body.model.as_deref())?;
    let _ = body.add_special_tokens;
    crate::off_thread(move || {
        let llada = &app.models[at].llada;
        // A text of which nothing is known has tokens all the same: the unknown one.
        let encoded = llada.tokenizer.encode_keeping(&body.prompt);
        let tokens = encoded.map_err(GenerateError::from)?.ids;
        Ok(Json(TokenizeResponse {
            count: tokens.len(),
            tokens,
            max_model_len: llada.info().max_sequence_length,
        }))
    })
    .await
}

/// Tokens for their text.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DetokenizeRequest {
    model: Option<String>,
    tokens: Vec<u32>,
}

/// The text of tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DetokenizeResponse {
    prompt: String,
}

/// The text that tokens have, special tokens included.
#[utoipa::path(post, path = "/detokenize", request_body = DetokenizeRequest,
    responses((status = 200, body = DetokenizeResponse), crate::openapi::Errors))]
pub(crate) async fn detokenize(
    State(app): State<Context>,
    Body(body): Body<DetokenizeRequest>,
) -> Result<Json<DetokenizeResponse>> {
    let at = find(&app.models, body.model.as_deref())?;
    crate::off_thread(move || {
        let llada = &app.models[at].llada;
        let limit = llada.info().vocab_size;
        if let Some(id) = body.tokens.iter().find(|&&id| id as usize >= limit) {
            let message = format!("token id {id}: the vocabulary ends at {}", limit - 1);
            return Err(ApiError::field("tokens", message));
        }
        let prompt = llada.tokenizer.decode(&body.tokens, false);
        let prompt = prompt.map_err(|error| ApiError::field("tokens", error.to_string()))?;
        Ok(Json(DetokenizeResponse { prompt }))
    })
    .await
}

/// Which model is asked about.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    model: Option<String>,
}

/// The special tokens and the chat template of a model.
#[utoipa::path(get, path = "/tokenizer_info",
    params(("model" = Option<String>, Query, description = "The first one if not given")),
    responses((status = 200, body = Value), crate::openapi::Errors))]
pub(crate) async fn info(
    State(app): State<Context>,
    which: std::result::Result<Query<Which>, QueryRejection>,
) -> Result<Json<Value>> {
    let Query(which) = which.map_err(|error| ApiError::body(error.body_text()))?;
    let model = &app.models[find(&app.models, which.model.as_deref())?];
    let (info, tokenizer) = (model.info(), &model.llada.tokenizer);
    let mut fields = Map::new();
    for (name, text) in model
        .template
        .iter()
        .flat_map(|template| template.special())
    {
        fields.insert(name.clone(), json!(text));
    }
    let eos = tokenizer.token(info.eos_token_id);
    for (name, token) in [
        ("eos_token", eos.clone()),
        ("bos_token", None),
        // The published models pad with the EOS.
        ("pad_token", eos),
        ("mask_token", tokenizer.token(info.mask_token_id)),
    ] {
        fields.entry(name).or_insert(json!(token));
    }
    let template = model.template.as_ref().map(|template| template.source());
    fields.insert("chat_template".to_owned(), json!(template));
    fields.insert("model".to_owned(), json!(model.id));
    fields.insert(
        "model_max_length".to_owned(),
        json!(info.max_sequence_length),
    );
    fields.insert("vocab_size".to_owned(), json!(info.vocab_size));
    Ok(Json(Value::Object(fields)))
}
