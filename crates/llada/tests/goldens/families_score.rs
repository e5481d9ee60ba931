//! Likelihoods as iLLaDA's evaluation estimates them.

use llada::Precision;
use llada::diffusion::{
    Estimator, LikelihoodConfig, MaskPredictor, Query, ScoredSequence, Scoring, TokenBatch,
};

use crate::families::{Family, families};
use crate::files::{Case, device, ids, rows};

/// All recorded scores of a kind, with the families that they are of.
fn scores(kind: &str) -> Vec<(Family, Case)> {
    let of = |family: Family| {
        let cases = family.cases("score").into_iter();
        let cases = cases.filter(|case| case.name.rsplit('/').next().unwrap().starts_with(kind));
        cases
            .map(move |case| (family.clone(), case))
            .collect::<Vec<_>>()
    };
    let found: Vec<(Family, Case)> = families().into_iter().flat_map(of).collect();
    assert!(!found.is_empty(), "no {kind} score is recorded");
    found
}

/// The end of a document that follows the answer in every call, if the case says so.
fn suffix(case: &Case) -> Vec<u32> {
    let eos = case.flag("append_eos").then(|| case.count("eos_id") as u32);
    eos.into_iter().collect()
}

#[track_caller]
fn check(what: &str, got: f64, expected: f64, tolerance: f64) {
    let error = (got - expected).abs();
    assert!(
        error <= tolerance * expected.abs(),
        "{what}: {got}, not {expected}"
    );
}

#[test]
fn tokens_are_revealed_in_the_order_of_the_reference() {
    for (family, case) in scores("confidence") {
        let model = family.load(case.text("model"), &device(), Precision::F32);
        let (prompt, answer) = (ids(&case.json["prompt"]), ids(&case.json["answer"]));
        let tokens = [&prompt[..], &answer].concat();
        let sequence = ScoredSequence {
            tokens: &tokens,
            prompt_len: prompt.len(),
        };
        let config = LikelihoodConfig {
            estimator: Estimator::Confidence,
            cfg_scale: case.number_or("cfg_scale", 0.0) as f32,
            ..LikelihoodConfig::default()
        };
        let scoring = Scoring::new(&[sequence], &config, &model.info()).unwrap();
        let mut scoring = scoring.with_suffix(suffix(&case)).unwrap();
        let estimates = loop {
            if let Some(estimates) = scoring.step(&model).unwrap() {
                break estimates;
            }
        };
        // What a token costs depends on those that were revealed before it.
        let order = ids(&case.json["order"]);
        let losses = case.json["losses"].as_array().unwrap();
        let scores: Vec<_> = scoring.token_scores(0).collect();
        assert_eq!((order.len(), scores.len()), (answer.len(), answer.len()));
        for (at, loss) in order.iter().zip(losses) {
            let got = -scores[*at as usize].log_probability;
            check(
                &format!("{}: token {at}", case.name),
                got,
                loss.as_f64().unwrap(),
                1e-4,
            );
        }
        check(
            &case.name,
            estimates[0].log_likelihood,
            case.number("log_likelihood"),
            1e-4,
        );
    }
}

#[test]
fn losses_of_recorded_masks_are_the_reference_s() {
    for (family, case) in scores("monte_carlo") {
        let model = family.load(case.text("model"), &device(), Precision::F32);
        let (prompt, answer) = (ids(&case.json["prompt"]), ids(&case.json["answer"]));
        let (truth, mask) = (
            [&prompt[..], &answer].concat(),
            case.count("mask_id") as u32,
        );
        let calls = case.json["noisy"].as_array().unwrap();
        let recorded = case.json["losses_per_call"].as_array().unwrap();
        assert_eq!(calls.len(), recorded.len(), "{}", case.name);
        let mut total = 0.0;
        for (call, recorded) in calls.iter().zip(recorded) {
            let rows = rows(call);
            let mut loss = 0.0;
            for noisy in &rows {
                let masked = |at: &usize| noisy[*at] == mask;
                let positions: Vec<usize> = (prompt.len()..truth.len()).filter(masked).collect();
                let targets: Vec<u32> = positions.iter().map(|&at| truth[at]).collect();
                let input = [&noisy[..], &suffix(&case)].concat();
                let batch = TokenBatch::new(&[input]).unwrap();
                let losses = model
                    .token_losses(Query::new(&batch, &positions), &targets)
                    .unwrap();
                let sum: f64 = losses.iter().map(|&x| f64::from(x)).sum();
                loss += sum * answer.len() as f64 / positions.len() as f64 / rows.len() as f64;
            }
            check(&case.name, loss, recorded.as_f64().unwrap(), 1e-5);
            total += loss / calls.len() as f64;
        }
        check(&case.name, -total, case.number("log_likelihood"), 1e-5);
    }
}
