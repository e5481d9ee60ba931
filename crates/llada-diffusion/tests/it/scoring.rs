//! Likelihoods step by step: the same as in one go, the order of confidence, and the likeliest
//! tokens.

use std::cell::RefCell;

use llada_diffusion::{
    Candidates, Choice, Estimate, Estimator, Guidance, LikelihoodConfig, MaskPredictor,
    PredictorInfo, Query, Result, ScoredSequence, Scoring, TokenBatch,
    autoregressive_log_likelihood, chain_rule, log_likelihood,
};
use llada_testkit::{ChainPredictor, JointPredictor, ToyPredictor};

fn config(estimator: Estimator) -> LikelihoodConfig {
    LikelihoodConfig {
        mc_samples: 7,
        estimator,
        seed: 3,
        ..LikelihoodConfig::default()
    }
}

/// Three sequences over ids 0 to 10, of 6, 3 and 9 tokens.
const TEXTS: [(&[u32], usize); 3] = [
    (&[1, 7, 3, 9, 5, 2], 2),
    (&[4, 8, 8], 2),
    (&[0, 10, 2, 5, 5, 1, 6, 3, 9], 3),
];

fn sequences() -> [ScoredSequence<'static>; 3] {
    TEXTS.map(|(tokens, prompt_len)| ScoredSequence { tokens, prompt_len })
}

/// Steps to the end; the log-probabilities of the tokens, and the estimates.
fn steps(predictor: &dyn MaskPredictor, mut scoring: Scoring) -> (Vec<Vec<f64>>, Vec<Estimate>) {
    let estimates = loop {
        if let Some(estimates) = scoring.step(predictor).unwrap() {
            break estimates;
        }
    };
    let of = |at| scoring.token_scores(at).map(|x| x.log_probability);
    let scores = (0..estimates.len()).map(|at| of(at).collect()).collect();
    (scores, estimates)
}

/// Keeps the number of tokens of each call.
struct Watched {
    inner: ToyPredictor,
    calls: RefCell<Vec<usize>>,
}

impl MaskPredictor for Watched {
    fn info(&self) -> PredictorInfo {
        self.inner.info()
    }

    fn logits(&self, query: Query<'_>) -> Result<Vec<f32>> {
        self.calls.borrow_mut().push(query.batch.n_tokens());
        self.inner.logits(query)
    }

    fn candidates(&self, query: Query<'_>, choice: &Choice<'_>) -> Result<Candidates> {
        self.inner.candidates(query, choice)
    }

    fn token_losses(&self, query: Query<'_>, targets: &[u32]) -> Result<Vec<f32>> {
        self.calls.borrow_mut().push(query.batch.n_tokens());
        self.inner.token_losses(query, targets)
    }
}

#[test]
fn a_step_is_one_call_and_the_steps_are_the_whole() {
    let toy = ToyPredictor::new(13, 32, 1);
    for estimator in Estimator::ALL {
        for cfg_scale in [0.0, 1.5] {
            let config = LikelihoodConfig {
                cfg_scale,
                ..config(estimator)
            };
            let whole = log_likelihood(&toy, &sequences(), &config).unwrap();
            for max_batch_tokens in [1, 10, 40] {
                let config = LikelihoodConfig {
                    max_batch_tokens,
                    ..config
                };
                let watched = Watched {
                    inner: toy,
                    calls: RefCell::default(),
                };
                let mut scoring = Scoring::new(&sequences(), &config, &toy.info()).unwrap();
                let mut n_steps = 0;
                let stepped = loop {
                    n_steps += 1;
                    let result = scoring.step(&watched).unwrap();
                    assert_eq!(watched.calls.borrow().len(), n_steps);
                    if let Some(estimates) = result {
                        break estimates;
                    }
                };
                assert_eq!(stepped, whole, "{estimator} in calls of {max_batch_tokens}");
                let most = max_batch_tokens.max(9);
                assert!(watched.calls.borrow().iter().all(|&n| n <= most));
                // A step after the last one asks nothing.
                assert_eq!(scoring.step(&watched).unwrap(), Some(whole.clone()));
                assert_eq!(watched.calls.borrow().len(), n_steps);
            }
        }
    }
}

#[test]
fn nothing_to_score_is_no_call() {
    let toy = ToyPredictor::new(13, 32, 1);
    for estimator in Estimator::ALL {
        let mut scoring = Scoring::new(&[], &config(estimator), &toy.info()).unwrap();
        assert_eq!(scoring.step(&toy).unwrap(), Some(Vec::new()));
    }
}

#[test]
fn the_chain_rule_tells_each_token() {
    let toy = ToyPredictor::new(13, 32, 1);
    let config = config(Estimator::Chain);
    let scoring = Scoring::new(&sequences(), &config, &toy.info()).unwrap();
    let (scores, estimates) = steps(&toy, scoring);
    for (at, sequence) in sequences().iter().enumerate() {
        let n = sequence.tokens.len() - sequence.prompt_len;
        let order: Vec<usize> = (0..n).collect();
        let values = chain_rule(&toy, sequence, &order, &config).unwrap();
        assert_eq!(scores[at], values);
        assert!((estimates[at].log_likelihood - values.iter().sum::<f64>()).abs() < 1e-12);
    }
}

/// The definition: all tokens of an answer masked, the one with the least cross-entropy revealed,
/// and so on; `ln p` of each token, in the order of the answer.
fn by_confidence(toy: &ToyPredictor, sequence: &ScoredSequence<'_>, cfg_scale: f32) -> Vec<f64> {
    let (mask, first) = (toy.info().mask_token_id, sequence.prompt_len);
    let mut canvas = sequence.tokens.to_vec();
    canvas[first..].fill(mask);
    let mut scores = vec![0.0; canvas.len() - first];
    for _ in 0..scores.len() {
        let masked: Vec<usize> = (first..canvas.len())
            .filter(|&at| canvas[at] == mask)
            .collect();
        let targets: Vec<u32> = masked.iter().map(|&at| sequence.tokens[at]).collect();
        let batch = TokenBatch::new(&[&canvas]).unwrap();
        let mut hidden = canvas.clone();
        hidden[..first].fill(mask);
        let unconditional = TokenBatch::new(&[hidden]).unwrap();
        let mut query = Query::new(&batch, &masked);
        query.guidance = (cfg_scale > 0.0).then_some(Guidance {
            unconditional: &unconditional,
            cfg_scale,
        });
        let losses = toy.token_losses(query, &targets).unwrap();
        let mut best = 0;
        for (at, loss) in losses.iter().enumerate() {
            if *loss < losses[best] {
                best = at;
            }
        }
        canvas[masked[best]] = targets[best];
        scores[masked[best] - first] = -f64::from(losses[best]);
    }
    scores
}

#[test]
fn confidence_reveals_the_likeliest_token_first() {
    let toy = ToyPredictor::new(13, 32, 1);
    for cfg_scale in [0.0, 0.5] {
        let config = LikelihoodConfig {
            cfg_scale,
            max_batch_tokens: 12,
            ..config(Estimator::Confidence)
        };
        let scoring = Scoring::new(&sequences(), &config, &toy.info()).unwrap();
        let (scores, estimates) = steps(&toy, scoring);
        for ((sequence, scores), estimate) in sequences().iter().zip(scores).zip(estimates) {
            let expected = by_confidence(&toy, sequence, cfg_scale);
            assert_eq!(scores, expected);
            let sum: f64 = expected.iter().sum();
            assert!((estimate.log_likelihood - sum).abs() < 1e-12);
            assert!(estimate.standard_error.abs() < f64::MIN_POSITIVE);
            assert_eq!(estimate.n_tokens, scores.len());
        }
    }
}

#[test]
fn confidence_of_exact_conditionals_is_the_likelihood() {
    // Tokens 0 and 1 are always equal, and 1 with probability 3/4; token 2 is 1 with probability
    // 7/8, whatever the others are.
    let mut probabilities = vec![0.0; 8];
    for (pair, p) in [(0, 0.25), (1, 0.75)] {
        for (last, q) in [(0, 0.125), (1, 0.875)] {
            probabilities[pair * 6 + last] = p * q;
        }
    }
    let joint = JointPredictor::new(2, 3, probabilities);
    let check = |tokens: [u32; 3], expected: [f64; 3]| {
        let sequence = ScoredSequence {
            tokens: &tokens,
            prompt_len: 0,
        };
        let config = config(Estimator::Confidence);
        let scoring = Scoring::new(&[sequence], &config, &joint.info()).unwrap();
        let (scores, estimates) = steps(&joint, scoring);
        for (score, p) in scores[0].iter().zip(expected) {
            assert!((score - p.ln()).abs() < 1e-6, "{tokens:?}: {scores:?}");
        }
        let whole = joint.probability(&tokens).ln();
        assert!((estimates[0].log_likelihood - whole).abs() < 1e-6);
    };
    // Of the two equal tokens the first is revealed first, and makes the second certain.
    check([1, 1, 1], [0.75, 1.0, 0.875]);
    check([0, 0, 1], [0.25, 1.0, 0.875]);
    check([1, 1, 0], [0.75, 1.0, 0.125]);
}

#[test]
fn the_likeliest_tokens_come_with_the_same_pass() {
    let toy = ToyPredictor::new(13, 32, 1);
    for estimator in [Estimator::Chain, Estimator::Confidence] {
        for cfg_scale in [0.0, 1.0] {
            let config = LikelihoodConfig {
                cfg_scale,
                ..config(estimator)
            };
            let scoring = Scoring::new(&sequences(), &config, &toy.info()).unwrap();
            let plain = steps(&toy, scoring);
            let scoring = Scoring::new(&sequences(), &config, &toy.info()).unwrap();
            let mut scoring = scoring.with_top(13).unwrap();
            while scoring.step(&toy).unwrap().is_none() {}
            for (at, (tokens, prompt_len)) in TEXTS.iter().enumerate() {
                let scores: Vec<_> = scoring.token_scores(at).collect();
                let values: Vec<f64> = scores.iter().map(|x| x.log_probability).collect();
                assert_eq!(values, plain.0[at]);
                for (score, token) in scores.iter().zip(&tokens[*prompt_len..]) {
                    let top = &score.top;
                    assert_eq!(top.len(), 13);
                    assert!(top.is_sorted_by(|a, b| a.1 >= b.1), "{top:?}");
                    let sum: f64 = top.iter().map(|(_, p)| p.exp()).sum();
                    assert!((sum - 1.0).abs() < 1e-5, "{sum}");
                    let own = top.iter().find(|(id, _)| id == token).unwrap();
                    assert_eq!(own.1.to_bits(), score.log_probability.to_bits());
                }
            }
        }
    }
}

#[test]
fn of_equally_likely_tokens_the_lower_id_is_first() {
    // After token 0 the tokens 1 and 3 are equally likely.
    let row = [0.0, 2.0, 1.0, 2.0];
    let chain = ChainPredictor::new(row.repeat(4));
    let sequence = ScoredSequence {
        tokens: &[0, 3],
        prompt_len: 1,
    };
    let scoring = Scoring::new(&[sequence], &config(Estimator::Chain), &chain.info()).unwrap();
    let mut scoring = scoring.with_top(3).unwrap();
    while scoring.step(&chain).unwrap().is_none() {}
    let score = scoring.token_scores(0).next().unwrap();
    let ids: Vec<u32> = score.top.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [1, 3, 2]);
    let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
    assert!((score.log_probability - (2.0 - sum.ln())).abs() < 1e-6);
    let values = autoregressive_log_likelihood(&chain, &[sequence], 64).unwrap();
    assert_eq!(values[0], [score.log_probability]);
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let toy = ToyPredictor::new(13, 32, 1);
    for estimator in [Estimator::Count, Estimator::Ratio] {
        let scoring = Scoring::new(&sequences(), &config(estimator), &toy.info()).unwrap();
        let message = scoring.with_top(1).unwrap_err().to_string();
        assert_eq!(
            message,
            "the number of likeliest tokens must be 0 with estimator l or t (chain and confidence \
             score single tokens), got 1"
        );
    }
    for (estimator, message) in [
        (
            Estimator::Ratio,
            "estimator t cannot be used with an autoregressive model",
        ),
        (
            Estimator::Confidence,
            "estimator confidence cannot be used with an autoregressive model",
        ),
    ] {
        let info = toy.autoregressive().info();
        let error = Scoring::new(&sequences(), &config(estimator), &info).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    let error = "mc".parse::<Estimator>().unwrap_err().to_string();
    assert_eq!(
        error,
        "unknown estimator \"mc\": expected l, t, chain or confidence"
    );
    for estimator in Estimator::ALL {
        assert_eq!(estimator.name().parse::<Estimator>().unwrap(), estimator);
    }
}

#[test]
fn a_step_that_failed_can_be_repeated() {
    let toy = ToyPredictor::new(13, 32, 1);
    let config = LikelihoodConfig {
        max_batch_tokens: 10,
        ..config(Estimator::Chain)
    };
    let whole = log_likelihood(&toy, &sequences(), &config).unwrap();
    let mut scoring = Scoring::new(&sequences(), &config, &toy.info()).unwrap();
    let too_short = ToyPredictor::new(13, 2, 1);
    loop {
        assert!(scoring.step(&too_short).is_err());
        if let Some(estimates) = scoring.step(&toy).unwrap() {
            assert_eq!(estimates, whole);
            break;
        }
    }
}

/// A random joint distribution over three tokens of two kinds.
fn joint() -> JointPredictor {
    let weights = [3.0, 1.0, 2.0, 7.0, 4.0, 9.0, 1.0, 5.0];
    JointPredictor::new(2, 3, weights.map(|w| w / 32.0).to_vec())
}

#[test]
fn what_follows_an_answer_is_given() {
    // p(x1 | x0 = 1, x2 = 0) is in the ratio of 4 to 1, and with x2 masked of 13 to 6.
    let joint = joint();
    let check = |suffix: Vec<u32>, cfg_scale, expected: f64| {
        for estimator in Estimator::ALL {
            let config = LikelihoodConfig {
                cfg_scale,
                ..config(estimator)
            };
            let sequence = ScoredSequence {
                tokens: &[1, 0],
                prompt_len: 1,
            };
            let scoring = Scoring::new(&[sequence], &config, &joint.info()).unwrap();
            assert_eq!(
                scoring.n_passes(),
                if estimator == Estimator::Ratio { 7 } else { 1 }
            );
            let scoring = scoring.with_suffix(suffix.clone()).unwrap();
            if estimator == Estimator::Ratio {
                continue;
            }
            let found = steps(&joint, scoring).1[0].log_likelihood;
            assert!((found - expected.ln()).abs() < 1e-6, "{estimator}: {found}");
        }
    };
    check(vec![0], 0.0, 4.0 / 5.0);
    check(vec![2], 0.0, 13.0 / 19.0);
    // Guidance hides what is given on both sides: p(x1) is in the ratio of 17 to 15.
    let guided = |x: f64, hidden: f64| x * x / hidden;
    let [zero, one] = [
        guided(4.0 / 5.0, 17.0 / 32.0),
        guided(1.0 / 5.0, 15.0 / 32.0),
    ];
    check(vec![0], 1.0, zero / (zero + one));
    let chain = ChainPredictor::new(vec![0.0; 16]);
    let sequence = ScoredSequence {
        tokens: &[0, 1],
        prompt_len: 1,
    };
    let scoring = Scoring::new(&[sequence], &config(Estimator::Chain), &chain.info()).unwrap();
    let message = scoring.with_suffix(vec![0]).unwrap_err().to_string();
    assert_eq!(
        message,
        "a suffix cannot be used with an autoregressive model"
    );
}
