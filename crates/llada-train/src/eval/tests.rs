use llada_diffusion::{Candidates, Choice, PredictorInfo, Query, Result};

use super::*;
use crate::{Cut, Packing};

const MASK: u32 = 1000;

/// Loss of a token: the number of masks in its sequence, or that of its target.
struct Counting;

impl MaskPredictor for Counting {
    fn info(&self) -> PredictorInfo {
        PredictorInfo::new(1001, MASK, 999, 64)
    }

    fn logits(&self, _: Query<'_>) -> Result<Vec<f32>> {
        Ok(Vec::new())
    }

    fn candidates(&self, query: Query<'_>, choice: &Choice<'_>) -> Result<Candidates> {
        choice.by_logits(self, query)
    }

    fn token_losses(&self, query: Query<'_>, targets: &[u32]) -> Result<Vec<f32>> {
        let batch = query.batch;
        let loss = |(&position, &target): (&usize, &u32)| {
            let row = batch.offsets().partition_point(|&start| start <= position) - 1;
            let masks = batch.sequence(row).iter().filter(|&&id| id == MASK).count();
            if masks == 0 {
                target as f32
            } else {
                masks as f32
            }
        };
        Ok(query.positions.iter().zip(targets).map(loss).collect())
    }
}

fn sources(lengths: &[u32]) -> [Source; 1] {
    let documents = lengths
        .iter()
        .map(|&length| (1..length).collect::<Vec<_>>());
    let cut = Cut {
        packing: Packing::Documents,
        sequence_length: 64,
        eos_token_id: 999,
    };
    [Source::new("a.txt", None, documents, cut)]
}

fn eval(lengths: &[u32], objective: Objective, mc_samples: usize) -> Option<Evaluation> {
    let config = EvalConfig {
        objective,
        seed: 4,
        mc_samples,
        max_sequences: 0,
    };
    evaluate(&Counting, &sources(lengths), &config).unwrap()
}

#[test]
fn prompts_are_given_and_not_counted() {
    // As an answer of 5 alone, whatever the prompt: only the answer is masked and counted.
    for prompt in [vec![], vec![3, 4, 5, 6]] {
        let mut source = Source::empty("a", None);
        source.push_pair(&prompt, &[7, 8, 9, 10, 999]);
        let config = EvalConfig {
            objective: Objective::Diffusion,
            seed: 4,
            mc_samples: 5,
            max_sequences: 0,
        };
        let evaluation = evaluate(&Counting, &[source], &config).unwrap().unwrap();
        assert!((evaluation.bound - 3.0).abs() < 1e-9, "{evaluation:?}");
    }
}

#[test]
fn with_a_draw_per_length_the_bound_is_exact() {
    // l masks, each with loss l, weighted by L / l: the mean over l of L l is L (L + 1) / 2.
    for length in [1_u32, 2, 5, 12] {
        let evaluation = eval(&[length], Objective::Diffusion, length as usize).unwrap();
        let expected = f64::from(length + 1) / 2.0;
        assert!(
            (evaluation.bound - expected).abs() < 1e-9,
            "{length}: {evaluation:?}"
        );
    }
}

#[test]
fn fewer_draws_estimate_the_same_bound() {
    let lengths = [12; 500];
    let evaluation = eval(&lengths, Objective::Diffusion, 2).unwrap();
    assert!(
        (evaluation.bound - 6.5).abs() < 4.0 * evaluation.standard_error,
        "{evaluation:?}"
    );
    assert!(evaluation.standard_error > 0.0 && evaluation.standard_error < 0.2);
    assert_eq!((evaluation.sequences, evaluation.tokens), (500, 6000));
}

#[test]
fn autoregressive_bound_is_the_mean_loss_of_all_but_the_first() {
    // Targets 2, 3, 999 and 999; the sequence of one token has nothing to predict.
    let evaluation = eval(&[4, 2, 1], Objective::Autoregressive, 8).unwrap();
    assert!((evaluation.bound - (2.0 + 3.0 + 999.0 + 999.0) / 4.0).abs() < 1e-9);
    assert_eq!((evaluation.sequences, evaluation.tokens), (2, 6));
}

#[test]
fn nothing_held_out_gives_nothing() {
    assert!(eval(&[], Objective::Diffusion, 8).is_none());
}

#[test]
fn many_autoregressive_sequences_are_scored_in_several_calls() {
    // Each of 300 sequences has the targets 2 to 39 and 999.
    let evaluation = eval(&[40; 300], Objective::Autoregressive, 1).unwrap();
    let expected = f64::from((2..40).sum::<i32>() + 999) / 39.0;
    assert!((evaluation.bound - expected).abs() < 1e-9, "{evaluation:?}");
    assert!(evaluation.standard_error < 1e-9);
}

#[test]
fn a_part_of_the_sequences_is_spread_over_all() {
    let all = sources(&[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let (objective, seed, mc_samples) = (Objective::Diffusion, 0, 1);
    let config = EvalConfig {
        objective,
        seed,
        mc_samples,
        max_sequences: 3,
    };
    let lengths: Vec<usize> = choose(&all, &config)
        .iter()
        .map(|(source, at)| source.sequence_len(*at))
        .collect();
    assert_eq!(lengths, [1, 4, 7]);
}
