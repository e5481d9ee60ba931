//! `GET /v1/models`.

use axum::Json;
use axum::extract::{Path, State};
use llada::sample::AnswerLength;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::{App, Context};
use crate::error::Result;
use crate::model::{Model, find};

/// A model that answers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelCard {
    id: String,
    #[schema(example = "model")]
    object: &'static str,
    /// Seconds since 1970 at which the server started.
    created: u64,
    owned_by: &'static str,
    llada: ModelFacts,
}

/// What is special about a model of this server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelFacts {
    /// `diffusion` or `autoregressive`.
    kind: &'static str,
    /// The loop that it was published with: `llada`, `variable_length`, `block_diffusion` (LLaDA2.0),
    /// `editing`, `rewriting` (LLaDA2.2) or `dream`.
    protocol: &'static str,
    vocab_size: usize,
    /// Tokens of prompt and answer.
    max_sequence_length: usize,
    mask_token: Option<String>,
    mask_token_id: u32,
    eos_token_id: u32,
    has_chat_template: bool,
    is_character_level: bool,
    /// Tokens of an answer if none are asked for; null where that depends on the prompt.
    default_gen_length: Option<usize>,
}

/// The models of this server, the default one first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelList {
    #[schema(example = "list")]
    object: &'static str,
    data: Vec<ModelCard>,
}

fn card(app: &App, model: &Model) -> ModelCard {
    let (info, llada) = (model.info(), &model.llada);
    ModelCard {
        id: model.id.clone(),
        object: "model",
        created: app.config.started,
        owned_by: "llada",
        llada: ModelFacts {
            kind: info.kind.name(),
            protocol: llada.protocol.name(),
            vocab_size: info.vocab_size,
            max_sequence_length: info.max_sequence_length,
            mask_token: llada.tokenizer.token(info.mask_token_id),
            mask_token_id: info.mask_token_id,
            eos_token_id: info.eos_token_id,
            has_chat_template: model.template.is_some(),
            is_character_level: llada.tokenizer.is_character_level(),
            default_gen_length: match llada.answer_length {
                AnswerLength::Tokens(_) => Some(llada.policy().gen_length(0)),
                AnswerLength::Prompts(_) => None,
            },
        },
    }
}

/// The models that answer.
#[utoipa::path(get, path = "/v1/models", responses((status = 200, body = ModelList)))]
pub(crate) async fn list(State(app): State<Context>) -> Json<ModelList> {
    let data = app.models.iter().map(|model| card(&app, model)).collect();
    Json(ModelList {
        object: "list",
        data,
    })
}

/// One model.
#[utoipa::path(get, path = "/v1/models/{model}",
    params(("model" = String, Path, description = "Its name")),
    responses((status = 200, body = ModelCard), (status = 404, body = crate::openapi::ErrorBody)))]
pub(crate) async fn one(
    State(app): State<Context>,
    Path(model): Path<String>,
) -> Result<Json<ModelCard>> {
    let at = find(&app.models, Some(&model))?;
    Ok(Json(card(&app, &app.models[at])))
}
