//! `get_log_likelihood` of the reference on recorded masks, the chain rule, and greedy decoding.

use std::ops::ControlFlow;

use llada::Precision;
use llada::diffusion::{
    Guidance, LikelihoodConfig, MaskPredictor as _, Query, ScoredSequence, TokenBatch, chain_rule,
    stratified_counts,
};
use llada::sample::{Request, SampleConfig, sample};

use crate::files::{Case, Tensors, cases, device, ids, load, root, rows};

/// The cases with a model; the folder also has a table of counts.
fn scored() -> Vec<Case> {
    let scored: Vec<Case> = cases("likelihood")
        .into_iter()
        .filter(|case| case.has("model"))
        .collect();
    assert!(!scored.is_empty(), "no case has a model");
    scored
}

#[track_caller]
fn check(what: &str, got: f64, expected: f64) {
    let error = ((got - expected) / expected).abs();
    assert!(error <= 1e-5, "{what}: {got}, not {expected} ({error:e})");
}

#[test]
fn stratified_counts_are_the_reference_s() {
    let text = std::fs::read(root().join("likelihood/mask_counts.json")).unwrap();
    let recorded: Vec<serde_json::Value> = serde_json::from_slice(&text).unwrap();
    assert!(!recorded.is_empty());
    for case in &recorded {
        let [k, batch, length] =
            ["k", "batch", "target_len"].map(|key| case[key].as_u64().unwrap());
        let ours = stratified_counts(k as usize, batch as usize, length as usize);
        let counts: Vec<usize> = ids(&case["counts"]).iter().map(|&l| l as usize).collect();
        assert_eq!(ours, counts, "k {k}, batch {batch}, length {length}");
    }
}

#[test]
fn estimates_are_the_reference_s_on_the_same_masks() {
    for case in scored() {
        let (name, cfg_scale) = (&case.name, case.number("cfg_scale") as f32);
        let model = load(case.text("model"), &device(), Precision::F32);
        let mask = case.count("mask_id") as u32;
        let tensors = Tensors::open(case.text("tensors"));
        let (prompt, answer) = (ids(&case.json["prompt"]), ids(&case.json["answer"]));
        let truth = [&prompt[..], &answer].concat();
        let batch_size = case.count("batch_size");
        let noisy = tensors.rows("noisy");
        let p_mask = tensors.f64s("p_mask");
        let (of_calls, of_rows) = (tensors.f64s("batch_loss"), tensors.f64s("per_sample_loss"));
        let mut total = 0.0;
        for (call, rows) in noisy.chunks(batch_size).enumerate() {
            let mut loss = 0.0;
            for (row, canvas) in rows.iter().enumerate() {
                let positions: Vec<usize> = (0..canvas.len())
                    .filter(|&at| canvas[at] == mask && at >= prompt.len())
                    .collect();
                let targets: Vec<u32> = positions.iter().map(|&at| truth[at]).collect();
                let mut hidden = canvas.clone();
                hidden[..prompt.len()].fill(mask);
                let [batch, un] = [canvas, &hidden].map(|ids| TokenBatch::new(&[ids]).unwrap());
                let guidance = Guidance {
                    unconditional: &un,
                    cfg_scale,
                };
                let query = Query {
                    guidance: (cfg_scale > 0.0).then_some(guidance),
                    ..Query::new(&batch, &positions)
                };
                let losses = model.token_losses(query, &targets);
                let at = call * batch_size + row;
                let of_row =
                    losses.unwrap().iter().map(|&x| f64::from(x)).sum::<f64>() / p_mask[at];
                check(
                    &format!("{name}: call {call}, row {row}"),
                    of_row,
                    of_rows[at],
                );
                loss += of_row / batch_size as f64;
            }
            check(&format!("{name}: call {call}"), loss, of_calls[call]);
            total += loss;
        }
        let n_calls = noisy.len().div_ceil(batch_size) as f64;
        check(name, -total / n_calls, case.number("log_likelihood"));
    }
}

#[test]
fn the_chain_rule_is_the_reference_s() {
    for case in scored() {
        let model = load(case.text("model"), &device(), Precision::F32);
        let (prompt, answer) = (ids(&case.json["prompt"]), ids(&case.json["answer"]));
        let tokens = [&prompt[..], &answer].concat();
        let sequence = ScoredSequence {
            tokens: &tokens,
            prompt_len: prompt.len(),
        };
        let config = LikelihoodConfig {
            cfg_scale: case.number("cfg_scale") as f32,
            ..Default::default()
        };
        let order: Vec<usize> = (0..answer.len()).collect();
        let values = chain_rule(&model, &sequence, &order, &config).unwrap();
        let recorded = case.json["chain_rule_log_probs"].as_array().unwrap();
        assert_eq!(values.len(), recorded.len());
        for (i, (value, recorded)) in values.iter().zip(recorded).enumerate() {
            check(
                &format!("{}: token {i}", case.name),
                *value,
                recorded.as_f64().unwrap(),
            );
        }
        check(
            &case.name,
            values.iter().sum(),
            case.number("chain_rule_log_likelihood"),
        );
    }
}

#[test]
fn greedy_decoding_is_the_reference_s() {
    for case in scored() {
        let model = load(case.text("model"), &device(), Precision::F32);
        let greedy = &case.json["suffix_greedy"];
        let target = ids(&greedy["target_greedy"]);
        let config = SampleConfig {
            steps: target.len(),
            gen_length: target.len(),
            block_length: None,
            cfg_scale: case.number("cfg_scale") as f32,
            ..SampleConfig::default()
        };
        let prompt = ids(&case.json["prompt"]);
        let mut states = Vec::new();
        let requests = [Request::generate(prompt.clone(), config)];
        let outputs = sample(&model, &requests, &mut |event| {
            states.push(event.canvas[prompt.len()..].to_vec());
            ControlFlow::Continue(())
        });
        assert_eq!(outputs.unwrap()[0].answer(), target, "{}", case.name);
        assert_eq!(states, rows(&greedy["states"]), "{}", case.name);
        assert_eq!(
            greedy["on_answer"].as_bool().unwrap(),
            ids(&case.json["answer"]) == target
        );
    }
}
