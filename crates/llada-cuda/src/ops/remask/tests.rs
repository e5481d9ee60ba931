//! Remasking against a plain form of the sampler's rules.
#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

use std::cmp::Ordering;

use llada_diffusion::{Candidate, Keep, RankBy, RemaskRule};
use llada_tensor::{Philox, Stream};

use super::{Masks, launch, rule_words};
use crate::context::Context;
use crate::driver::{CudaConfig, open};

const MASK: u32 = 99;

/// A rule with the positions and candidates of its rows.
struct Sequence {
    rule: RemaskRule,
    positions: Vec<u32>,
    candidates: Vec<Candidate>,
}

/// Draws that are the same in every run.
struct Draws(u32);

impl Draws {
    fn below(&mut self, n: u32) -> u32 {
        self.0 += 1;
        let draw = Philox::new(3, Stream::Test).below(u64::from(n), [self.0, 0, 0]);
        u32::try_from(draw).unwrap()
    }

    /// One of few values, so that many are equal.
    fn coarse(&mut self, n: u32) -> f32 {
        self.below(n) as f32 / n as f32
    }
}

/// A sequence of so many rows, some of which are no longer masked, after what the canvas has.
fn sequence(draws: &mut Draws, rows: u32, has_nan: bool, canvas: &mut Vec<u32>) -> Sequence {
    let rank_by = [RankBy::Confidence, RankBy::Margin, RankBy::Entropy][draws.below(3) as usize];
    let keep = match draws.below(3) {
        0 => Keep::Quota(draws.below(12)),
        1 => Keep::Threshold(draws.coarse(10)),
        _ => Keep::Factor(draws.coarse(7) + 0.1),
    };
    let (mut positions, mut candidates) = (Vec::new(), Vec::new());
    for _ in 0..rows {
        positions.push(u32::try_from(canvas.len()).unwrap());
        canvas.push(if draws.below(10) < 7 { MASK } else { 1 });
        if draws.below(4) == 0 {
            // Masked, but not of the step.
            canvas.push(MASK);
        }
        let is_nan = has_nan && draws.below(10) == 0;
        candidates.push(Candidate {
            token: if draws.below(10) == 0 {
                MASK
            } else {
                draws.below(50)
            },
            confidence: if is_nan { f32::NAN } else { draws.coarse(20) },
            margin: draws.coarse(8),
            entropy: draws.coarse(8),
        });
    }
    Sequence {
        rule: RemaskRule {
            rows: rows as usize,
            rank_by,
            keep,
        },
        positions,
        candidates,
    }
}

/// What `llada-sample` does with the masks of one sequence, and with NaN, which it refuses, last.
fn plain(sequence: &Sequence, canvas: &mut [u32]) {
    let Sequence {
        rule,
        positions,
        candidates,
    } = sequence;
    let mut order: Vec<usize> = (0..rule.rows)
        .filter(|&i| canvas[positions[i] as usize] == MASK)
        .collect();
    let score = |i: usize| match rule.rank_by {
        _ if candidates[i].confidence.is_nan() => f32::NAN,
        RankBy::Confidence => candidates[i].confidence,
        RankBy::Margin => candidates[i].margin,
        RankBy::Entropy => -candidates[i].entropy,
    };
    order.sort_by(|&a, &b| match (score(a).is_nan(), score(b).is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => score(b).partial_cmp(&score(a)).unwrap(),
    });
    let confidence = |rank: usize| candidates[order[rank]].confidence;
    let n_kept = match rule.keep {
        Keep::Quota(quota) => quota as usize,
        Keep::Threshold(threshold) => {
            let reaches = |&rank: &usize| confidence(rank) >= threshold;
            (0..order.len()).take_while(reaches).count().max(1)
        }
        Keep::Factor(factor) => {
            let passes = |rank: usize| {
                let bound = 1.0 - f64::from(factor) / (rank + 2) as f64;
                rank == 0 || f64::from(confidence(rank)) >= bound
            };
            match (0..order.len()).find(|&rank| !passes(rank)) {
                Some(rank) if rank + 1 < order.len() => rank,
                _ => order.len(),
            }
        }
    };
    for &i in order.iter().take(n_kept) {
        if candidates[i].token != MASK {
            canvas[positions[i] as usize] = candidates[i].token;
        }
    }
}

/// Two steps with one set of candidates: the second finds fewer masks.
#[track_caller]
fn check(cx: &Context, key: u32, rows: &[u32], has_nan: bool) {
    let mut draws = Draws(key << 16);
    let mut ids = Vec::new();
    let sequences: Vec<Sequence> = rows
        .iter()
        .map(|&n| sequence(&mut draws, n, has_nan, &mut ids))
        .collect();
    let rules: Vec<RemaskRule> = sequences.iter().map(|s| s.rule).collect();
    let positions: Vec<u32> = sequences.iter().flat_map(|s| s.positions.clone()).collect();
    let words = |c: &Candidate| {
        let [confidence, margin, entropy] = [c.confidence, c.margin, c.entropy].map(f32::to_bits);
        [c.token, confidence, margin, entropy]
    };
    let candidates: Vec<[u32; 4]> = sequences
        .iter()
        .flat_map(|s| s.candidates.iter().map(words))
        .collect();

    let canvas = cx.upload_once(&ids).unwrap();
    let masks = Masks {
        rules: &cx.upload_once(&rule_words(&rules).unwrap()).unwrap(),
        positions: &cx.upload_once(&positions).unwrap(),
        candidates: &cx.upload_once(&candidates).unwrap(),
        canvas: &canvas,
        rows: positions.len(),
        sequences: rules.len(),
        mask_token_id: MASK,
    };
    for step in 0..2 {
        launch(cx, &masks).unwrap();
        for sequence in &sequences {
            plain(sequence, &mut ids);
        }
        let mut got = vec![0; ids.len()];
        cx.download(&canvas, &mut got).unwrap();
        assert_eq!(got, ids, "{key}: step {step}");
    }
}

#[test]
fn the_sampler_s_rules_hold_on_the_device() {
    let cx = &open(0, CudaConfig::default()).unwrap();
    check(cx, 0, &[], false);
    check(cx, 1, &[0], false);
    check(cx, 2, &[1, 0, 1], false);
    for key in 3..40 {
        check(cx, key, &[key, 32, 2, 7], key % 3 == 0);
    }
    // More rows than a block has threads.
    check(cx, 40, &[300, 513], false);
    check(cx, 41, &[600], true);
}
