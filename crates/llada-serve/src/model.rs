//! A model that is served.

use std::sync::{Arc, OnceLock};

use llada::JsonVocabulary;
use llada::Llada;
use llada::diffusion::PredictorInfo;
use llada::model::ModelConfig;
use llada::sample::{Preset, Request};
use llada::text::ChatTemplate;

use crate::error::{ApiError, Result};
use crate::structured::of_structured;

/// A model under a name.
#[derive(Debug)]
pub struct Model {
    /// The name that requests give.
    pub id: String,
    /// The mask predictor with its tokenizer.
    pub llada: Llada,
    /// What makes a prompt of messages; without one the model does not chat.
    pub template: Option<ChatTemplate>,
    /// What rule, cache and blocks are of requests that say nothing of them.
    pub preset: Option<Preset>,
    /// What a pass takes for each of its positions, in bytes.
    row_bytes: usize,
    /// What JSON is written with; made when it is first asked for.
    json: OnceLock<std::result::Result<Arc<JsonVocabulary>, ApiError>>,
}

impl Model {
    /// A model with the configuration that it was loaded with.
    #[must_use]
    pub fn new(
        id: String,
        llada: Llada,
        template: Option<ChatTemplate>,
        config: &ModelConfig,
    ) -> Self {
        // The residual stream, its norm, queries, keys, values, what attention gives, the two sums
        // of a block; gate, up and their product, of all experts that a position is sent to; all f32.
        let experts = config.extras.moe.as_ref().map_or(0, |moe| {
            moe.router.k * moe.expert_width + moe.shared_width.unwrap_or(0)
        });
        let width = config.d_model.max(config.n_heads * config.head_dim());
        let floats = 8 * width + 3 * config.mlp_width().max(experts);
        Self {
            id,
            llada,
            template,
            preset: None,
            row_bytes: floats * size_of::<f32>(),
            json: OnceLock::new(),
        }
    }

    pub(crate) fn info(&self) -> PredictorInfo {
        self.llada.info()
    }

    /// Bytes that a request may hold while it runs: its canvas, its keys and values, and its part
    /// of a pass.
    pub(crate) fn request_bytes(&self, request: &Request) -> usize {
        let (config, info) = (&request.config, self.info());
        let memory = request.memory(&info);
        let n_sequences = if config.cfg_scale > 0.0 { 2 } else { 1 };
        let rows = request.length().saturating_mul(n_sequences);
        (memory.canvas_bytes.saturating_add(memory.cache_bytes))
            .saturating_add(rows.saturating_mul(self.row_bytes))
            .saturating_add(memory.logits_bytes.saturating_mul(n_sequences))
    }

    /// Bytes of a likelihood whose calls have so many tokens, and logits of so many positions.
    pub(crate) fn scoring_bytes(&self, call_tokens: usize, n_logits: usize) -> usize {
        let logits = n_logits.saturating_mul(self.info().vocab_size * size_of::<f32>());
        (call_tokens.saturating_mul(self.row_bytes)).saturating_add(logits)
    }

    /// What this model writes JSON with.
    pub(crate) fn json_vocabulary(&self) -> Result<Arc<JsonVocabulary>> {
        let make = || match self.llada.json_vocabulary() {
            Ok(vocabulary) => Ok(Arc::new(vocabulary)),
            Err(error) => Err(of_structured(error)),
        };
        self.json.get_or_init(make).clone()
    }

    pub(crate) fn chat_template(&self) -> Result<&ChatTemplate> {
        self.template.as_ref().ok_or_else(|| {
            let message = format!(
                "the model {:?} has no chat template, and so takes no messages; ask /v1/completions, \
                 or another model",
                self.id
            );
            ApiError::unsupported("messages", message)
        })
    }
}

/// The model of this name; without one the first.
pub(crate) fn find(models: &[Model], name: Option<&str>) -> Result<usize> {
    let Some(name) = name else {
        return Ok(0);
    };
    let found = models.iter().position(|model| model.id == name);
    found.ok_or_else(|| {
        let known: Vec<&str> = models.iter().map(|model| model.id.as_str()).collect();
        ApiError::no_such_model(name, &known)
    })
}
