//! Samples against the distribution they must come from.

use std::ops::ControlFlow;

use llada_diffusion::MaskPredictor;
use llada_sample::{Process, Remasking, Request, SampleConfig, sample};
use llada_testkit::JointPredictor;

/// A joint distribution over three tokens of two kinds, far from independent.
fn joint() -> JointPredictor {
    JointPredictor::new(2, 3, vec![0.3, 0.02, 0.05, 0.13, 0.08, 0.02, 0.1, 0.3])
}

/// How often each sequence is sampled.
fn counts(joint: &JointPredictor, n: u64, config: &SampleConfig) -> Vec<f64> {
    let requests: Vec<Request> = (0..n)
        .map(|seed| {
            Request::generate(
                vec![],
                SampleConfig {
                    seed,
                    ..config.clone()
                },
            )
        })
        .collect();
    let outputs = sample(joint, &requests, &mut |_| ControlFlow::Continue(())).unwrap();
    let mut counts = vec![0.0; 8];
    for output in outputs {
        assert!(!output.tokens.contains(&joint.info().mask_token_id));
        counts[joint.index(&output.tokens)] += 1.0;
    }
    counts
}

/// Pearson's statistic against the joint distribution: seven degrees of freedom.
fn chi_squared(counts: &[f64], joint: &JointPredictor) -> f64 {
    let n: f64 = counts.iter().sum();
    let term = |(index, count): (usize, &f64)| {
        let tokens = [index / 4, index / 2 % 2, index % 2].map(|token| token as u32);
        let expected = n * joint.probability(&tokens);
        (count - expected).powi(2) / expected
    };
    counts.iter().enumerate().map(term).sum()
}

/// A statistic of seven degrees of freedom is above this once in ten million.
const LIMIT: f64 = 47.0;

#[test]
fn one_random_token_at_a_time_draws_from_the_joint_distribution() {
    let joint = joint();
    let config = SampleConfig {
        steps: 3,
        gen_length: 3,
        block_length: None,
        temperature: 1.0,
        remasking: Remasking::Random,
        ..SampleConfig::default()
    };
    let found = chi_squared(&counts(&joint, 20_000, &config), &joint);
    assert!(found < LIMIT, "{found}");
}

#[test]
fn blocks_of_one_draw_from_the_joint_distribution() {
    let joint = joint();
    let config = SampleConfig {
        steps: 3,
        gen_length: 3,
        block_length: Some(1),
        temperature: 1.0,
        ..SampleConfig::default()
    };
    let found = chi_squared(&counts(&joint, 20_000, &config), &joint);
    assert!(found < LIMIT, "{found}");
}

#[test]
fn the_reverse_process_with_many_steps_draws_from_the_joint_distribution() {
    // Two tokens fall into one of n steps with probability about 3 / n, too rarely to be seen.
    let joint = joint();
    let found = chi_squared(
        &counts(&joint, 20_000, &SampleConfig::reverse(300, 3, 0)),
        &joint,
    );
    assert!(found < LIMIT, "{found}");
}

#[test]
fn the_reverse_process_in_one_step_draws_tokens_independently() {
    let joint = joint();
    let counts = counts(&joint, 20_000, &SampleConfig::reverse(1, 3, 0));
    assert!(chi_squared(&counts, &joint) > 1000.0);
    let n: f64 = counts.iter().sum();
    // Marginals of a zero: 0.5, 0.42 and 0.53.
    let product = |index: usize| {
        let zero = [0.5, 0.42, 0.53];
        let bits = [index / 4, index / 2 % 2, index % 2];
        let of = |(bit, zero): (usize, f64)| if bit == 0 { zero } else { 1.0 - zero };
        bits.into_iter().zip(zero).map(of).product::<f64>()
    };
    let term = |(index, count): (usize, &f64)| {
        let expected = n * product(index);
        (count - expected).powi(2) / expected
    };
    let found: f64 = counts.iter().enumerate().map(term).sum();
    assert!(found < LIMIT, "{found}");
}

#[test]
fn the_reverse_process_reveals_the_expected_share_in_each_step() {
    let toy = llada_testkit::ToyPredictor::new(16, 4000, 0);
    let config = SampleConfig {
        suppress_mask: true,
        ..SampleConfig::reverse(8, 4000, 5)
    };
    assert_eq!(config.process, Process::Reverse);
    let mut shares = Vec::new();
    let request = Request::generate(vec![], config);
    let outputs = sample(&toy, &[request], &mut |event| {
        shares.push(event.revealed.len() as f64 / 4000.0);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(!outputs[0].tokens.contains(&15));
    // An eighth each; five standard deviations of a binomial share.
    let band = 5.0 * (0.125 * 0.875 / 4000.0_f64).sqrt();
    assert!(
        shares.iter().all(|share| (share - 0.125).abs() < band),
        "{shares:?}"
    );
}
