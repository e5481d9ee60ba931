//! What the commands print.

use std::fs;

use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::{CONTEXT, json as run, llada, model};

fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object().expect("an object");
    object.keys().map(String::as_str).collect()
}

#[test]
fn generate_reports_the_tokens() {
    let dir = model();
    let result = run(dir.path(), "generate", &["春风", "--gen_length", "5"]);
    assert_eq!(keys(&result), ["outputs", "seconds", "tokens_per_second"]);
    let output = &result["outputs"][0];
    let expected = [
        "text",
        "tokens",
        "prompt_tokens",
        "nfe",
        "rows",
        "steps",
        "saved_steps",
    ];
    assert_eq!(keys(output), expected);
    assert_eq!(output["tokens"].as_array().map(Vec::len), Some(5));
    assert_eq!(output["prompt_tokens"], 2);
    assert_eq!((&output["nfe"], &output["steps"]), (&json!(5), &json!(5)));
}

#[test]
fn the_default_length_of_a_model_of_characters_is_three_times_the_prompt() {
    let dir = model();
    let result = run(dir.path(), "generate", &["春风"]);
    let tokens = result["outputs"][0]["tokens"].as_array().map(Vec::len);
    assert_eq!(tokens, Some(6));
    let result = run(dir.path(), "generate", &["春风春风春风春"]);
    let tokens = result["outputs"][0]["tokens"].as_array().map(Vec::len);
    assert_eq!(tokens, Some(CONTEXT - 7));
}

#[test]
fn a_preset_is_its_flags_and_other_flags_stay() {
    let dir = model();
    let of = |flags: &[&str]| {
        let result = run(
            dir.path(),
            "generate",
            &[&["春风", "-n", "12"], flags].concat(),
        );
        result["outputs"][0].clone()
    };
    assert_eq!(of(&["--preset", "exact"]), of(&[]));
    let balanced = ["--threshold", "0.9", "--block-length", "32"];
    assert_eq!(of(&["--preset", "balanced"]), of(&balanced));
    let fast = [&balanced[..], &["--cache", "dual"]].concat();
    assert_eq!(of(&["--preset", "fast"]), of(&fast));
    assert_eq!(of(&["--preset", "fast", "--cache", "none"]), of(&balanced));
    // Flags of a cache go with that of the preset.
    let fresh = ["--refresh-interval", "1"];
    let refreshed = of(&[&["--preset", "fast"], &fresh[..]].concat());
    assert_eq!(refreshed, of(&[&fast[..], &fresh].concat()));
    let other = ["--factor", "1", "--block-length", "4", "--cache", "prefix"];
    assert_eq!(
        of(&[&["--preset", "fast"], &other[..]].concat()),
        of(&other)
    );
}

#[test]
fn infill_keeps_what_is_given() {
    let dir = model();
    let result = run(dir.path(), "infill", &["春□□月，秋[MASK]雪。", "□山"]);
    let text = result["outputs"][0]["text"].as_str().expect("a text");
    let characters: Vec<char> = text.chars().collect();
    assert_eq!(characters.len(), 9, "{text}");
    for (at, given) in [
        (0, '春'),
        (3, '月'),
        (4, '，'),
        (5, '秋'),
        (7, '雪'),
        (8, '。'),
    ] {
        assert_eq!(characters[at], given, "{text}");
    }
    assert!(!text.contains(['□', '_', '[']), "{text}");
    // The end of the text is shown to the model and not reported.
    let tokens = result["outputs"][0]["tokens"].as_array().map(Vec::len);
    assert_eq!(tokens, Some(9));
    assert_eq!(result["outputs"][0]["nfe"], 3);
    let last = result["outputs"][1]["text"].as_str().expect("a text");
    assert_eq!(last.chars().last(), Some('山'));
}

#[test]
fn caches_and_parallel_decoding_fill_everything() {
    let dir = model();
    let flags = ["--gen-length", "8", "--block-length", "4"];
    let with = |more: &[&str]| {
        let args = [&["春风"], &flags[..], more].concat();
        run(dir.path(), "generate", &args)["outputs"][0].clone()
    };
    let plain = with(&[]);
    assert_eq!(plain["nfe"], 8);
    assert_eq!(with(&["--cache", "none"]), plain);
    for more in [
        &["--cache", "dual"][..],
        &["--cache", "prefix"],
        &["--threshold", "0.9"],
        &["--factor", "1"],
        &["--cache", "dual", "--threshold", "0"],
    ] {
        let output = with(more);
        let tokens = output["tokens"].as_array().expect("a list");
        assert!(tokens.iter().all(|id| *id != 0), "{more:?}: {output}");
    }
    assert_eq!(with(&["--threshold", "0"])["nfe"], 2);
}

#[test]
fn score_reports_a_likelihood_with_its_error() {
    let dir = model();
    let score = |args: &[&str]| {
        let args = [&["--prompt", "春风", "--target"][..], args].concat();
        run(dir.path(), "score", &args)
    };
    let result = score(&["夏雪月"]);
    let expected = [
        "log_likelihood",
        "standard_error",
        "greedy_match",
        "target_tokens",
        "seconds",
    ];
    assert_eq!(keys(&result), expected);
    let number = |result: &Value, key: &str| result[key].as_f64().expect("a number");
    let (mean, error) = (
        number(&result, "log_likelihood"),
        number(&result, "standard_error"),
    );
    assert!(mean < 0.0 && error > 0.0, "{result}");
    // The estimators agree within their errors; the chain rule of an untrained model is near.
    let noisy = score(&["夏雪月", "--estimator", "t", "--mc-samples", "2000"]);
    let distance = (number(&noisy, "log_likelihood") - mean).abs();
    assert!(
        distance < 5.0 * (number(&noisy, "standard_error") + error),
        "{noisy}"
    );
    let in_batches = score(&["夏雪月", "--batch-size", "16"]);
    let distance = (number(&in_batches, "log_likelihood") - mean).abs();
    assert!(distance < 5.0 * error, "{in_batches}");
    for exact in ["chain", "confidence"] {
        let exact = score(&["夏雪月", "--estimator", exact]);
        assert!(exact["standard_error"] == json!(0.0));
        assert!(number(&exact, "log_likelihood") < 0.0, "{exact}");
    }
}

#[test]
fn the_greedy_target_of_one_token_is_the_likeliest() {
    let dir = model();
    let score = |id: u32| {
        let args = [
            "--prompt",
            "春风",
            "--estimator",
            "chain",
            "--target-ids",
            &id.to_string(),
        ];
        run(dir.path(), "score", &args)
    };
    let results: Vec<Value> = (0..17).map(score).collect();
    let likelihood = |result: &Value| result["log_likelihood"].as_f64().expect("a number");
    let best = results
        .iter()
        .map(likelihood)
        .fold(f64::NEG_INFINITY, f64::max);
    for result in &results {
        assert_eq!(
            result["greedy_match"],
            json!(likelihood(result) >= best),
            "{result}"
        );
    }
}

#[test]
fn words_are_fixed_at_places_of_the_answer() {
    let dir = model();
    let args = ["春", "--gen-length", "6", "--constraints", "1:雪月,4:天"];
    let result = run(dir.path(), "generate", &args);
    let text = result["outputs"][0]["text"].as_str().expect("a text");
    let at = |i: usize| text.chars().nth(i);
    assert_eq!(
        [at(1), at(2), at(4)],
        ['雪', '月', '天'].map(Some),
        "{text}"
    );
}

#[test]
fn infill_folds_traditional_characters() {
    let dir = model();
    let result = run(dir.path(), "infill", &["風□"]);
    let text = result["outputs"][0]["text"].as_str().expect("a text");
    assert!(text.starts_with('风'), "{text}");
}

#[test]
fn a_batch_gives_what_its_lines_give() {
    let dir = model();
    let input = dir.path().join("prompts.jsonl");
    let lines = "{\"prompt\": \"春风\"}\n\n{\"prompt_ids\": [3, 4, 5]}\n{\"prompt\": \"山\"}\n";
    fs::write(&input, lines).expect("a writable folder");
    let flags = ["--gen-length", "6", "--temperature", "1", "--seed", "3"];
    let with = |args: &[&str]| run(dir.path(), "generate", &[args, &flags].concat());
    let batch = with(&["--input", input.to_str().expect("UTF-8")]);
    let singles = [&["春风"][..], &["--prompt-ids", "3,4,5"], &["山"]];
    for (at, args) in singles.into_iter().enumerate() {
        assert_eq!(batch["outputs"][at], with(args)["outputs"][0]);
    }
}

#[test]
fn text_results_are_the_whole_text() {
    let dir = model();
    let path = dir.path().to_str().expect("UTF-8");
    let run = llada(&["generate", "春風", "--model", path, "--logits_eos_inf"]);
    let mut run = run;
    let run = run.assert().success();
    let text = String::from_utf8_lossy(&run.get_output().stdout).into_owned();
    assert!(text.starts_with("春风"), "{text}");
    assert_eq!(text.trim_end().chars().count(), 8);
}

/// Runs a command and returns standard output and standard error.
fn texts(args: &[&str]) -> (String, String) {
    let run = llada(args).assert().success();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        text(&run.get_output().stdout),
        text(&run.get_output().stderr),
    )
}

#[test]
fn what_a_model_does_not_know_stays_in_the_text_and_is_told() {
    let dir = model();
    let path = dir.path().to_str().expect("UTF-8");
    let (out, err) = texts(&["generate", "春龘風x", "-m", path, "-n", "2"]);
    assert!(out.starts_with("春龘风x"), "{out}");
    assert!(
        err.contains("warning") && err.contains("\"x\", \"龘\""),
        "{err}"
    );
    let (out, _) = texts(&["infill", "龘□x_", "-m", path]);
    let characters: Vec<char> = out.trim_end().chars().collect();
    assert_eq!(
        (characters[0], characters[2], characters[3]),
        ('龘', 'x', '_'),
        "{out}"
    );
    let (out, _) = texts(&["infill", "春??x□", "--mask", "??", "-m", path]);
    assert!(out.ends_with("x□\n") && out.chars().count() == 5, "{out}");
}

#[test]
fn samples_have_the_seeds_after_the_first() {
    let dir = model();
    let flags = ["春风", "--gen-length", "4", "--temperature", "1", "--seed"];
    let with = |seed: &str, more: &[&str]| {
        run(
            dir.path(),
            "generate",
            &[&flags[..], &[seed], more].concat(),
        )
    };
    let three = with("3", &["--n", "3"]);
    for (at, seed) in ["3", "4", "5"].into_iter().enumerate() {
        assert_eq!(three["outputs"][at], with(seed, &[])["outputs"][0]);
    }
}

#[test]
fn an_answer_ends_before_a_stop() {
    let dir = model();
    let flags = ["春风", "--gen-length", "4", "--logits-eos-inf"];
    let whole = run(dir.path(), "generate", &flags);
    let whole = whole["outputs"][0]["text"]
        .as_str()
        .expect("a text")
        .to_owned();
    let stop = whole.chars().nth(2).expect("four characters").to_string();
    let cut = run(
        dir.path(),
        "generate",
        &[&flags[..], &["--stop", &stop]].concat(),
    );
    let end = whole.find(&stop).expect("it is there");
    assert_eq!(cut["outputs"][0]["text"].as_str(), Some(&whole[..end]));
}

#[test]
fn ids_need_no_tokenizer() {
    let dir = model();
    let with = |args: &[&str]| run(dir.path(), "generate", args)["outputs"][0]["tokens"].clone();
    let ids = ["--prompt-ids", "3,4,5", "--gen-length", "4"];
    let tokens = with(&ids);
    fs::remove_file(dir.path().join("tokenizer.json")).expect("it is there");
    assert_eq!(with(&ids), tokens);
    let path = dir.path().to_str().expect("UTF-8");
    let (out, _) = texts(&["generate", "--prompt-ids", "3,4,5", "-n", "4", "-m", path]);
    assert!(out.starts_with("3 4 5 "), "{out}");
}

#[test]
fn the_shells_and_man_know_every_command() {
    for args in [
        &["completions", "bash"][..],
        &["completions", "zsh"],
        &["man"],
    ] {
        let (out, _) = texts(args);
        for word in ["generate", "infill", "convert"] {
            assert!(out.contains(word), "{args:?}: {word}");
        }
    }
}

#[test]
fn every_step_is_traced_and_shown() {
    let dir = model();
    let trace = dir.path().join("trace.jsonl");
    let (path, trace_path) = (dir.path().to_str(), trace.to_str());
    let (path, trace_path) = (path.expect("UTF-8"), trace_path.expect("UTF-8"));
    let run = llada(&["infill", "春□□，", "--model", path])
        .args(["--trace", trace_path, "--watch"])
        .assert()
        .success();
    let shown = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
    assert_eq!(shown.lines().filter(|line| line.contains('春')).count(), 2);
    let lines = fs::read_to_string(trace).expect("the trace");
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON lines"))
        .collect();
    assert_eq!(lines.len(), 2);
    for (step, line) in lines.iter().enumerate() {
        assert_eq!((&line["request"], &line["step"]), (&json!(0), &json!(step)));
        assert_eq!(line["masked"], 1 - step);
        let revealed = keys(&line["revealed"][0]);
        assert_eq!(revealed, ["position", "token", "text", "confidence"]);
    }
    assert_eq!(
        lines[0]["text"].as_str().map(|t| t.matches('□').count()),
        Some(1)
    );
    // The canvas of the first step, a text for each token; the end of the document is one of them.
    let texts = lines[0]["texts"].as_array().expect("texts");
    assert_eq!(
        texts.len(),
        lines[0]["canvas"].as_array().map_or(0, Vec::len)
    );
    assert_eq!(
        (&texts[0], &texts[3], &texts[4]),
        (&json!("春"), &json!("，"), &json!("[EOS]"))
    );
    assert_eq!(texts.iter().filter(|text| **text == "□").count(), 1);
    assert_eq!(lines[0]["prompt_tokens"], 0);
    assert_eq!(lines[1].get("texts"), None);
}

#[test]
fn a_trace_says_where_a_prompt_ends() {
    let dir = model();
    let trace = dir.path().join("trace.jsonl");
    let (path, trace_path) = (dir.path().to_str(), trace.to_str());
    let (path, trace_path) = (path.expect("UTF-8"), trace_path.expect("UTF-8"));
    llada(&["generate", "春夏", "--gen-length", "3", "--model", path])
        .args(["--trace", trace_path])
        .assert()
        .success();
    let lines = fs::read_to_string(trace).expect("the trace");
    let first: Value = serde_json::from_str(lines.lines().next().expect("a step")).expect("JSON");
    assert_eq!(first["prompt_tokens"], 2);
    assert_eq!(
        first["texts"].as_array().map(|texts| texts[..2].to_vec()),
        Some(vec![json!("春"), json!("夏")])
    );
}

#[test]
fn logits_of_padding_are_zero_and_padding_changes_nothing() {
    let dir = model();
    let (ids, output) = (dir.path().join("ids.json"), dir.path().join("logits.st"));
    let args = [
        "--ids",
        ids.to_str().expect("UTF-8"),
        "--output",
        output.to_str().expect("UTF-8"),
    ];
    let read = |content: Value| {
        fs::write(&ids, content.to_string()).expect("a writable folder");
        let result = run(dir.path(), "logits", &args);
        let bytes = fs::read(&output).expect("the result");
        let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let tensor = file.tensor("logits").expect("the tensor");
        assert_eq!(result["shapes"]["logits"], json!(tensor.shape()));
        (tensor.shape().to_vec(), tensor.data().to_vec())
    };
    let (shape, alone) = read(json!({ "input_ids": [[3, 0, 4]] }));
    assert_eq!(shape, [1, 3, 17]);
    let (shape, padded) = read(json!({
        "input_ids": [[1, 3, 0, 4], [5, 6, 7, 8]],
        "attention_mask": [[0, 1, 1, 1], [1, 1, 1, 1]],
    }));
    assert_eq!(shape, [2, 4, 17]);
    let row = 17 * size_of::<f32>();
    assert!(padded[..row].iter().all(|&byte| byte == 0));
    assert_eq!(padded[row..4 * row], alone);
}

#[test]
fn inspect_counts_parameters() {
    let dir = model();
    let path = dir.path().to_str().expect("UTF-8");
    let of = |args: &[&str]| -> Value {
        let run = llada(&["inspect", "--format", "json"]).args(args).assert();
        serde_json::from_slice(&run.success().get_output().stdout).expect("one JSON object")
    };
    let tiny = of(&[path]);
    assert_eq!(
        (&tiny["d_model"], &tiny["mask_token_id"]),
        (&json!(16), &json!(0))
    );
    assert!(tiny["total_parameters"].as_u64() > tiny["non_embedding_parameters"].as_u64());
    let paper = of(&["--preset", "llada-8b"]);
    assert_eq!(paper["total_parameters"], 8_015_581_184_u64);
    assert!(of(&[])["vocab_size"].is_u64());
}

#[test]
fn the_embedded_model_needs_no_files() {
    let run = llada(&["infill", "春□，", "--format", "json"])
        .assert()
        .success();
    let result: Value = serde_json::from_slice(&run.get_output().stdout).expect("JSON");
    let text = result["outputs"][0]["text"].as_str().expect("a text");
    assert_eq!(text.chars().count(), 3);
}

/// Only an end that the command itself put after a text is left out of the result.
#[test]
fn an_infill_of_ids_reports_all_of_them() {
    let dir = model();
    let config = fs::read(dir.path().join("config.json")).expect("a model");
    let config: Value = serde_json::from_slice(&config).expect("valid");
    let [mask, eos] = ["mask_token_id", "eos_token_id"].map(|key| config[key].clone());
    let lines = dir.path().join("lines.jsonl");
    fs::write(&lines, json!({"prompt_ids": [mask, eos]}).to_string()).expect("writable");
    let lines = lines.to_str().expect("a plain path");
    let tokens = &run(dir.path(), "infill", &["--input", lines])["outputs"][0]["tokens"];
    assert_eq!(
        (tokens.as_array().map(Vec::len), &tokens[1]),
        (Some(2), &eos)
    );
}
