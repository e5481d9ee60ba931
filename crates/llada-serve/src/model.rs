//! A model that is served.

use llada::diffusion::PredictorInfo;
use llada::model::ModelConfig;
use llada::sample::Request;
use llada::text::ChatTemplate;
use llada::Llada;

use crate::error::{ApiError, Result};

/// A model under a name.
#[derive(Debug)]
pub struct Model {
    /// The name that requests give.
    pub id: String,
    /// The mask predictor with its tokenizer.
    pub llada: Llada,
    /// What makes a prompt of messages; without one the model does not chat.
    pub template: Option<ChatTemplate>,
    /// What a pass takes for each of its positions, in bytes.
    row_bytes: usize,
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
        // of a block; gate, up and their product; all f32.
        let floats = 8 * config.d_model + 3 * config.mlp_width();
        Self {
            id,
            llada,
            template,
            row_bytes: floats * size_of::<f32>(),
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
        // A nucleus is taken of logits on the host.
        let logits = match config.nucleus.is_all() {
            true => 0,
            false => rows.saturating_mul(info.vocab_size * size_of::<f32>()),
        };
        (memory.canvas_bytes.saturating_add(memory.cache_bytes))
            .saturating_add(rows.saturating_mul(self.row_bytes))
            .saturating_add(logits)
    }

    /// Bytes of a likelihood whose calls have so many tokens, and logits of so many positions.
    pub(crate) fn scoring_bytes(&self, call_tokens: usize, n_logits: usize) -> usize {
        let logits = n_logits.saturating_mul(self.info().vocab_size * size_of::<f32>());
        (call_tokens.saturating_mul(self.row_bytes)).saturating_add(logits)
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
