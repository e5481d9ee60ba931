//! The reversal experiment: which line of a couplet does a model know from the other one?
//!
//! Source: arXiv 2502.09992, section 3.3 (completion of famous Chinese poems).

use std::collections::{BTreeMap, BTreeSet};

use llada_diffusion::{LikelihoodConfig, PredictorKind, ScoredSequence};
use llada_sample::{Overrides, Request, SampleConfig};

use crate::lines::{not_empty, numbered};
use crate::{BATCH, Error, Observer, Result, Subject};

/// What ends a line of a couplet.
const ENDS: [char; 7] = ['，', '。', '？', '！', '；', '：', '、'];

/// A couplet as tokens: first line, its punctuation, second line, its punctuation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Couplet {
    /// The first line.
    pub first: Vec<u32>,
    /// What stands between the lines.
    pub between: Vec<u32>,
    /// The second line.
    pub second: Vec<u32>,
    /// What ends the couplet.
    pub end: Vec<u32>,
}

impl Couplet {
    fn new(text: &str, line: usize, subject: &Subject<'_>) -> Result<Self> {
        let expected = "expected a couplet such as 白日依山尽，黄河入海流。";
        let bad = || Error::BadLine { line, expected };
        let marks: Vec<(usize, &str)> = text.match_indices(ENDS).collect();
        let &[(a, first_mark), (b, last_mark)] = &marks[..] else {
            return Err(bad());
        };
        let after_first = a + first_mark.len();
        if a == 0 || b == after_first || b + last_mark.len() != text.len() {
            return Err(bad());
        }
        let ids = |text: &str| subject.encode(line, text);
        let couplet = Self {
            first: ids(&text[..a])?,
            between: ids(&text[a..after_first])?,
            second: ids(&text[after_first..b])?,
            end: ids(&text[b..])?,
        };
        subject.check_length(line, couplet.tokens().len() + 1)?;
        Ok(couplet)
    }

    /// The whole couplet.
    fn tokens(&self) -> Vec<u32> {
        [&self.first[..], &self.between, &self.second, &self.end].concat()
    }
}

/// The couplets of a text, one a line, in the tokens of the subject; `limit` of them at even
/// distances if there are more.
///
/// # Errors
/// [`Error::BadLine`] for a line that is no couplet, [`Error::BadText`] for one that the tokenizer
/// does not know, [`Error::TooLong`], [`Error::Empty`].
pub fn read_couplets(
    text: &str,
    limit: Option<usize>,
    subject: &Subject<'_>,
) -> Result<Vec<Couplet>> {
    let all: Vec<(usize, &str)> = numbered(text).collect();
    let n = all.len().min(limit.unwrap_or(all.len()));
    let chosen = (0..n).map(|i| all[i * all.len() / n]);
    let couplets = chosen.map(|(line, text)| Couplet::new(text, line, subject));
    not_empty(couplets.collect::<Result<_>>()?, "couplets")
}

/// How many tokens of each line of a couplet a model found, given the other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recall {
    /// Right tokens of the second line and its length: the first one is given.
    pub forward: (usize, usize),
    /// Right tokens of the first line and its length: the second one is given.
    pub reversal: (usize, usize),
}

impl Recall {
    /// Whether the second line was found.
    #[must_use]
    pub fn is_forward(&self) -> bool {
        self.forward.0 == self.forward.1
    }

    /// Whether the first line was found.
    #[must_use]
    pub fn is_reversal(&self) -> bool {
        self.reversal.0 == self.reversal.1
    }
}

/// Asks for both lines of each couplet.
///
/// A diffusion model fills the line's place, a token a step, the surest first. An autoregressive
/// one continues greedily, with as many tokens as the line has: forward after the first line, and
/// for the reversal after the second line, which it has no other way to see. Neither may write
/// special tokens.
///
/// Fewer couplets come back than were given if the observer ended it.
///
/// # Errors
/// If the model fails.
pub fn recall(
    subject: &Subject<'_>,
    couplets: &[Couplet],
    observer: &mut Observer<'_>,
) -> Result<Vec<Recall>> {
    let mut recalls = Vec::with_capacity(couplets.len());
    for chunk in couplets.chunks(BATCH) {
        let requests = |request: fn(&Subject<'_>, &Couplet) -> Result<Request>| {
            let requests = chunk.iter().map(|couplet| request(subject, couplet));
            requests.collect::<Result<Vec<Request>>>()
        };
        let forward = subject.sample(&requests(forward)?)?;
        let reversal = subject.sample(&requests(reversal)?)?;
        for ((couplet, forward), reversal) in chunk.iter().zip(&forward).zip(&reversal) {
            let second = couplet.first.len() + couplet.between.len();
            let (forward, reversal) = match subject.kind() {
                PredictorKind::Diffusion => (&forward.tokens[second..], &reversal.tokens[..]),
                PredictorKind::Autoregressive => (forward.answer(), reversal.answer()),
            };
            recalls.push(Recall {
                forward: compare(forward, &couplet.second),
                reversal: compare(reversal, &couplet.first),
            });
        }
        if observer(recalls.len(), couplets.len()).is_break() {
            break;
        }
    }
    Ok(recalls)
}

/// How many tokens are right, of how many.
fn compare(written: &[u32], line: &[u32]) -> (usize, usize) {
    let right = written.iter().zip(line).filter(|(a, b)| a == b).count();
    (right, line.len())
}

fn forward(subject: &Subject<'_>, couplet: &Couplet) -> Result<Request> {
    let masks = vec![subject.info().mask_token_id; couplet.second.len()];
    let given = [&couplet.first[..], &couplet.between].concat();
    match subject.kind() {
        PredictorKind::Diffusion => fill(subject, [&given[..], &masks, &couplet.end].concat()),
        PredictorKind::Autoregressive => proceed(subject, given, masks.len()),
    }
}

fn reversal(subject: &Subject<'_>, couplet: &Couplet) -> Result<Request> {
    let masks = vec![subject.info().mask_token_id; couplet.first.len()];
    let given = [&couplet.second[..], &couplet.end].concat();
    match subject.kind() {
        PredictorKind::Diffusion => fill(subject, [&masks[..], &couplet.between, &given].concat()),
        PredictorKind::Autoregressive => proceed(subject, given, masks.len()),
    }
}

fn fill(subject: &Subject<'_>, canvas: Vec<u32>) -> Result<Request> {
    let task = Request::infill(canvas, SampleConfig::default()).task;
    Ok(subject.policy.request(task, true, &Overrides::default())?)
}

fn proceed(subject: &Subject<'_>, prompt: Vec<u32>, length: usize) -> Result<Request> {
    let overrides = Overrides {
        gen_length: Some(length),
        logits_eos_inf: true,
        ..Overrides::default()
    };
    let task = Request::generate(prompt, SampleConfig::default()).task;
    Ok(subject.policy.request(task, false, &overrides)?)
}

/// Lets an autoregressive model choose the first line of each couplet among `n_candidates` of the
/// same length by the likelihood of the whole couplet, `p(A) p(B | A)`: what it knows of the
/// reversal and cannot say. Of `A` all but its first token counts, as that has no probability.
///
/// The other candidates are first lines of couplets at even distances in the list. A couplet
/// without as many others of its length is left out, so that chance is `1 / n_candidates`.
/// Returns whether each choice was right, for those before the observer ended it.
///
/// # Errors
/// If the model fails.
pub fn choose_first_lines(
    subject: &Subject<'_>,
    couplets: &[Couplet],
    n_candidates: usize,
    observer: &mut Observer<'_>,
) -> Result<Vec<bool>> {
    let lines = FirstLines::new(couplets);
    let config = LikelihoodConfig::default();
    let mut right = Vec::new();
    for (index, couplet) in couplets.iter().enumerate() {
        let mut couplet = couplet.clone();
        let mut texts = Vec::with_capacity(n_candidates);
        for first in lines.candidates(&couplet.first, n_candidates) {
            couplet.first = first;
            texts.push(couplet.tokens());
        }
        if texts.len() == n_candidates {
            let prompt_len = 1;
            let scored = |tokens| ScoredSequence { tokens, prompt_len };
            let sequences: Vec<_> = texts.iter().map(|tokens| scored(tokens)).collect();
            let estimates = subject.log_likelihoods(&sequences, &config)?;
            let value = |at: usize| estimates[at].log_likelihood;
            // A tie, or a value that is no number, is not right.
            right.push((1..estimates.len()).all(|other| value(0) > value(other)));
        }
        let done = index + 1;
        let is_told = done.is_multiple_of(BATCH) || done == couplets.len();
        if is_told && observer(done, couplets.len()).is_break() {
            break;
        }
    }
    Ok(right)
}

/// Different first lines, by their length and in the order of the couplets.
struct FirstLines<'a>(BTreeMap<usize, Vec<&'a [u32]>>);

impl<'a> FirstLines<'a> {
    fn new(couplets: &'a [Couplet]) -> Self {
        let (mut seen, mut lines) = (BTreeSet::new(), BTreeMap::<usize, Vec<&[u32]>>::new());
        for first in couplets.iter().map(|couplet| &couplet.first[..]) {
            if seen.insert(first) {
                lines.entry(first.len()).or_default().push(first);
            }
        }
        Self(lines)
    }

    /// `own`, then other lines of its length: at most `n` in all.
    fn candidates(&self, own: &[u32], n: usize) -> Vec<Vec<u32>> {
        let of_length = self.0.get(&own.len()).map_or(&[][..], Vec::as_slice);
        let at = of_length.iter().position(|&line| line == own).unwrap_or(0);
        let others = of_length.len().saturating_sub(1);
        let n = n.saturating_sub(1).min(others);
        let spread = (0..n).map(|i| of_length[(at + 1 + i * others / n) % of_length.len()]);
        let candidates = std::iter::once(own).chain(spread);
        candidates.map(<[u32]>::to_vec).collect()
    }
}
