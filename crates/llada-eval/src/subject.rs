//! A model under evaluation.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;

use llada_diffusion::{
    Estimate, LikelihoodConfig, MaskPredictor, PredictorInfo, PredictorKind, ScoredSequence,
    log_likelihood,
};
use llada_sample::{Output, Policy, Request, sample};
use llada_text::Tokenizer;

use crate::{Error, Result};

/// A model under evaluation.
#[derive(Clone)]
pub struct Subject<'a> {
    /// The model.
    pub predictor: &'a dyn MaskPredictor,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// What a request of it is.
    pub policy: Policy,
    unknown: RefCell<BTreeSet<String>>,
}

impl fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl<'a> Subject<'a> {
    /// A model, its tokenizer, and what a request of it is.
    #[must_use]
    pub fn new(predictor: &'a dyn MaskPredictor, tokenizer: &'a Tokenizer, policy: Policy) -> Self {
        Self {
            predictor,
            tokenizer,
            policy,
            unknown: RefCell::default(),
        }
    }

    /// What the texts of data files that were read so far hold and the vocabulary lacks.
    #[must_use]
    pub fn unknown(&self) -> BTreeSet<String> {
        self.unknown.borrow().clone()
    }

    /// What the model was trained to do.
    #[must_use]
    pub fn kind(&self) -> PredictorKind {
        self.policy.info.kind
    }

    pub(crate) fn info(&self) -> PredictorInfo {
        self.policy.info
    }

    /// The ids of a text of a data file; what the vocabulary lacks is unknown to the model, and a
    /// text of which it has nothing is an error.
    pub(crate) fn encode(&self, line: usize, text: &str) -> Result<Vec<u32>> {
        let encoded = self.tokenizer.encode_keeping(text);
        let encoded = encoded.and_then(llada_text::Encoded::check);
        let encoded = encoded.map_err(|source| Error::BadText { line, source })?;
        let unknown = encoded.unknown.into_iter().map(|unknown| unknown.text);
        self.unknown.borrow_mut().extend(unknown);
        Ok(encoded.ids)
    }

    /// Checks that so many tokens, which a line of a data file needs, fit into the context.
    pub(crate) fn check_length(&self, line: usize, length: usize) -> Result<()> {
        let max_sequence_length = self.info().max_sequence_length;
        if length > max_sequence_length {
            return Err(Error::TooLong {
                line,
                length,
                max_sequence_length,
            });
        }
        Ok(())
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
    ) -> Result<Vec<Estimate>> {
        Ok(log_likelihood(self.predictor, sequences, config)?)
    }
}
