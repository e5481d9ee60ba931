//! The scaling experiment: the held-out bound against the compute of training.
//!
//! Source: arXiv 2502.09992, section 3.1; `6 N D` of Kaplan et al. 2020 (arXiv 2001.08361).

use llada_diffusion::{LikelihoodConfig, PredictorKind, ScoredSequence, nats_per_token};

use crate::lines::{not_empty, numbered};
use crate::{BATCH, Observer, Result, Subject};

/// Nats per token of held-out text: of a diffusion model an upper bound (eq. 6), of an
/// autoregressive one the exact figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// Nats per token.
    pub nats_per_token: f64,
    /// Standard error over sequences, Monte Carlo noise included.
    pub standard_error: f64,
    /// Sequences that were scored.
    pub n_sequences: usize,
    /// Tokens of these that were predicted.
    pub n_tokens: usize,
}

/// How held-out text is scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundConfig {
    /// Monte Carlo draws per sequence; an autoregressive model needs none.
    pub mc_samples: usize,
    /// Seed of the masks.
    pub seed: u64,
}

/// A trained model in the picture.
#[derive(Debug, Clone, PartialEq)]
pub struct ScalingPoint {
    /// Name of the run.
    pub name: String,
    /// What was trained.
    pub kind: PredictorKind,
    /// Parameters without the embedding and the head, `N`.
    pub non_embedding_parameters: usize,
    /// Tokens seen in training, `D`.
    pub n_tokens: u64,
    /// What it knows of held-out text.
    pub bound: Bound,
}

impl ScalingPoint {
    /// Operations of the training, `6 N D`.
    #[must_use]
    pub fn flops(&self) -> f64 {
        6.0 * self.non_embedding_parameters as f64 * self.n_tokens as f64
    }
}

/// The documents of a text, one a line, each with its EOS and cut to the context; `limit` of them
/// at even distances if there are more. Unknown characters become the unknown token, as in
/// training.
///
/// # Errors
/// [`crate::Error::Empty`] if there are none, [`crate::Error::Text`] if the tokenizer fails.
pub fn read_documents(
    text: &str,
    limit: Option<usize>,
    subject: &Subject<'_>,
) -> Result<Vec<Vec<u32>>> {
    let info = subject.info();
    let mut documents = Vec::new();
    for (_, line) in numbered(text) {
        let mut ids = subject.tokenizer.encode_text(line)?;
        ids.push(info.eos_token_id);
        ids.truncate(info.max_sequence_length);
        if ids.len() > 1 {
            documents.push(ids);
        }
    }
    let n = documents.len().min(limit.unwrap_or(usize::MAX));
    let chosen = (0..n).map(|i| documents[i * documents.len() / n].clone());
    not_empty(chosen.collect(), "documents")
}

/// Nats per token of documents, all but the first token of each, which is given: an autoregressive
/// model has no probability for it, and the figures of both kinds are about the same tokens.
///
/// `None` if the observer ended it before the first documents were done; otherwise the figure of
/// those that were.
///
/// # Errors
/// If the model fails.
pub fn held_out_bound(
    subject: &Subject<'_>,
    documents: &[Vec<u32>],
    config: BoundConfig,
    observer: &mut Observer<'_>,
) -> Result<Option<Bound>> {
    let (mut nats, mut predicted) = (Vec::new(), Vec::new());
    for (chunk, group) in documents.chunks(BATCH).enumerate() {
        let scored = |tokens| ScoredSequence {
            tokens,
            prompt_len: 1,
        };
        let sequences: Vec<_> = group.iter().map(|tokens| scored(&tokens[..])).collect();
        let config = LikelihoodConfig {
            mc_samples: config.mc_samples,
            seed: config.seed.wrapping_add(chunk as u64),
            ..LikelihoodConfig::default()
        };
        let estimates = subject.log_likelihoods(&sequences, &config)?;
        nats.extend(estimates.iter().map(|x| -x.log_likelihood));
        predicted.extend(group.iter().map(|tokens| tokens.len() - 1));
        if observer(nats.len(), documents.len()).is_break() {
            break;
        }
    }
    let figure = nats_per_token(&nats, &predicted);
    Ok(figure.map(|(nats_per_token, standard_error)| Bound {
        nats_per_token,
        standard_error,
        n_sequences: nats.len(),
        n_tokens: predicted.iter().sum(),
    }))
}
