//! Commit rules: identities between them, and the bound of the entropy rule.

use std::ops::ControlFlow;

use llada_diffusion::{MaskPredictor, TokenBatch};
use llada_sample::{MarginExit, Process, Remasking, Request, SampleConfig, sample};
use llada_testkit::{JointPredictor, ToyPredictor};

/// Tokens and number of calls.
fn run(process: Process, temperature: f64) -> (Vec<u32>, usize) {
    run_with(process, temperature, None, Remasking::LowConfidence)
}

fn run_with(
    process: Process,
    temperature: f64,
    margin_exit: Option<MarginExit>,
    remasking: Remasking,
) -> (Vec<u32>, usize) {
    let toy = ToyPredictor::new(9, 64, 4);
    let config = SampleConfig {
        steps: 24,
        gen_length: 24,
        block_length: Some(8),
        temperature,
        process,
        margin_exit,
        remasking,
        suppress_mask: true,
        seed: 3,
        ..SampleConfig::default()
    };
    let requests = [Request::generate(vec![1, 2, 3], config)];
    let outputs = sample(&toy, &requests, &mut |_| ControlFlow::Continue(())).unwrap();
    (outputs[0].tokens.clone(), outputs[0].nfe)
}

#[test]
fn settings_that_take_a_rule_back_give_its_base() {
    #[track_caller]
    fn check(process: Process, base: Process) {
        for temperature in [0.0, 0.7] {
            assert_eq!(run(process, temperature), run(base, temperature));
        }
    }
    check(Process::EntropyBound(0.0), Process::Quota);
    check(Process::EntropyExit(0.0), Process::Quota);
    check(Process::Threshold(1.0), Process::Quota);
    for threshold in [0.3, 0.5, 0.7] {
        let base = Process::Threshold(threshold);
        let leap = |relaxed, radius| Process::LocalLeap {
            threshold,
            relaxed,
            radius,
        };
        check(leap(0.1, 0), base);
        check(leap(threshold, 9), base);
        let (high, low) = (threshold, threshold);
        check(Process::Hierarchical { high, low }, base);
        let fall = 0.0;
        check(Process::FallingThreshold { threshold, fall }, base);
    }
}

#[test]
fn an_exit_by_margin_ends_blocks_of_any_rule_early() {
    let exit = |margin, fall| Some(MarginExit { margin, fall });
    let usual = Remasking::LowConfidence;
    for process in [
        Process::Quota,
        Process::BlockQuota,
        Process::EntropyExit(0.0),
        Process::Threshold(0.9),
    ] {
        let base = run(process, 0.0);
        // No mean reaches 1, and every mean reaches 0: a call for each of the three blocks.
        assert_eq!(run_with(process, 0.0, exit(1.0, 0.0), usual), base);
        assert_eq!(
            run_with(process, 0.0, exit(0.0, 0.0), usual).1,
            3,
            "{process:?}"
        );
        // The bar is 0 when a block is full, and above what its last masks reach before that.
        let (_, calls) = run_with(process, 0.0, exit(1.0, 1.0), usual);
        assert!(
            3 < calls && calls < base.1,
            "{process:?}: {calls} of {}",
            base.1
        );
    }
}

#[test]
fn blocks_open_when_a_share_of_the_one_before_is_filled() {
    let toy = ToyPredictor::new(9, 64, 4);
    let run = |process, overlap| {
        let config = SampleConfig {
            steps: 24,
            gen_length: 24,
            block_length: Some(8),
            process,
            overlap,
            suppress_mask: true,
            ..SampleConfig::default()
        };
        let requests = [Request::generate(vec![1, 2, 3], config)];
        // Where each step has revealed something, as blocks.
        let mut blocks = Vec::new();
        let outputs = sample(&toy, &requests, &mut |event| {
            let places = event.revealed.iter().map(|new| (new.position - 3) / 8);
            blocks.push(places.collect::<Vec<usize>>());
            ControlFlow::Continue(())
        });
        (
            outputs.map(|outputs| (outputs[0].tokens.clone(), outputs[0].nfe)),
            blocks,
        )
    };
    for process in [Process::Threshold(0.3), Process::EntropyExit(2.0)] {
        let (base, one_by_one) = run(process, None);
        let base = base.unwrap();
        // A block that opens when the one before it is full is the next block.
        assert_eq!(run(process, Some(1.0)).0.unwrap(), base);
        let (all, opened) = run(process, Some(0.0));
        let (tokens, calls) = all.unwrap();
        assert!(tokens.iter().all(|&id| id != toy.info().mask_token_id));
        assert!(calls < base.1, "{process:?}: {calls} of {}", base.1);
        assert!(
            one_by_one
                .iter()
                .all(|step| step.windows(2).all(|w| w[0] == w[1]))
        );
        assert!(opened[0].contains(&2), "{process:?}: {opened:?}");
        // With a half, the second block waits for four tokens of the first.
        let (_, halves) = run(process, Some(0.5));
        let mut filled = 0;
        for step in halves {
            assert!(
                filled >= 4 || !step.contains(&1),
                "{process:?}: {step:?} after {filled}"
            );
            filled += step.iter().filter(|&&block| block == 0).count();
        }
    }
    // There is no bar for the tokens of other blocks.
    let refused = run(Process::Factor(1.0), Some(0.5)).0.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "request 0: overlap cannot be used with factor"
    );
}

#[test]
fn steps_by_running_confidence_fill_the_canvas() {
    let running = Remasking::RunningConfidence;
    let (tokens, calls) = run_with(Process::Quota, 0.0, None, running);
    assert_eq!((tokens.len(), calls), (27, 24));
    // In the first step nothing was seen before, so that the order is that of the confidence.
    let all = Process::Factor(1e6);
    assert_eq!(run_with(all, 0.0, None, running), run(all, 0.0));
}

#[test]
fn relaxed_rules_take_fewer_calls() {
    let (_, one_by_one) = run(Process::Quota, 0.0);
    assert_eq!(one_by_one, 24);
    for process in [
        Process::EntropyBound(2.0),
        Process::EntropyExit(1.5),
        Process::LocalLeap {
            threshold: 0.6,
            relaxed: 0.3,
            radius: 4,
        },
        Process::Hierarchical {
            high: 0.6,
            low: 0.3,
        },
        Process::FallingThreshold {
            threshold: 0.6,
            fall: 0.9,
        },
    ] {
        assert!(run(process, 0.0).1 < 24, "{process:?}");
    }
}

/// Four tokens of two kinds, dependent on their neighbors, some of them strongly.
fn joint(seed: u64) -> JointPredictor {
    let draw = |i: u64| {
        let x = (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15 ^ (seed << 7)) >> 40;
        (x as f64 / 16_777_216.0).powi(4) + 1e-4
    };
    let weights: Vec<f64> = (0..16).map(draw).collect();
    let sum: f64 = weights.iter().sum();
    JointPredictor::new(2, 4, weights.iter().map(|w| w / sum).collect())
}

/// `KL(joint || product)` of the tokens at `places`, given the others in `canvas`.
fn divergence(joint: &JointPredictor, canvas: &[u32], places: &[usize]) -> f64 {
    let mask = joint.info().mask_token_id;
    let n = 1_usize << places.len();
    let mut table = vec![0.0; n];
    for index in 0..16_usize {
        let tokens = [3, 2, 1, 0].map(|bit| (index >> bit & 1) as u32);
        let fits = |(&seen, &token): (&u32, &u32)| seen == mask || seen == token;
        if canvas.iter().zip(&tokens).all(fits) {
            let at = places.iter().fold(0, |at, &i| 2 * at + tokens[i] as usize);
            table[at] += joint.probability(&tokens);
        }
    }
    let total: f64 = table.iter().sum();
    let batch = TokenBatch::new(&[canvas]).unwrap();
    let logits = joint.rows(&batch, places);
    let marginals: Vec<[f64; 2]> = (logits.chunks(3))
        .map(|row| {
            let p = [f64::from(row[0]).exp(), f64::from(row[1]).exp()];
            p.map(|x| x / (p[0] + p[1]))
        })
        .collect();
    let term = |(at, weight): (usize, &f64)| {
        let p = weight / total;
        let bits = (0..places.len()).rev().zip(&marginals);
        let product: f64 = bits.map(|(bit, m)| m[at >> bit & 1]).product();
        if p > 0.0 { p * (p / product).ln() } else { 0.0 }
    };
    table.iter().enumerate().map(term).sum()
}

#[test]
fn the_entropy_bound_bounds_what_is_lost_to_independence() {
    let (mut several, mut lossy) = (0, 0);
    for seed in 0..40 {
        let joint = joint(seed);
        let mask = joint.info().mask_token_id;
        for gamma in [0.0, 0.1, 0.4, 0.7, 1.5] {
            let config = SampleConfig {
                gen_length: 4,
                block_length: None,
                temperature: 1.0,
                process: Process::EntropyBound(gamma),
                seed,
                ..SampleConfig::default()
            };
            let mut before = vec![mask; 4];
            let request = [Request::generate(vec![], config)];
            let outputs = sample(&joint, &request, &mut |event| {
                let places: Vec<usize> = event.revealed.iter().map(|r| r.position).collect();
                let lost = divergence(&joint, &before, &places);
                // Probabilities are rounded to f32.
                assert!(lost <= f64::from(gamma) + 1e-5, "{lost} nats for {gamma}");
                several += usize::from(places.len() > 1);
                lossy += usize::from(lost > 1e-3);
                before.copy_from_slice(event.canvas);
                ControlFlow::Continue(())
            });
            assert!(!outputs.unwrap()[0].tokens.contains(&mask));
        }
    }
    assert!(
        several > 20 && lossy > 10,
        "{several} {lossy}: nothing tested"
    );
}
