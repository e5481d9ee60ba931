//! A model under evaluation.

use std::fmt;
use std::ops::ControlFlow;

use llada_diffusion::{
    LikelihoodConfig, MaskPredictor, PredictorInfo, ScoredSequence, autoregressive_log_likelihood,
    log_likelihood,
};
use llada_sample::{CacheMode, Output, Request, SampleConfig, sample, sample_autoregressive};
use llada_text::Tokenizer;

use crate::Result;

/// How a model writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// By filling in masks.
    Diffusion,
    /// From left to right; its attention is causal.
    Autoregressive,
}

impl Kind {
    /// The name in results, that of the objective in a training configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Diffusion => "diffusion",
            Self::Autoregressive => "autoregressive",
        }
    }
}

/// A model under evaluation.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The model.
    pub predictor: &'a dyn MaskPredictor,
    /// Its tokenizer. If it has an unknown token, documents end with an EOS, as in training.
    pub tokenizer: &'a Tokenizer,
    /// How it writes.
    pub kind: Kind,
}

impl fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl Subject<'_> {
    pub(crate) fn info(&self) -> PredictorInfo {
        self.predictor.info()
    }

    /// The EOS that ends a document of a character model.
    pub(crate) fn end_of_document(&self) -> Option<u32> {
        let eos = self.info().eos_token_id;
        self.tokenizer.unk_token_id().map(|_| eos)
    }

    /// The surest tokens, one a step, of which none is one of `never`.
    pub(crate) fn greedy_config(&self, gen_length: usize, never: Vec<u32>) -> SampleConfig {
        SampleConfig {
            steps: gen_length,
            gen_length,
            block_length: None,
            suppress_mask: true,
            logits_eos_inf: never,
            cache: match self.kind {
                Kind::Diffusion => CacheMode::None,
                Kind::Autoregressive => CacheMode::Prefix,
            },
            ..SampleConfig::default()
        }
    }

    /// Runs requests by the sampler of the model's kind.
    pub(crate) fn sample(&self, requests: &[Request]) -> Result<Vec<Output>> {
        let mut observer = |_: &llada_sample::StepEvent<'_>| ControlFlow::Continue(());
        Ok(match self.kind {
            Kind::Diffusion => sample(self.predictor, requests, &mut observer),
            Kind::Autoregressive => sample_autoregressive(self.predictor, requests, &mut observer),
        }?)
    }

    /// `ln p(answer | prompt)` of each sequence in nats: eq. 6, or exactly by the chain rule.
    pub(crate) fn log_likelihoods(
        &self,
        sequences: &[ScoredSequence<'_>],
        config: &LikelihoodConfig,
    ) -> Result<Vec<f64>> {
        Ok(match self.kind {
            Kind::Diffusion => {
                let estimates = log_likelihood(self.predictor, sequences, config)?;
                estimates.iter().map(|x| x.log_likelihood).collect()
            }
            Kind::Autoregressive => {
                let tokens = config.max_batch_tokens;
                let values = autoregressive_log_likelihood(self.predictor, sequences, tokens)?;
                values.iter().map(|values| values.iter().sum()).collect()
            }
        })
    }
}
