//! Draws among the most likely tokens, and rules that may take only so many steps.

use std::ops::ControlFlow;

use llada_diffusion::{MaskPredictor as _, Nucleus, Query, TokenBatch};
use llada_sample::{Output, Overrides, Policy, Process, Request, SampleConfig, sample};
use llada_testkit::ToyPredictor;

const PROMPT: [u32; 3] = [1, 4, 2];

fn run(config: SampleConfig) -> Output {
    let toy = ToyPredictor::new(16, 64, 3);
    let requests = [Request::generate(PROMPT.to_vec(), config)];
    let mut outputs = sample(&toy, &requests, &mut |_| ControlFlow::Continue(())).unwrap();
    outputs.remove(0)
}

fn drawn(temperature: f64, top_k: Option<usize>, top_p: Option<f64>, seed: u64) -> Vec<u32> {
    let config = SampleConfig {
        gen_length: 6,
        steps: 6,
        // From left to right: a nucleus changes confidences, and so the order.
        block_length: Some(1),
        temperature,
        nucleus: Nucleus { top_k, top_p },
        suppress_mask: true,
        seed,
        ..SampleConfig::default()
    };
    run(config).answer().to_vec()
}

#[test]
fn a_nucleus_of_one_token_is_the_most_likely_one() {
    let greedy = drawn(0.0, None, None, 0);
    for seed in 0..5 {
        assert_eq!(drawn(2.0, Some(1), None, seed), greedy);
        assert_eq!(drawn(2.0, None, Some(1e-6), seed), greedy);
        // Without a temperature there is nothing to draw.
        assert_eq!(drawn(0.0, Some(3), Some(0.9), seed), greedy);
        // All tokens are as many as there are.
        assert_eq!(
            drawn(2.0, Some(16), Some(1.0), seed),
            drawn(2.0, None, None, seed)
        );
    }
    assert!((0..5).any(|seed| drawn(2.0, None, None, seed) != greedy));
}

/// The right shares: the softmax of the logits at the temperature, over the tokens of the nucleus.
#[test]
fn tokens_of_the_nucleus_are_drawn_as_often_as_their_probabilities_say() {
    const DRAWS: u32 = 4000;
    let toy = ToyPredictor::new(16, 64, 3);
    let mask = toy.info().mask_token_id;
    let batch = TokenBatch::new(&[[&PROMPT[..], &[mask]].concat()]).unwrap();
    let mut logits = toy.logits(Query::new(&batch, &[3])).unwrap();
    logits[mask as usize] = f32::NEG_INFINITY;
    let weights: Vec<f64> = logits.iter().map(|&x| (f64::from(x) / 1.5).exp()).collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
    let whole: f64 = weights.iter().sum();
    let half =
        (1..).find(|&n| order[..n].iter().map(|&at| weights[at]).sum::<f64>() >= 0.5 * whole);
    for (top_k, top_p, size) in [(Some(3), None, 3), (None, Some(0.5), half.unwrap())] {
        let mut counts = [0_u32; 16];
        for seed in 0..DRAWS {
            let config = SampleConfig {
                gen_length: 1,
                steps: 1,
                temperature: 1.5,
                nucleus: Nucleus { top_k, top_p },
                suppress_mask: true,
                seed: seed.into(),
                ..SampleConfig::default()
            };
            counts[run(config).answer()[0] as usize] += 1;
        }
        let sum: f64 = order[..size].iter().map(|&at| weights[at]).sum();
        for (rank, &at) in order.iter().enumerate() {
            let share = if rank < size { weights[at] / sum } else { 0.0 };
            let got = f64::from(counts[at]) / f64::from(DRAWS);
            let deviation = (share * (1.0 - share) / f64::from(DRAWS)).sqrt();
            assert!(
                (got - share).abs() <= 5.0 * deviation,
                "{at}: {got} in place of {share}"
            );
        }
    }
}

#[test]
fn a_rule_takes_no_more_steps_than_are_allowed() {
    let toy = ToyPredictor::new(16, 64, 3);
    let policy = Policy::new(toy.info());
    let steps = |steps, block_length| {
        let overrides = Overrides {
            gen_length: Some(12),
            steps,
            block_length,
            process: Some(Process::Threshold(1.0)),
            suppress_mask: Some(true),
            ..Overrides::default()
        };
        let task = Request::generate(PROMPT.to_vec(), SampleConfig::default()).task;
        let request = policy.request(task, false, &overrides).unwrap();
        let mut outputs = sample(&toy, &[request], &mut |_| ControlFlow::Continue(())).unwrap();
        let output = outputs.remove(0);
        assert!(!output.answer().contains(&toy.info().mask_token_id));
        output.steps
    };
    // Nothing is that sure: a token a step.
    assert_eq!(steps(None, None), 12);
    assert_eq!(steps(Some(12), None), 12);
    assert_eq!(steps(Some(3), None), 3);
    assert_eq!(steps(Some(6), Some(4)), 6);
    assert_eq!(steps(Some(100), Some(4)), 12);
}
