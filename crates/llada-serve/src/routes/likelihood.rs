//! `POST /v1/likelihood`: how likely texts are after a prompt.

use axum::extract::State;
use axum::{Extension, Json};
use llada::Prompt;
use llada::diffusion::{Estimate, Estimator, LikelihoodConfig, ScoredSequence, Scoring};
use llada::sample::Request;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::Context;
use crate::body::Body;
use crate::engine::Event;
use crate::error::{ApiError, Result};
use crate::model::{Model, find};
use crate::parts::Parts;
use crate::queue::{Client, Order, Ticket};

/// A text, or its tokens.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text or a list of token ids")]
pub(crate) enum Target {
    Text(String),
    Ids(Vec<u32>),
}

/// Texts to be scored after a prompt.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LikelihoodRequest {
    /// The first model of `/v1/models` if not given.
    model: Option<String>,
    /// What is given; may be empty for a diffusion model.
    prompt: Option<String>,
    /// In place of `prompt` its token ids.
    prompt_tokens: Option<Vec<u32>>,
    /// What is scored, each on its own: texts or token ids. A text is encoded together with a
    /// prompt that is one, and after it comes its EOS if the model was trained to see one.
    targets: Vec<Target>,
    /// `l`: eq. 6 of the paper, a Monte Carlo bound; `t`: eq. 5; `chain`: the chain rule from left
    /// to right, exact, a pass for each token; `confidence`: the same in the order of confidence.
    estimator: Option<String>,
    /// Draws of `l` and `t`; 128 if not given.
    #[schema(minimum = 1)]
    mc_samples: Option<usize>,
    /// Draws that share one random offset (`batch_size` of the reference).
    #[schema(minimum = 1, value_type = Option<usize>)]
    batch_size: Option<std::num::NonZeroUsize>,
    /// Scale of classifier-free guidance; 0 is none.
    #[schema(minimum = 0)]
    cfg_scale: Option<f32>,
    /// Seed of the draws; 0 if not given.
    seed: Option<i64>,
    /// Whether to find out if greedy decoding writes the target, a pass a token at most; true if
    /// not given.
    greedy: Option<bool>,
    /// See completions.
    priority: Option<i32>,
    /// Seconds after which the work is given up.
    timeout: Option<f64>,
}

/// How likely a text is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LikelihoodResult {
    /// In nats: of `l` and `t` an estimate of a lower bound.
    log_likelihood: f64,
    /// Of the estimate, in nats: 0 for what is exact, null if one draw of several was taken.
    standard_error: Option<f64>,
    /// Tokens that were scored.
    tokens: usize,
    /// Whether greedy decoding writes this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    greedy_match: Option<bool>,
}

/// The results, in the order of the targets.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LikelihoodResponse {
    object: &'static str,
    model: String,
    results: Vec<LikelihoodResult>,
}

/// A target with its prompt.
type Pair = (Vec<u32>, Vec<u32>);

/// Scores texts after a prompt.
#[utoipa::path(post, path = "/v1/likelihood", request_body = LikelihoodRequest,
    responses((status = 200, body = LikelihoodResponse), crate::openapi::Errors))]
pub(crate) async fn create(
    State(app): State<Context>,
    Extension(client): Extension<Client>,
    Body(body): Body<LikelihoodRequest>,
) -> Result<Json<LikelihoodResponse>> {
    let at = find(&app.models, body.model.as_deref())?;
    let estimator: Estimator = match &body.estimator {
        None => Estimator::default(),
        Some(name) => name.parse()?,
    };
    if body.targets.is_empty() {
        return Err(ApiError::field("targets", "targets: the list is empty"));
    }
    let config = LikelihoodConfig {
        mc_samples: body.mc_samples.unwrap_or(128),
        batch_size: body.batch_size,
        max_batch_tokens: app.config.limits.max_batch_tokens,
        seed: body.seed.unwrap_or(0).cast_unsigned(),
        first_index: 0,
        estimator,
        cfg_scale: body.cfg_scale.unwrap_or(0.0),
    };
    let order = Order {
        priority: body.priority.unwrap_or(0),
        timeout: body.timeout,
    };
    let ticket = Ticket::new(&client, order, &app.config.limits)?;
    let is_greedy_asked = body.greedy.unwrap_or(true);
    let context = Context::clone(&app);
    let pairs = crate::off_thread(move || pairs(&context.models[at], &body)).await?;

    let model = &app.models[at];
    let mut parts = Parts::new(&app, at, ticket);
    let tokens: Vec<Vec<u32>> = pairs
        .iter()
        .map(|(prompt, target)| [&prompt[..], target].concat())
        .collect();
    let sequences: Vec<ScoredSequence<'_>> = (tokens.iter().zip(&pairs))
        .map(|(tokens, (prompt, _))| ScoredSequence {
            tokens,
            prompt_len: prompt.len(),
        })
        .collect();
    let longest = tokens.iter().map(Vec::len).max().unwrap_or(0);
    let scoring = Scoring::new(&sequences, &config, &model.info())?;
    parts.score(scoring, config.max_batch_tokens.max(longest), 0);
    if is_greedy_asked {
        for (prompt, target) in &pairs {
            parts.write(greedy(model, prompt, target.len(), config.cfg_scale))?;
        }
    }
    let results = results(parts, &pairs, is_greedy_asked).await?;
    Ok(Json(LikelihoodResponse {
        object: "likelihood",
        model: model.id.clone(),
        results,
    }))
}

fn greedy(model: &Model, prompt: &[u32], length: usize, cfg_scale: f32) -> Request {
    model
        .llada
        .greedy_request(prompt.to_vec(), length, cfg_scale)
}

/// The tokens of each target with those of its prompt, as the model may be asked about them.
fn pairs(model: &Model, body: &LikelihoodRequest) -> Result<Vec<Pair>> {
    let info = model.info();
    let prompt: Prompt<'_> = match (&body.prompt, &body.prompt_tokens) {
        (Some(_), Some(_)) => {
            let message = "prompt_tokens cannot be used with prompt: give one of them";
            return Err(ApiError::field("prompt_tokens", message));
        }
        (Some(text), None) => text.as_str().into(),
        (None, Some(ids)) => ids[..].into(),
        (None, None) => Vec::new().into(),
    };
    let pair = |(at, target): (usize, &Target)| {
        let field = format!("targets[{at}]");
        let is_empty = match target {
            Target::Text(text) => text.is_empty(),
            Target::Ids(ids) => ids.is_empty(),
        };
        if is_empty {
            return Err(ApiError::field(&field, format!("{field} is empty")));
        }
        let target: Prompt<'_> = match target {
            Target::Text(text) => text.as_str().into(),
            Target::Ids(ids) => ids[..].into(),
        };
        let pair = model.llada.encode_pair(&prompt, &target);
        let (prompt, target) = pair.map_err(|error| ApiError::from(error).with_param(&field))?;
        for (name, ids) in [("prompt_tokens", &prompt), (&field, &target)] {
            if let Some(id) = ids.iter().find(|&&id| id as usize >= info.vocab_size) {
                let limit = info.vocab_size - 1;
                let message = format!("{name}: token id {id}: the vocabulary ends at {limit}");
                return Err(ApiError::field(name, message));
            }
        }
        let length = prompt.len() + target.len();
        if length > info.max_sequence_length {
            let limit = info.max_sequence_length;
            let message =
                format!("{field}: {length} tokens with the prompt exceed the context of {limit}");
            return Err(ApiError::field(&field, message));
        }
        if info.is_autoregressive() && prompt.is_empty() {
            let message = "prompt: this model is autoregressive and needs a token to go on from";
            return Err(ApiError::field("prompt", message));
        }
        Ok((prompt, target))
    };
    body.targets.iter().enumerate().map(pair).collect()
}

/// Waits for the estimates, and for greedy decoding until it leaves a target.
async fn results(
    parts: Parts,
    pairs: &[Pair],
    is_greedy_asked: bool,
) -> Result<Vec<LikelihoodResult>> {
    let mut events = parts.submit(false)?;
    let mut estimates: Vec<Estimate> = Vec::new();
    let mut matches: Vec<Option<bool>> = vec![None; pairs.len()];
    let is_open = |estimates: &[Estimate], matches: &[Option<bool>]| {
        estimates.is_empty() || (is_greedy_asked && matches.iter().any(Option::is_none))
    };
    while is_open(&estimates, &matches) {
        match events.next().await? {
            (_, Event::Scored(found, _)) => estimates = found,
            (at, Event::Step(step)) => {
                let (prompt, target) = &pairs[at - 1];
                let is_wrong = |revealed: &llada::sample::Revealed| {
                    target.get(revealed.position.wrapping_sub(prompt.len()))
                        != Some(&revealed.token)
                };
                if step.revealed.iter().any(is_wrong) {
                    matches[at - 1] = Some(false);
                    events.stop(at);
                }
            }
            (at, Event::Written(output)) => {
                let is_match = output.answer() == pairs[at - 1].1;
                matches[at - 1].get_or_insert(is_match);
            }
            _ => {}
        }
    }
    let result = |(estimate, greedy_match): (&Estimate, &Option<bool>)| LikelihoodResult {
        log_likelihood: estimate.log_likelihood,
        standard_error: Some(estimate.standard_error).filter(|error| !error.is_nan()),
        tokens: estimate.n_tokens,
        greedy_match: *greedy_match,
    };
    Ok(estimates.iter().zip(&matches).map(result).collect())
}
