//! What a way of sampling costs and keeps: its answers against those of another way.

use std::time::Instant;

use llada_diffusion::{LikelihoodConfig, ScoredSequence};
use llada_sample::{Output, Request};

use crate::{Figure, Observer, Result, Subject};

/// Answers to requests, and what they took.
#[derive(Debug, Clone, PartialEq)]
pub struct Answers {
    /// In the order of the requests; fewer if the observer ended the work.
    pub outputs: Vec<Output>,
    /// Seconds of the sampler, one request at a time.
    pub seconds: f64,
}

/// How far answers are those of another way of sampling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreement {
    /// Share of the answers that are the same.
    pub texts: Figure,
    /// Share of the tokens that are the same in the same place; what one answer has more than the
    /// other counts as different.
    pub tokens: f64,
    /// Mean offset of the first difference, over the answers that have one.
    pub first_difference: Option<f64>,
}

/// Answers requests one at a time, as a single user would ask, and takes the time.
///
/// # Errors
/// If a request is refused or the model fails.
pub fn answer(
    subject: &Subject<'_>,
    requests: &[Request],
    observer: &mut Observer<'_>,
) -> Result<Answers> {
    let mut answers = Answers {
        outputs: Vec::with_capacity(requests.len()),
        seconds: 0.0,
    };
    for (at, request) in requests.iter().enumerate() {
        let start = Instant::now();
        let outputs = subject.sample(std::slice::from_ref(request))?;
        answers.seconds += start.elapsed().as_secs_f64();
        answers.outputs.extend(outputs);
        if observer(at + 1, requests.len()).is_break() {
            break;
        }
    }
    Ok(answers)
}

impl Answers {
    /// Mean of a number of the outputs, such as [`Output::nfe`].
    #[must_use]
    pub fn mean(&self, of: impl Fn(&Output) -> usize) -> f64 {
        let sum: usize = self.outputs.iter().map(of).sum();
        sum as f64 / self.outputs.len() as f64
    }

    /// Compares answers to the same requests, each up to its end. `None` without any.
    #[must_use]
    pub fn agreement(&self, base: &Self, subject: &Subject<'_>) -> Option<Agreement> {
        let pairs = self.outputs.iter().zip(&base.outputs);
        let compared = pairs.map(|(output, base)| {
            let [ours, theirs] = [output, base].map(|output| up_to_end(output, subject));
            let longest = ours.len().max(theirs.len());
            let same = ours.iter().zip(theirs).filter(|(a, b)| a == b).count();
            let differs = |at: &usize| ours.get(*at) != theirs.get(*at);
            ((0..longest).find(differs), same, longest)
        });
        let compared: Vec<(Option<usize>, usize, usize)> = compared.collect();
        let is_same = |(first, ..): &(Option<usize>, usize, usize)| first.is_none();
        let same: Vec<bool> = compared.iter().map(is_same).collect();
        let firsts = compared.iter().filter_map(|(first, ..)| *first);
        let firsts: Vec<f64> = firsts.map(|at| at as f64).collect();
        let (same_tokens, all) = compared
            .iter()
            .fold((0, 0), |(same, all), (_, s, n)| (same + s, all + n));
        Some(Agreement {
            texts: Figure::accuracy(&same)?,
            tokens: same_tokens as f64 / all.max(1) as f64,
            first_difference: Figure::mean(&firsts).map(|figure| figure.mean),
        })
    }

    /// The likelihood bound of the answers in nats a token, under the model as it is without
    /// caches: eq. 6 with `mc_samples` draws a text, whose masks are the same for answers of the
    /// same lengths. Of an answer that ends, what comes after its end is left out; an infilled text
    /// is scored as a whole.
    ///
    /// # Errors
    /// If the model fails, or knows no likelihood.
    pub fn nats_per_token(&self, subject: &Subject<'_>, mc_samples: usize) -> Result<f64> {
        let scored = self.outputs.iter().map(|output| {
            let answer = up_to_end(output, subject).len();
            let has_end = answer < output.answer().len();
            let end = match has_end {
                true => output.prompt_len + answer + 1,
                false => output.tokens.len(),
            };
            ScoredSequence {
                tokens: &output.tokens[..end],
                prompt_len: output.prompt_len,
            }
        });
        let scored: Vec<ScoredSequence<'_>> = scored.collect();
        let config = LikelihoodConfig {
            mc_samples,
            ..LikelihoodConfig::default()
        };
        let estimates = subject.log_likelihoods(&scored, &config)?;
        let sum: f64 = estimates.iter().map(|x| x.log_likelihood).sum();
        let tokens: usize = estimates.iter().map(|x| x.n_tokens).sum();
        Ok(sum / tokens.max(1) as f64)
    }
}

/// The answer before its first end; of an infill the text.
fn up_to_end<'o>(output: &'o Output, subject: &Subject<'_>) -> &'o [u32] {
    let answer = output.answer();
    let is_end = |id: &u32| subject.policy.ends().any(|end| end == *id);
    let end = match output.is_infill {
        true => None,
        false => answer.iter().position(is_end),
    };
    &answer[..end.unwrap_or(answer.len())]
}
