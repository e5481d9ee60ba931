//! A model under evaluation.

use std::fmt;
use std::ops::ControlFlow;

use llada_diffusion::{
    LikelihoodConfig, MaskPredictor, PredictorInfo, PredictorKind, ScoredSequence, log_likelihood,
};
use llada_sample::{Output, Policy, Request, sample};
use llada_text::Tokenizer;

use crate::Result;

/// A model under evaluation.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The model.
    pub predictor: &'a dyn MaskPredictor,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// What a request of it is.
    pub policy: Policy,
}

impl fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl Subject<'_> {
    /// What the model was trained to do.
    #[must_use]
    pub fn kind(&self) -> PredictorKind {
        self.policy.info.kind
    }

    pub(crate) fn info(&self) -> PredictorInfo {
        self.policy.info
    }

    pub(crate) fn sample(&self, requests: &[Request]) -> Result<Vec<Output>> {
        let mut observer = |_: &llada_sample::StepEvent<'_>| ControlFlow::Continue(());
        Ok(sample(self.predictor, requests, &mut observer)?)
    }

    /// `ln p(answer | prompt)` of each sequence in nats: eq. 6, or exactly by the chain rule.
    pub(crate) fn log_likelihoods(
        &self,
        sequences: &[ScoredSequence<'_>],
        config: &LikelihoodConfig,
    ) -> Result<Vec<f64>> {
        let estimates = log_likelihood(self.predictor, sequences, config)?;
        Ok(estimates.iter().map(|x| x.log_likelihood).collect())
    }
}
