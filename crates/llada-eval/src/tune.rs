//! Which rule and which cache suit a model and its prompts.

mod prompts;
mod settings;

use llada_sample::{Output, Overrides, Protocol, Request};

use crate::agreement::{Agreement, Answers, answer};
use crate::{Error, Observer, Result, Subject};

pub use prompts::drawn_lines;
use settings::baseline;
pub use settings::{Setting, caches, rules};

/// What a setting costs and keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The setting.
    pub setting: Setting,
    /// What was written.
    pub answers: Answers,
    /// Mean number of calls of the model for an answer.
    pub forwards: f64,
    /// Mean number of positions that they computed.
    pub rows: f64,
    /// Mean seconds of an answer, one request at a time.
    pub seconds: f64,
    /// How far the answers are those of the baseline.
    pub agreement: Agreement,
    /// Their likelihood bound; `None` of a model that knows no likelihoods.
    pub nats_per_token: Option<f64>,
}

/// What became of a setting.
#[derive(Debug)]
pub enum Tried {
    /// It was measured.
    Measured(Box<Measured>),
    /// It does not go with the model or with the prompts.
    Skipped(llada_sample::Error),
    /// The observer ended the work before all prompts were answered.
    Interrupted,
}

/// Measures settings one after the other, the first one as the baseline of the others.
#[derive(Debug)]
pub struct Tuner<'a> {
    subject: &'a Subject<'a>,
    mc_samples: usize,
    base: Option<Answers>,
}

/// Whether a request is refused for what it asks, so that another setting may do.
fn is_refused(error: &llada_sample::Error) -> bool {
    use llada_sample::Error as Of;
    !matches!(error, Of::Predictor(_) | Of::NotANumber { .. })
}

impl<'a> Tuner<'a> {
    /// Of a model; `mc_samples`: draws of the likelihood bound of each answer.
    #[must_use]
    pub fn new(subject: &'a Subject<'a>, mc_samples: usize) -> Self {
        Self {
            subject,
            mc_samples,
            base: None,
        }
    }

    /// Measures a setting, whose requests are those of the same tasks for each. What the sampler
    /// refuses is skipped, but for the baseline.
    ///
    /// # Errors
    /// If the model fails, or the baseline is refused.
    pub fn measure(
        &mut self,
        setting: Setting,
        requests: &[Request],
        observer: &mut Observer<'_>,
    ) -> Result<Tried> {
        if self.base.is_none() {
            // What is done once, such as touching mapped weights, is no part of a setting.
            self.subject.sample(&requests[..requests.len().min(1)])?;
        }
        let answers = match answer(self.subject, requests, observer) {
            Err(Error::Sampler(error)) if self.base.is_some() && is_refused(&error) => {
                return Ok(Tried::Skipped(error));
            }
            answers => answers?,
        };
        if answers.outputs.len() < requests.len() {
            return Ok(Tried::Interrupted);
        }
        let measured = self.compare(setting, answers)?;
        if self.base.is_none() {
            self.base = Some(measured.answers.clone());
        }
        Ok(Tried::Measured(Box::new(measured)))
    }

    fn compare(&self, setting: Setting, answers: Answers) -> Result<Measured> {
        let base = self.base.as_ref().unwrap_or(&answers);
        let empty = Error::Empty { what: "prompts" };
        let agreement = answers.agreement(base, self.subject).ok_or(empty)?;
        let nats_per_token = match answers.nats_per_token(self.subject, self.mc_samples) {
            Err(Error::Predictor(llada_diffusion::Error::Unsupported { .. })) => None,
            nats => Some(nats?),
        };
        Ok(Measured {
            setting,
            forwards: answers.mean(|output: &Output| output.nfe),
            rows: answers.mean(|output: &Output| output.rows),
            seconds: answers.seconds / answers.outputs.len() as f64,
            agreement,
            nats_per_token,
            answers,
        })
    }
}

/// What a setting must keep to be recommended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bars {
    /// Share of the answers that are those of the baseline, in [0, 1].
    pub agreement: f64,
    /// Nats a token that the likelihood bound may lose.
    pub nats: f64,
}

/// The fastest settings that keep what they must.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recommended<'m> {
    /// By the share of equal answers.
    pub by_agreement: Option<&'m Measured>,
    /// By the likelihood bound.
    pub by_nats: Option<&'m Measured>,
}

/// What to take of settings that were measured, the baseline first.
#[must_use]
pub fn recommend(measured: &[Measured], bars: Bars) -> Recommended<'_> {
    let fastest = |keeps: &dyn Fn(&Measured) -> bool| {
        let kept = measured.iter().filter(|row| keeps(row));
        kept.min_by(|a, b| a.seconds.total_cmp(&b.seconds))
    };
    let base = measured.first().and_then(|row| row.nats_per_token);
    Recommended {
        by_agreement: fastest(&|row| row.agreement.texts.mean >= bars.agreement),
        by_nats: fastest(&|row| match (row.nats_per_token, base) {
            (Some(nats), Some(base)) => nats >= base - bars.nats,
            _ => false,
        }),
    }
}

/// The most promising rules that were measured with each of the caches: the fastest of those that
/// keep the share of equal answers or the likelihood bound, `n` of each at most.
#[must_use]
pub fn combinations(measured: &[Measured], bars: Bars, n: usize) -> Vec<Setting> {
    let mut rules: Vec<&Measured> = (measured.iter())
        .filter(|row| row.setting.is_rule_alone())
        .collect();
    rules.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let base = measured.first().and_then(|row| row.nats_per_token);
    let keeps_nats = |row: &&&Measured| match (row.nats_per_token, base) {
        (Some(nats), Some(base)) => nats >= base - bars.nats,
        _ => false,
    };
    let by_text = (rules.iter()).filter(|row| row.agreement.texts.mean >= bars.agreement);
    let by_nats = rules.iter().filter(keeps_nats);
    let mut best: Vec<&Setting> = Vec::new();
    for row in by_text.take(n).chain(by_nats.take(n)) {
        if !best.contains(&&row.setting) {
            best.push(&row.setting);
        }
    }
    let is_cache = |row: &&Measured| row.setting.is_cache_alone();
    let caches: Vec<&Setting> = (measured.iter().filter(is_cache))
        .map(|row| &row.setting)
        .collect();
    let with = |rule: &&Setting| {
        let rule = (*rule).clone();
        caches
            .iter()
            .map(move |cache| rule.clone().with_cache(cache))
    };
    best.iter().flat_map(with).collect()
}

/// The settings that are tried first: the baseline, the rules, then the caches. A model whose keys
/// and values are final always has its cache, which changes nothing, so that there is none to try.
#[must_use]
pub fn settings(subject: &Subject<'_>, base: &Overrides) -> Vec<Setting> {
    let (info, protocol) = (subject.info(), subject.policy.protocol);
    let mut settings = vec![baseline(protocol)];
    settings.extend(rules(protocol));
    let has_final_cache = info.is_autoregressive()
        || matches!(
            protocol,
            Protocol::BlockDiffusion | Protocol::Editing | Protocol::Rewriting { .. }
        );
    if !has_final_cache {
        settings.extend(caches(base.block_length.unwrap_or(32)));
    }
    settings
}
