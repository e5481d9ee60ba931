//! The estimate of eq. 6 against distributions whose likelihood is known.

use std::num::NonZeroUsize;

use llada_diffusion::{
    Estimate, Estimator, LikelihoodConfig, ScoredSequence, chain_rule, log_likelihood,
};
use llada_tensor::{Philox, Stream};
use llada_testkit::{JointPredictor, ToyPredictor};

fn whole(tokens: &[u32]) -> ScoredSequence<'_> {
    ScoredSequence {
        tokens,
        prompt_len: 0,
    }
}

fn config(mc_samples: usize) -> LikelihoodConfig {
    LikelihoodConfig {
        mc_samples,
        ..LikelihoodConfig::default()
    }
}

/// A random joint distribution over three tokens of three kinds.
fn joint() -> JointPredictor {
    let philox = Philox::new(11, Stream::Test);
    let weights: Vec<f64> = (0..27)
        .map(|i| philox.uniform_f64([i, 0, 0]).powi(3))
        .collect();
    let sum: f64 = weights.iter().sum();
    JointPredictor::new(3, 3, weights.iter().map(|w| w / sum).collect())
}

#[test]
fn the_bound_of_exact_conditionals_is_the_likelihood() {
    let joint = joint();
    for tokens in [[0, 1, 2], [2, 2, 0], [1, 0, 1]] {
        let found = log_likelihood(&joint, &[whole(&tokens)], &config(20_000)).unwrap()[0];
        let expected = joint.probability(&tokens).ln();
        let error = (found.log_likelihood - expected).abs();
        assert!(
            error < 4.0 * found.standard_error,
            "{tokens:?}: {found:?}, expected {expected}"
        );
        assert!(found.standard_error < 0.05, "{found:?}");
    }
}

#[test]
fn a_prompt_is_given_and_not_scored() {
    let joint = joint();
    let tokens = [2, 0, 1];
    let scored = ScoredSequence {
        tokens: &tokens,
        prompt_len: 1,
    };
    let found = log_likelihood(&joint, &[scored], &config(20_000)).unwrap()[0];
    let of_prompt: f64 = (0..9)
        .map(|rest| joint.probability(&[tokens[0], rest / 3, rest % 3]))
        .sum();
    let expected = (joint.probability(&tokens) / of_prompt).ln();
    assert_eq!(found.n_tokens, 2);
    assert!((found.log_likelihood - expected).abs() < 4.0 * found.standard_error);
}

#[test]
fn an_answer_of_one_token_is_exact() {
    let joint = joint();
    let tokens = [2, 0, 1];
    let scored = ScoredSequence {
        tokens: &tokens,
        prompt_len: 2,
    };
    let found = log_likelihood(&joint, &[scored], &config(128)).unwrap()[0];
    let of_prompt: f64 = (0..3).map(|last| joint.probability(&[2, 0, last])).sum();
    let expected = (joint.probability(&tokens) / of_prompt).ln();
    assert!((found.log_likelihood - expected).abs() < 1e-6);
    assert!(found.standard_error.abs() < f64::MIN_POSITIVE);
}

#[test]
fn random_ratios_estimate_the_same_with_more_variance() {
    let joint = joint();
    for tokens in [[0, 1, 2], [2, 2, 0], [1, 0, 1]] {
        let ratio = LikelihoodConfig {
            estimator: Estimator::Ratio,
            ..config(20_000)
        };
        let found = log_likelihood(&joint, &[whole(&tokens)], &ratio).unwrap()[0];
        let error = (found.log_likelihood - joint.probability(&tokens).ln()).abs();
        assert!(error < 4.0 * found.standard_error, "{tokens:?}: {found:?}");
        let count = log_likelihood(&joint, &[whole(&tokens)], &config(20_000)).unwrap()[0];
        assert!(found.standard_error > 2.0 * count.standard_error);
    }
}

#[test]
fn the_chain_rule_is_exact_in_every_order() {
    let joint = joint();
    let tokens = [2, 0, 1];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        // A budget of one token: every sequence goes alone.
        for max_batch_tokens in [1, 4096] {
            let config = LikelihoodConfig {
                max_batch_tokens,
                ..LikelihoodConfig::default()
            };
            let values = chain_rule(&joint, &whole(&tokens), &order, &config).unwrap();
            let error = values.iter().sum::<f64>() - joint.probability(&tokens).ln();
            assert!(error.abs() < 1e-6, "{order:?}: {error:e}");
        }
    }
    let scored = ScoredSequence {
        tokens: &tokens,
        prompt_len: 1,
    };
    let values = chain_rule(&joint, &scored, &[1, 0], &LikelihoodConfig::default()).unwrap();
    let of_prompt: f64 = (0..9)
        .map(|rest| joint.probability(&[2, rest / 3, rest % 3]))
        .sum();
    let expected = (joint.probability(&tokens) / of_prompt).ln();
    assert!((values.iter().sum::<f64>() - expected).abs() < 1e-6);
    for order in [&[0, 1][..], &[0, 0], &[0, 2]] {
        let result = chain_rule(&joint, &whole(&tokens), order, &LikelihoodConfig::default());
        assert!(result.is_err(), "{order:?} is no order of three tokens");
    }
}

#[test]
fn guidance_pushes_away_from_the_hidden_prompt() {
    // Guidance of scale 0 is none; with it, the last token's logits are 2 c - u.
    let joint = joint();
    let tokens = [2, 0, 1];
    let scored = ScoredSequence {
        tokens: &tokens,
        prompt_len: 2,
    };
    let guided = LikelihoodConfig {
        cfg_scale: 1.0,
        ..LikelihoodConfig::default()
    };
    let found = log_likelihood(&joint, &[scored], &guided).unwrap()[0].log_likelihood;
    let conditional = |last| joint.probability(&[2, 0, last]);
    let marginal = |last| -> f64 {
        (0..9)
            .map(|at| joint.probability(&[at / 3, at % 3, last]))
            .sum()
    };
    let weight = |last| conditional(last).powi(2) / marginal(last);
    let expected = (weight(1) / (0..3).map(weight).sum::<f64>()).ln();
    assert!((found - expected).abs() < 1e-5, "{found}, not {expected}");
}

#[test]
fn a_uniform_predictor_gives_the_same_in_every_draw() {
    let uniform = JointPredictor::new(2, 5, vec![1.0 / 32.0; 32]);
    let tokens = [0, 1, 1, 0, 1];
    let found = log_likelihood(&uniform, &[whole(&tokens)], &config(16)).unwrap()[0];
    assert!((found.log_likelihood + 5.0 * 2.0_f64.ln()).abs() < 1e-5);
    assert!(found.standard_error < 1e-6);
}

/// Mean and variance of the estimates of 400 seeds, 32 draws each, stratified in batches.
fn spread(joint: &JointPredictor, tokens: &[u32], batch_size: Option<usize>) -> (f64, f64) {
    let run = |seed| {
        let config = LikelihoodConfig {
            batch_size: batch_size.and_then(NonZeroUsize::new),
            seed,
            ..config(32)
        };
        log_likelihood(joint, &[whole(tokens)], &config).unwrap()[0].log_likelihood
    };
    let estimates: Vec<f64> = (0..400).map(run).collect();
    let n = estimates.len() as f64;
    let mean = estimates.iter().sum::<f64>() / n;
    let squares = estimates.iter().map(|x| (x - mean).powi(2));
    (mean, squares.sum::<f64>() / (n - 1.0))
}

#[test]
fn stratified_draws_have_no_bias_and_less_variance() {
    let (joint, tokens) = (joint(), [0, 1, 2]);
    let expected = joint.probability(&tokens).ln();
    // 5 leaves a batch of 2; in batches of 2 the offset is one and a half tokens.
    let variances = [Some(1), Some(2), Some(5), Some(16), Some(32), None].map(|batch_size| {
        let (mean, variance) = spread(&joint, &tokens, batch_size);
        let error = (mean - expected).abs();
        assert!(
            error < 4.0 * (variance / 400.0).sqrt(),
            "batches of {batch_size:?}: {mean}, not {expected}"
        );
        variance
    });
    // Independent draws: 0.098; of 2: 0.065, of 5: 0.046, of 16, of 32 or over all draws: 0.036.
    let [independent, .., of_16, of_32, over_all] = variances;
    assert!(
        [of_16, of_32, over_all]
            .iter()
            .all(|v| *v < 0.6 * independent),
        "{variances:?}"
    );
}

#[test]
fn the_standard_error_is_honest() {
    // Over independent seeds the estimates spread no more than their standard errors tell; the
    // stratified draws make them spread less.
    let joint = joint();
    let tokens = [0, 1, 2];
    let run = |seed| {
        let config = LikelihoodConfig {
            mc_samples: 32,
            seed,
            ..LikelihoodConfig::default()
        };
        log_likelihood(&joint, &[whole(&tokens)], &config).unwrap()[0]
    };
    let estimates: Vec<Estimate> = (0..200).map(run).collect();
    let n = estimates.len() as f64;
    let mean = estimates.iter().map(|e| e.log_likelihood).sum::<f64>() / n;
    let spread: f64 = estimates
        .iter()
        .map(|e| (e.log_likelihood - mean).powi(2))
        .sum();
    let told: f64 = estimates.iter().map(|e| e.standard_error.powi(2)).sum();
    assert!(
        spread < told * 1.2,
        "spread {} against {}",
        spread / n,
        told / n
    );
    assert!((mean - joint.probability(&tokens).ln()).abs() < 5.0 * (told / n / n).sqrt());
}

#[test]
fn batches_change_nothing() {
    let toy = ToyPredictor::new(13, 32, 1);
    let texts: Vec<Vec<u32>> = (1..9)
        .map(|n| (0..3 * n).map(|i| (i * 7 + n) % 11).collect())
        .collect();
    let scored: Vec<ScoredSequence<'_>> = texts
        .iter()
        .map(|text| ScoredSequence {
            tokens: text,
            prompt_len: text.len() / 3,
        })
        .collect();
    let run = |max_batch_tokens| {
        let config = LikelihoodConfig {
            mc_samples: 7,
            max_batch_tokens,
            seed: 3,
            ..LikelihoodConfig::default()
        };
        log_likelihood(&toy, &scored, &config).unwrap()
    };
    let one_by_one = run(1);
    for max_batch_tokens in [30, 100, 1 << 20] {
        assert_eq!(run(max_batch_tokens), one_by_one);
    }
    // The first sequences do not see the others.
    let config = LikelihoodConfig {
        mc_samples: 7,
        max_batch_tokens: 64,
        seed: 3,
        ..LikelihoodConfig::default()
    };
    assert_eq!(
        log_likelihood(&toy, &scored[..3], &config).unwrap(),
        one_by_one[..3]
    );
    // Nor do the last the first, if they are told how many there are.
    let rest = LikelihoodConfig {
        first_index: 3,
        ..config
    };
    assert_eq!(
        log_likelihood(&toy, &scored[3..], &rest).unwrap(),
        one_by_one[3..]
    );
}

#[test]
fn one_draw_of_many_has_no_standard_error() {
    let toy = ToyPredictor::new(13, 32, 1);
    let found = log_likelihood(&toy, &[whole(&[1, 2, 3])], &config(1)).unwrap()[0];
    assert!(found.standard_error.is_nan() && found.log_likelihood.is_finite());
}

#[test]
fn bad_arguments_are_errors() {
    let toy = ToyPredictor::new(13, 4, 1);
    #[track_caller]
    fn check(result: llada_diffusion::Result<Vec<Estimate>>, message: &str) {
        assert_eq!(result.unwrap_err().to_string(), message);
    }
    check(
        log_likelihood(&toy, &[whole(&[1])], &config(0)),
        "mc_samples must be from 1 to 16777216, got 0",
    );
    let scored = ScoredSequence {
        tokens: &[1, 2],
        prompt_len: 2,
    };
    check(
        log_likelihood(&toy, &[scored], &config(1)),
        "prompt_len must be less than the length of the sequence, got 2",
    );
    check(
        log_likelihood(&toy, &[whole(&[1; 5])], &config(1)),
        "sequence of 5 tokens exceeds the context of 4",
    );
    let scored = ScoredSequence {
        tokens: &[99, 1],
        prompt_len: 1,
    };
    check(
        log_likelihood(&toy, &[scored], &config(1)),
        "token id 99 at position 0 is outside the vocabulary of 13",
    );
}
