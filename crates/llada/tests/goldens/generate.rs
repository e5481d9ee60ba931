//! Runs of `generate` of the reference's generate.py: the same tokens after every step.

use std::ops::ControlFlow;

use llada::sample::{Draws, Output, RecordedDraws, Remasking, Request, SampleConfig, sample};
use llada::{LladaModel, Precision};

use crate::files::{Case, Tensors, cases, device, load, max_difference, rows};

/// One row of a case: a request and the columns of padding before its prompt.
struct Row {
    request: Request,
    padding: usize,
}

fn config(case: &Case) -> SampleConfig {
    let temperature = case.number_or("temperature", 0.0);
    let [eos, eot] = ["eos_id", "eot_id"].map(|key| case.count(key) as u32);
    let when = |flag: &str, ids: &[u32]| {
        if case.flag(flag) {
            ids.to_vec()
        } else {
            Vec::new()
        }
    };
    // At a positive temperature the reference's flag reaches EOT alone.
    let without_confidence: &[u32] = if temperature > 0.0 {
        &[eot]
    } else {
        &[eos, eot]
    };
    let remasking = if case.has("remasking") {
        case.text("remasking").parse().unwrap()
    } else {
        Remasking::LowConfidence
    };
    SampleConfig {
        steps: case.count("steps"),
        gen_length: case.count("gen_length"),
        block_length: Some(case.count("block_length")),
        temperature,
        cfg_scale: case.number_or("cfg_scale", 0.0) as f32,
        remasking,
        logits_eos_inf: when("logits_eos_inf", &[eos]),
        confidence_eos_eot_inf: when("confidence_eos_eot_inf", without_confidence),
        ..SampleConfig::default()
    }
}

/// The requests of a case, with their recorded draws.
fn table(case: &Case) -> Vec<Row> {
    let prompts = rows(&case.json["prompt"]);
    let masks = case
        .has("attention_mask")
        .then(|| rows(&case.json["attention_mask"]));
    let tensors = case.has("draws").then(|| Tensors::open(case.text("draws")));
    let (config, n_rows) = (config(case), prompts.len());
    let mut requests = Vec::new();
    for (row, prompt) in prompts.iter().enumerate() {
        let padding = masks.as_ref().map_or(0, |masks| {
            let padding = masks[row].iter().take_while(|&&keep| keep == 0).count();
            assert!(
                masks[row][padding..].iter().all(|&keep| keep == 1),
                "padding is on the left"
            );
            padding
        });
        let prompt_len = prompt.len() - padding;
        let draws = tensors.as_ref().map_or(Draws::Philox, |tensors| {
            let of = |name: &str, skip: usize| -> Vec<f64> {
                if !tensors.has(name) {
                    return Vec::new();
                }
                let size: usize = tensors.shape(name)[2..].iter().product();
                let values = tensors.f64s(name);
                let steps = values.chunks(size).skip(row).step_by(n_rows);
                steps.flat_map(|step| step[skip..].to_vec()).collect()
            };
            Draws::Recorded(RecordedDraws {
                gumbel_start: prompt_len,
                gumbel_len: config.gen_length,
                gumbel: of("gumbel_uniform", 0),
                remask: of("remask_uniform", padding)
                    .into_iter()
                    .map(|x| x as f32)
                    .collect(),
            })
        });
        let request = Request {
            draws,
            ..Request::generate(prompt[padding..].to_vec(), config.clone())
        };
        requests.push(Row { request, padding });
    }
    requests
}

/// The requests of a case.
pub(crate) fn requests(case: &Case) -> Vec<Request> {
    table(case).into_iter().map(|row| row.request).collect()
}

/// Samples, and returns the canvas of every row after every step, with the confidences.
#[expect(
    clippy::type_complexity,
    reason = "[step][row], and by step, row and position"
)]
fn run(
    model: &LladaModel,
    requests: &[Request],
) -> (
    Vec<Output>,
    Vec<Vec<Vec<u32>>>,
    Vec<(usize, usize, usize, u32, f32)>,
) {
    let (mut steps, mut revealed) = (Vec::new(), Vec::new());
    let outputs = sample(model, requests, &mut |event| {
        if steps.len() <= event.step {
            steps.push(vec![Vec::new(); requests.len()]);
        }
        steps[event.step][event.request] = event.canvas.to_vec();
        let of = |r: &llada::sample::Revealed| {
            (event.step, event.request, r.position, r.token, r.confidence)
        };
        revealed.extend(event.revealed.iter().map(of));
        ControlFlow::Continue(())
    })
    .unwrap();
    (outputs, steps, revealed)
}

fn check(case: &Case, precision: Precision) -> Result<(), String> {
    let name = &case.name;
    let model = load(case.text("model"), &device(), precision);
    let table = table(case);
    let requests: Vec<Request> = table.iter().map(|row| row.request.clone()).collect();
    let (outputs, steps, revealed) = run(&model, &requests);
    let recorded = case.json["x_after_step"].as_array().unwrap();
    if steps.len() != recorded.len() {
        return Err(format!(
            "{name}: {} steps of {}",
            steps.len(),
            recorded.len()
        ));
    }
    for (step, (canvases, recorded)) in steps.iter().zip(recorded).enumerate() {
        for (row, recorded) in rows(recorded).iter().enumerate() {
            let answer = &canvases[row][outputs[row].prompt_len..];
            if answer != recorded {
                return Err(format!(
                    "{name}: row {row} after step {step}: {answer:?}, not {recorded:?}"
                ));
            }
        }
    }
    if case.has("x_after_step_whole") {
        let whole = case.json["x_after_step_whole"].as_array().unwrap();
        for (step, (canvases, whole)) in steps.iter().zip(whole).enumerate() {
            assert_eq!(
                canvases,
                &rows(whole),
                "{name}: whole canvas after step {step}"
            );
        }
    }
    for (row, recorded) in rows(&case.json["output"]).iter().enumerate() {
        assert_eq!(
            outputs[row].tokens,
            recorded[table[row].padding..],
            "{name}: row {row}"
        );
    }
    check_trace(case, &revealed);
    check_alone(name, &model, &requests, &outputs, &revealed);
    Ok(())
}

/// The probability of each kept token is the recorded one.
fn check_trace(case: &Case, revealed: &[(usize, usize, usize, u32, f32)]) {
    let tensors = case.has("draws").then(|| Tensors::open(case.text("draws")));
    let Some(tensors) = tensors.filter(|tensors| tensors.has("trace.confidence")) else {
        return;
    };
    let shape = tensors.shape("trace.confidence");
    let (confidence, tokens) = (tensors.f64s("trace.confidence"), tensors.counts("trace.x0"));
    for &(step, row, position, token, p) in revealed {
        let at = (step * shape[1] + row) * shape[2] + position;
        assert_eq!(token as usize, tokens[at], "{}", case.name);
        let error = max_difference(&[p], &confidence[at..=at]);
        assert!(
            error <= 1e-4,
            "{}: confidence is off by {error:e}",
            case.name
        );
    }
}

/// Each row alone gives the same bits.
fn check_alone(
    name: &str,
    model: &LladaModel,
    requests: &[Request],
    outputs: &[Output],
    revealed: &[(usize, usize, usize, u32, f32)],
) {
    for (row, request) in requests.iter().enumerate() {
        let (alone, _, of_row) = run(model, std::slice::from_ref(request));
        assert_eq!(alone[0], outputs[row], "{name}: row {row} alone");
        let together = revealed.iter().filter(|r| r.1 == row);
        let bits = |r: &(usize, usize, usize, u32, f32)| (r.0, r.2, r.3, r.4.to_bits());
        assert!(
            together.map(bits).eq(of_row.iter().map(bits)),
            "{name}: row {row} alone"
        );
    }
}

#[test]
fn tokens_are_the_reference_s_after_every_step() {
    let failed: Vec<String> = cases("generate")
        .iter()
        .filter_map(|case| check(case, Precision::F32).err())
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Where the reference's own margins are well above its bf16 error, bf16 gives the same tokens.
#[test]
fn bf16_gives_the_same_tokens_where_the_margin_allows() {
    for case in cases("generate") {
        if !case.has("bf16_max_logit_error_on_run") {
            continue;
        }
        let gaps = ["min_token_logit_gap", "min_kept_vs_remasked_logprob_gap"];
        let gap = gaps
            .map(|key| case.number_or(key, f64::INFINITY))
            .into_iter()
            .fold(f64::INFINITY, f64::min);
        let error = case.number("bf16_max_logit_error_on_run");
        if let Err(message) = check(&case, Precision::Bf16) {
            // A gap of twice the error cannot be closed by it.
            assert!(gap < 2.0 * error, "{message}");
        }
    }
}
