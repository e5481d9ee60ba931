//! The choice of a token per row.

use llada_tensor::backend::{CandidateArgs, Rhs};
use llada_tensor::ops::candidates::{Candidate, CandidateRule, Noise, candidates, reduce_logits};
use llada_tensor::{Device, Philox, Precision, Stream};
use proptest::prelude::*;

use crate::reference;
use crate::support::{devices, max_error, normal, of, same_bits, scalar, widen};

const D: usize = 24;

/// Hidden states with and without a condition, and a head.
struct Inputs {
    rows: usize,
    vocab_size: usize,
    hidden: Vec<f32>,
    unconditional: Vec<f32>,
    head: Vec<f32>,
    bias: Vec<f32>,
}

impl Inputs {
    fn new(rows: usize, vocab_size: usize) -> Self {
        Self {
            rows,
            vocab_size,
            hidden: normal(1, rows * D),
            unconditional: normal(2, rows * D),
            head: normal(3, vocab_size * D),
            bias: normal(4, vocab_size),
        }
    }

    fn run(&self, device: &Device, rule: &CandidateRule<'_>, noise: &Noise<'_>) -> Vec<Candidate> {
        let head = of(device, &[self.vocab_size, D], &self.head);
        let unconditional = of(device, &[self.rows, D], &self.unconditional);
        let args = CandidateArgs {
            hidden: &of(device, &[self.rows, D], &self.hidden),
            unconditional: (rule.cfg_scale > 0.0).then_some(&unconditional),
            head: Rhs::Weight(&head),
            bias: Some(&of(device, &[self.vocab_size], &self.bias)),
            rule,
            noise,
            precision: Precision::F32,
        };
        candidates(args).expect("fits")
    }

    /// Guided logits `[N, V]`.
    fn logits(&self, cfg_scale: f32) -> Vec<f64> {
        let (head, bias) = (widen(&self.head), widen(&self.bias));
        let logits = |x: &[f32]| reference::add(&reference::linear(&widen(x), &head, D), &bias);
        let cond = logits(&self.hidden);
        if cfg_scale > 0.0 {
            let un = logits(&self.unconditional);
            let guide = |(c, u): (&f64, &f64)| u + (f64::from(cfg_scale) + 1.0) * (c - u);
            return cond.iter().zip(&un).map(guide).collect();
        }
        cond
    }
}

/// Confidence, margin and entropy of one row with some ids left out, and each token's score.
fn exact(
    logits: &[f64],
    row: usize,
    rule: &CandidateRule<'_>,
    uniform: &[f64],
) -> (Vec<f64>, impl Fn(u32) -> [f64; 3]) {
    let v = logits.len();
    let hidden = |id: u32| rule.suppress.contains(&id);
    let counts = |id: u32| !hidden(id) && !rule.suppress_confidence.contains(&id);
    let scores = (0..v).map(|id| match hidden(id as u32) {
        true => f64::NEG_INFINITY,
        false => logits[id] - rule.temperature * (-uniform[row * v + id].ln()).ln(),
    });
    let sum: f64 = (0..v)
        .filter(|&id| counts(id as u32))
        .map(|id| logits[id].exp())
        .sum();
    let p: Vec<f64> = (0..v)
        .map(|id| f64::from(u8::from(counts(id as u32))) * logits[id].exp() / sum)
        .collect();
    let mut sorted = p.clone();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let margin = sorted[0] - sorted.get(1).copied().unwrap_or(0.0);
    let entropy: f64 = p.iter().filter(|&&p| p > 0.0).map(|p| -p * p.ln()).sum();
    (scores.collect(), move |id| {
        [p[id as usize], margin, entropy]
    })
}

/// The chosen token has the best score up to the rounding of the logits, and its numbers are
/// those of the distribution: a relative error of the logits' absolute one, which is that of a
/// sum of 24 products of about one, times three for the guidance.
#[track_caller]
fn check(rows: usize, vocab_size: usize, rule: &CandidateRule<'_>) {
    let inputs = Inputs::new(rows, vocab_size);
    let rng = Philox::new(7, Stream::Test);
    let uniform: Vec<f64> = (0..rows * vocab_size)
        .map(|at| rng.uniform_f64([at as u32, 0, 0]))
        .collect();
    let logits = inputs.logits(rule.cfg_scale);
    let bound = 3.0 * (D as f64 + 8.0) * f64::from(f32::EPSILON) * 8.0;
    let noise = match rule.temperature > 0.0 {
        true => Noise::Recorded(&uniform),
        false => Noise::None,
    };
    for (name, device) in devices() {
        let chosen = inputs.run(device, rule, &noise);
        assert_eq!(chosen.len(), rows, "{name}");
        for (row, candidate) in chosen.iter().enumerate() {
            let logits = &logits[row * vocab_size..][..vocab_size];
            let (scores, numbers) = exact(logits, row, rule, &uniform);
            let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let score = scores[candidate.token as usize];
            assert!(score >= best - bound, "{name}: {score} < {best}");
            let Candidate {
                confidence,
                margin,
                entropy,
                ..
            } = *candidate;
            let error = max_error(&[confidence, margin, entropy], &numbers(candidate.token));
            assert!(error <= bound * 8.0, "{name}: {error:e} in {candidate:?}");
        }
    }
}

#[test]
fn agrees_with_f64() {
    let plain = CandidateRule::default();
    check(0, 5, &plain);
    check(5, 40, &plain);
    // Several tiles of the vocabulary.
    check(3, 4200, &plain);
    check(
        4,
        60,
        &CandidateRule {
            temperature: 0.8,
            ..plain
        },
    );
    check(
        4,
        60,
        &CandidateRule {
            cfg_scale: 1.5,
            ..plain
        },
    );
    check(
        4,
        60,
        &CandidateRule {
            suppress: &[0, 7, 59],
            ..plain
        },
    );
    check(
        4,
        60,
        &CandidateRule {
            suppress_confidence: &[1, 2, 58],
            ..plain
        },
    );
}

/// Philox noise depends on the row's seed and key only, and threads change nothing.
#[test]
fn a_row_does_not_depend_on_the_other_rows_or_on_threads() {
    let rule = CandidateRule {
        temperature: 1.0,
        cfg_scale: 0.5,
        ..CandidateRule::default()
    };
    let all = Inputs::new(150, 5000);
    let keys: Vec<[u32; 3]> = (0..150).map(|i| [i, 3 * i, 5]).collect();
    let seeds: Vec<u64> = (0..150).collect();
    let row = 133;
    let one = Inputs {
        rows: 1,
        hidden: all.hidden[row * D..][..D].to_vec(),
        unconditional: all.unconditional[row * D..][..D].to_vec(),
        ..Inputs::new(0, 5000)
    };
    for pair in devices().chunks_exact(2) {
        let noise = Noise::Philox {
            seeds: &seeds,
            keys: &keys,
        };
        let full = all.run(&pair[0].1, &rule, &noise);
        assert_eq!(full, all.run(&pair[1].1, &rule, &noise), "{}", pair[0].0);
        let noise = Noise::Philox {
            seeds: &seeds[row..=row],
            keys: &keys[row..=row],
        };
        assert_eq!(
            full[row],
            one.run(&pair[0].1, &rule, &noise)[0],
            "{}",
            pair[0].0
        );
    }
}

#[test]
fn nothing_to_choose_from_is_nan() {
    let rule = CandidateRule {
        suppress: &[0, 1],
        ..CandidateRule::default()
    };
    assert!(
        reduce_logits(&[1.0, 2.0], 0, &rule, &Noise::None)
            .confidence
            .is_nan()
    );
    let rule = CandidateRule::default();
    let logits = [1.0, f32::NAN, 0.0];
    assert!(
        reduce_logits(&logits, 0, &rule, &Noise::None)
            .confidence
            .is_nan()
    );
    let logits = [f32::NEG_INFINITY, 3.0, f32::NEG_INFINITY];
    let certain = reduce_logits(&logits, 0, &rule, &Noise::None);
    same_bits(
        "certain",
        &[certain.confidence, certain.margin, certain.entropy],
        &[1.0, 1.0, 0.0],
    );
    assert_eq!(certain.token, 1);
    let inputs = Inputs::new(2, 2);
    let rule = CandidateRule {
        suppress: &[0, 1],
        ..rule
    };
    assert!(
        inputs.run(scalar(), &rule, &Noise::None)[1]
            .confidence
            .is_nan()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn odd_shapes(rows in 0usize..20, vocab_size in 1usize..90, noisy: bool) {
        let temperature = if noisy { 1.0 } else { 0.0 };
        check(rows, vocab_size, &CandidateRule { temperature, ..CandidateRule::default() });
    }
}
