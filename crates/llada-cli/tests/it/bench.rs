//! `llada bench`: what it reports, never how fast it was.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::{CONTEXT, fails, llada, model};

/// Products of a position in the tiny model: a block, the head, and what follows the attention.
const BLOCK: f64 = 2.0 * (4.0 * 16.0 * 16.0 + 3.0 * 16.0 * 32.0 + 2.0 * 16.0);
const HEAD: f64 = 2.0 * (16.0 + VOCABULARY * 16.0);
const BEHIND: f64 = HEAD + 2.0 * (16.0 * 16.0 + 3.0 * 16.0 * 32.0 + 16.0);
const VOCABULARY: f64 = 17.0;

/// Runs `bench what --rounds 2 --format json args`, and checks what holds for every benchmark.
#[track_caller]
fn bench(what: &str, args: &[&str]) -> Value {
    let mut command = llada(&["bench", what, "--rounds", "2", "--format", "json"]);
    let run = command.args(args).assert().success();
    let result: Value = serde_json::from_slice(&run.get_output().stdout).expect("one JSON object");
    assert_eq!(result["rounds"], 2, "{result}");
    let number = |key| number(&result, key);
    assert!(number("seconds_min") > 0.0, "{result}");
    assert!(number("seconds") >= number("seconds_min"), "{result}");
    assert!(number("peak_gops") > 0.0, "{result}");
    near(
        number("percent_of_peak"),
        100.0 * number("gops") / number("peak_gops"),
    );
    let peak = &result["peak_memory_bytes"];
    match cfg!(target_os = "linux") {
        true => assert!(peak.as_u64() > result["weights_bytes"].as_u64(), "{result}"),
        false => assert_eq!(*peak, Value::Null),
    }
    result
}

#[track_caller]
fn number(result: &Value, key: &str) -> f64 {
    result[key].as_f64().expect(key)
}

#[track_caller]
fn near(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-6 * b, "{a} is not {b}");
}

/// Tokens and FLOPs of a pass, out of the rates.
#[track_caller]
fn pass(result: &Value) -> [f64; 2] {
    let rate = |key| number(result, key) * number(result, "seconds");
    [rate("tokens_per_second"), rate("gops") * 1e9]
}

fn path(dir: &Path) -> &str {
    dir.to_str().expect("UTF-8")
}

#[test]
fn forward_counts_every_position_and_the_head_of_the_masked_ones() {
    let dir = model();
    let flags = ["--model", path(dir.path()), "--length", "12"];
    let result = bench("forward", &flags);
    assert_eq!(
        (&result["length"], &result["masked"], &result["batch"]),
        (&json!(12), &json!(12), &json!(1))
    );
    assert_eq!(result["model"], path(dir.path()));
    let [tokens, flops] = pass(&result);
    near(tokens, 12.0);
    near(flops, 12.0 * (BLOCK + HEAD));

    let more = ["--masked", "3", "--batch", "2", "--threads", "1"];
    let result = bench("forward", &[&flags[..], &more].concat());
    assert_eq!(
        (&result["masked"], &result["threads"]),
        (&json!(3), &json!(1))
    );
    let [tokens, flops] = pass(&result);
    near(tokens, 24.0);
    near(flops, 24.0 * (BLOCK + HEAD - BEHIND) + 6.0 * BEHIND);
}

#[test]
fn a_preset_has_random_weights_of_its_precision() {
    let forward = |dtype| {
        let flags = ["--preset", "llada-25m", "--length", "8", "--masked", "1"];
        bench("forward", &[&flags[..], &["--dtype", dtype]].concat())
    };
    // The table of the embedding has two bytes a number in all of them.
    let (table, packed) = (2.0 * 8192.0 * 384.0, 25_172_352.0 - 8192.0 * 384.0);
    for (dtype, bytes) in [("f32", 4.0), ("bf16", 2.0), ("int8", 1.0), ("int4", 0.5)] {
        let result = forward(dtype);
        assert_eq!(
            (&result["model"], &result["total_parameters"]),
            (&json!("llada-25m"), &json!(25_172_352))
        );
        assert_eq!(result["dtype"], dtype);
        // Scales and edges of panels take their share.
        let ratio = (number(&result, "weights_bytes") - table) / (packed * bytes);
        assert!((1.0..1.2).contains(&ratio), "{dtype}: {ratio}");
    }
}

#[test]
fn generate_counts_new_tokens_and_what_was_computed() {
    let dir = model();
    let flags = ["--model", path(dir.path()), "--prompt-length", "4"];
    let lengths = ["--gen-length", "8", "--block-length", "4"];
    let with = |more: &[&str]| bench("generate", &[&flags[..], &lengths, more].concat());
    let plain = with(&["--batch", "2"]);
    assert_eq!((&plain["nfe"], &plain["steps"]), (&json!(8), &json!(8)));
    assert_eq!(plain["cache"], "none");
    let [tokens, flops] = pass(&plain);
    near(tokens, 16.0);
    // Eight steps over twelve positions, in which the masks of a block are asked for.
    let asked = 8.0 + 7.0 + 6.0 + 5.0 + 4.0 + 3.0 + 2.0 + 1.0;
    let body = BLOCK + HEAD - BEHIND;
    let at_most = 2.0 * (8.0 * 12.0 * body + asked * BEHIND);
    assert!(flops > 2.0 * 8.0 * 12.0 * body, "{flops}");
    assert!(flops <= 1.000_001 * at_most, "{flops} of {at_most}");

    assert_eq!(with(&["--steps", "2"])["nfe"], 2);
    let cached = with(&["--cache", "dual"]);
    assert_eq!(
        (&cached["nfe"], &cached["cache"]),
        (&json!(8), &json!("dual"))
    );
    // A pass over everything and three over a block of four, twice.
    let [_, flops] = pass(&cached);
    assert!(flops < 2.0 * (12.0 + 3.0 * 4.0) * (BLOCK + HEAD), "{flops}");
    assert_eq!(with(&["--threshold", "0"])["nfe"], 2);

    let short = bench("generate", &[&flags[..2], &["--length", "10"]].concat());
    assert_eq!(
        (&short["prompt_length"], &short["gen_length"]),
        (&json!(5), &json!(5))
    );
}

#[test]
fn a_folder_without_weights_is_a_shape() {
    let dir = model();
    let forward = || bench("forward", &["--model", path(dir.path()), "--length", "4"]);
    let read = forward();
    fs::remove_file(dir.path().join("model.safetensors")).expect("a writable folder");
    let random = forward();
    for field in ["model", "total_parameters", "dtype"] {
        assert_eq!(random[field], read[field], "{field}");
    }
    near(pass(&random)[1], pass(&read)[1]);
}

#[test]
fn a_training_step_costs_three_passes() {
    let dir = model();
    let flags = ["--model", path(dir.path()), "--length", "12"];
    for dtype in ["f32", "bf16"] {
        let more = ["--batch", "4", "--dtype", dtype];
        let result = bench("train", &[&flags[..], &more].concat());
        assert_eq!(result["dtype"], dtype);
        let masked = number(&result, "masked");
        assert!((1.0..48.0).contains(&masked), "{result}");
        let [tokens, flops] = pass(&result);
        near(tokens, 48.0);
        near(
            flops,
            3.0 * (48.0 * (BLOCK + HEAD - BEHIND) + masked * BEHIND),
        );
        let weights = 4.0 * number(&result, "total_parameters");
        near(number(&result, "weights_bytes"), weights);
    }
}

#[test]
fn text_has_a_line_for_each_field() {
    let dir = model();
    let mut command = llada(&[
        "bench", "forward", "--length", "4", "--rounds", "1", "--model",
    ]);
    let run = command.arg(dir.path()).assert().success();
    let text = String::from_utf8_lossy(&run.get_output().stdout).into_owned();
    for field in ["tokens_per_second", "percent_of_peak", "weights_bytes"] {
        let is_field = |line: &&str| line.starts_with(field);
        assert_eq!(text.lines().filter(is_field).count(), 1, "{text}");
    }
}

#[test]
fn wrong_flags() {
    let dir = model();
    let dir = path(dir.path());
    let check = |args: &[&str], code, parts: &[&str]| {
        let mut command = llada(&["bench"]);
        fails(command.args(args).args(["--model", dir]), code, parts);
    };
    check(
        &["forward", "--length", "0"],
        2,
        &["--length", "at least 1"],
    );
    let (limit, long) = (CONTEXT.to_string(), (CONTEXT + 1).to_string());
    check(&["forward", "--length", &long], 2, &[&long, &limit]);
    check(&["train", "--length", &long], 2, &[&long, &limit]);
    check(&["generate"], 2, &["160", &limit]);
    let short = ["forward", "--length", "4"];
    check(&[&short[..], &["--masked", "5"]].concat(), 2, &["1 to 4"]);
    check(&[&short[..], &["--masked", "0"]].concat(), 2, &["1 to 4"]);
    check(&[&short[..], &["--batch", "0"]].concat(), 2, &["--batch"]);
    let huge = usize::MAX.to_string();
    check(
        &[&short[..], &["--batch", &huge]].concat(),
        2,
        &["too many"],
    );
    check(&["train", "--length", "4", "--dtype", "int8"], 2, &["bf16"]);
    check(&["generate", "--cache", "fast"], 2, &["dual or activity"]);
    check(&["generate", "--steps", "0"], 2, &["--steps"]);
    let no_answer = ["generate", "--length", "4", "--prompt-length", "4"];
    check(&no_answer, 2, &["--length 4", "prompt of 4"]);
    let gone = format!("{dir}/none");
    let mut gone = llada(&["bench", "forward", "--model", &gone]);
    fails(&mut gone, 1, &["none", "config.json"]);

    let mut unknown = llada(&["bench", "forward", "--preset", "gpt"]);
    fails(&mut unknown, 2, &["gpt", "llada-8b", "llada-25m"]);
    let mut both = llada(&["bench", "forward", "--preset", "llada-25m", "--model", dir]);
    both.assert().code(2);
    if cfg!(target_os = "linux") {
        let huge = ["bench", "forward", "--length", "4096", "--batch", "1000000"];
        let mut huge = llada(&[&huge[..], &["--preset", "llada-25m"]].concat());
        fails(&mut huge, 1, &["of memory"]);
    }
}
