//! `llada eval`, and models with causal attention.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::train::config;
use crate::{fails, json as run, llada, model};

const HELP: &str = "\
Measure what a model can do: the paper's experiments, and tasks out of files

Usage: llada eval <COMMAND>

Commands:
  reversal    Which line of a couplet a model knows from the other one, forward and in reversal
  scaling     The held-out bound of trained runs against the operations of their training
  likelihood  Multiple choice by likelihood
  generation  Answers that must match exactly
  help        Print this message or the help of the given subcommand(s)

Options:
  -h, --help  Print help
";

#[test]
fn help_names_the_tasks() {
    let run = llada(&["eval", "--help"]).assert().success();
    assert_eq!(String::from_utf8_lossy(&run.get_output().stdout), HELP);
}

/// The tiny model with causal attention.
fn arm() -> TempDir {
    let dir = model();
    let path = dir.path().join("config.json");
    let text = fs::read_to_string(&path).expect("the configuration");
    let mut config: Value = serde_json::from_str(&text).expect("an object");
    config["causal"] = true.into();
    fs::write(&path, config.to_string()).expect("a writable folder");
    dir
}

fn file(dir: &TempDir, name: &str, text: &str) -> String {
    let path = dir.path().join(name);
    fs::write(&path, text).expect("a writable folder");
    path.to_str().expect("a name in UTF-8").to_owned()
}

/// Runs `llada eval TASK --format json args`.
#[track_caller]
fn eval(task: &str, args: &[&str]) -> Value {
    let mut command = llada(&["eval", task, "--format", "json"]);
    let run = command.args(args).assert().success();
    serde_json::from_slice(&run.get_output().stdout).expect("one JSON object")
}

#[test]
fn an_autoregressive_model_continues_and_scores() {
    let dir = arm();
    let continued = |args: &[&str]| {
        let args = [&["春风", "--gen-length", "5"], args].concat();
        run(dir.path(), "generate", &args)["outputs"][0].clone()
    };
    let output = continued(&[]);
    assert_eq!(output["tokens"].as_array().map(Vec::len), Some(5));
    // The prompt and four more tokens: the last one is not computed.
    assert_eq!((&output["nfe"], &output["rows"]), (&json!(5), &json!(6)));
    assert_eq!(continued(&["--cache", "prefix"]), output);
    let drawn = continued(&["--temperature", "1", "--seed", "3"]);
    assert_ne!(drawn["tokens"], output["tokens"]);
    assert_eq!(continued(&["--temperature", "1", "--seed", "3"]), drawn);

    let score = |args: &[&str]| {
        let args = [&["--prompt", "春", "--target", "风花雪"], args].concat();
        run(dir.path(), "score", &args)
    };
    let exact = score(&[]);
    assert_eq!(exact["standard_error"], 0.0);
    assert_eq!(exact["target_tokens"], 4);
    assert!(exact["log_likelihood"].as_f64().expect("a number") < 0.0);
    let chain = score(&["--estimator", "chain", "--seed", "5"]);
    assert_eq!(chain["log_likelihood"], exact["log_likelihood"]);
}

#[test]
fn an_autoregressive_model_fills_nothing() {
    let dir = arm();
    let check = |command: &str, args: &[&str], part: &str| {
        let mut command = llada(&[command, "--model"]);
        let command = command.arg(dir.path()).args(args);
        fails(command, 2, &[part, "autoregressive"]);
    };
    check("infill", &["春□"], "infill");
    for flags in [
        &["--steps", "2"][..],
        &["--block-length", "2"],
        &["--cfg-scale", "1"],
        &["--remasking", "random"],
        &["--cache", "dual"],
        &["--threshold", "0.9"],
        &["--constraints", "1:雪"],
    ] {
        check("generate", &[&["春"], flags].concat(), flags[0]);
    }
    check("score", &["--target", "春"], "first token");
    let scored = ["--prompt", "春", "--target", "风"];
    check("score", &[&scored[..], &["--estimator", "t"]].concat(), "t");
    let by_confidence = ["--estimator", "confidence"];
    check(
        "score",
        &[&scored[..], &by_confidence].concat(),
        "confidence",
    );
    check(
        "score",
        &[&scored[..], &["--cfg-scale", "1"]].concat(),
        "--cfg",
    );
}

#[test]
fn reversal_measures_both_models() {
    let (model, arm) = (model(), arm());
    let data = file(
        &model,
        "couplets.txt",
        "春风夏雪，秋月冬山。\n水天山日，日月风花。\n",
    );
    let out = model.path().join("out");
    let [model_dir, arm_dir, out_dir] =
        [model.path(), arm.path(), &out].map(|path| path.to_str().expect("UTF-8"));
    let flags = [
        "--model",
        model_dir,
        "--arm",
        arm_dir,
        "--data",
        &data,
        "--candidates",
        "2",
    ];
    let result = eval("reversal", &[&flags[..], &["--output", out_dir]].concat());
    assert_eq!(
        (&result["couplets"], &result["interrupted"]),
        (&json!(2), &json!(false))
    );
    for (name, objective) in [("model", "diffusion"), ("arm", "autoregressive")] {
        let found = &result[name];
        assert_eq!(found["objective"], objective);
        for direction in ["forward", "reversal"] {
            let figure = &found[direction];
            assert_eq!(figure["n"], 2, "{result}");
            for key in ["accuracy", "standard_error", "character_accuracy"] {
                let x = figure[key].as_f64().expect("a number");
                assert!((0.0..=1.0).contains(&x), "{key}: {result}");
            }
        }
        assert!(found["gap"]["mean"].is_number() && found["gap"]["standard_error"].is_number());
    }
    assert_eq!(result["model"]["choice"], Value::Null);
    assert_eq!(result["arm"]["choice"]["n"], 2);
    let saved = fs::read(out.join("reversal.json")).expect("a file");
    assert_eq!(
        serde_json::from_slice::<Value>(&saved).expect("JSON"),
        result
    );
    let svg = fs::read_to_string(out.join("reversal.svg")).expect("a file");
    assert!(svg.contains("<svg") && svg.contains("</svg>"), "{svg}");

    let mut command = llada(&["eval", "reversal"]);
    let run = command.args(flags).assert().success();
    let text = String::from_utf8_lossy(&run.get_output().stdout).into_owned();
    for part in [
        "forward",
        "reversal",
        "diffusion",
        "autoregressive",
        "out of 2",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }

    let limited = eval("reversal", &[&flags[..], &["--limit", "1"]].concat());
    assert_eq!(limited["arm"]["forward"]["n"], 1);
    let mut same = llada(&["eval", "reversal", "--data", &data, "--arm", model_dir]);
    fails(&mut same, 2, &["--arm", "not autoregressive"]);
    let bad = file(&model, "bad.txt", "春风夏雪，秋月冬山。\n春风\n");
    let mut bad_line = llada(&["eval", "reversal", "--data", &bad, "--model", model_dir]);
    fails(&mut bad_line, 1, &["bad.txt", "line 2", "couplet"]);
}

/// A run of the training test under another objective.
fn train(dir: &Path, objective: &str) -> PathBuf {
    let path = config(dir);
    let toml = fs::read_to_string(&path).expect("the configuration");
    fs::write(&path, toml.replace("diffusion", objective)).expect("a writable folder");
    let run = dir.join(objective);
    let mut command = llada(&["train", "--config"]);
    command.arg(&path).arg(&run).assert().success();
    run
}

#[test]
fn scaling_reads_finished_runs() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let runs = ["diffusion", "autoregressive"].map(|objective| train(dir.path(), objective));
    let [diffusion, arm] = runs.each_ref().map(|run| run.to_str().expect("UTF-8"));
    let data = file(&dir, "held.txt", "春风花月\n秋水山天，春风\n");
    let out = dir.path().join("out");
    let out_dir = out.to_str().expect("UTF-8");
    let flags = [
        "--data", &data, "--output", out_dir, "--runs", arm, diffusion,
    ];
    let result = eval("scaling", &flags);
    let points = result["runs"].as_array().expect("a list");
    assert_eq!(points.len(), 2);
    for (point, objective) in points.iter().zip(["diffusion", "autoregressive"]) {
        assert_eq!(
            (&point["name"], &point["objective"]),
            (&json!(objective), &json!(objective))
        );
        let number = |key: &str| point[key].as_f64().expect("a number");
        // A block of width 16 with a hidden size of 32, and its norms.
        let parameters = number("non_embedding_parameters");
        assert!(
            (parameters - (4.0 * 256.0 + 3.0 * 512.0 + 48.0)).abs() < 0.5,
            "{point}"
        );
        assert!(number("tokens") > 0.0);
        let flops = 6.0 * parameters * number("tokens");
        assert!((number("flops") - flops).abs() < 1.0, "{point}");
        assert!(
            number("bound") > 0.0 && number("standard_error") > 0.0,
            "{point}"
        );
        assert_eq!(point["n"], 2);
    }
    let svg = fs::read_to_string(out.join("scaling.svg")).expect("a file");
    assert!(svg.contains("</svg>"), "{svg}");
    assert!(out.join("scaling.json").is_file());

    let none = dir.path().to_str().expect("UTF-8");
    let mut command = llada(&[
        "eval", "scaling", "--data", &data, "--runs", diffusion, none,
    ]);
    fails(&mut command, 1, &["metrics.jsonl", "llada train"]);
}

#[test]
fn tasks_come_out_of_files() {
    let (model, arm) = (model(), arm());
    let choices = r#"{"prompt": "春", "choices": ["风花", "雪月"], "answer": 0}"#;
    let choices = file(&model, "choices.jsonl", &format!("{choices}\n{choices}\n"));
    let answers = r#"{"prompt": "春", "answer": "风花雪月"}"#;
    let answers = file(&model, "answers.jsonl", answers);
    for dir in [&model, &arm] {
        let dir = dir.path().to_str().expect("UTF-8");
        let likelihood = ["--model", dir, "--data", &choices, "--mc-samples", "4"];
        let result = eval("likelihood", &likelihood);
        assert_eq!(
            (&result["n"], &result["per_token"]["n"]),
            (&json!(2), &json!(2))
        );
        // The same question twice.
        assert_eq!(result["standard_error"], 0.0);
        let result = eval("generation", &["--model", dir, "--data", &answers]);
        assert_eq!(result["n"], 1);
        assert!(result["accuracy"].is_number());
    }
    let dir = arm.path().to_str().expect("UTF-8");
    let flags = [
        "eval",
        "generation",
        "--model",
        dir,
        "--data",
        &answers,
        "--steps",
        "2",
    ];
    fails(&mut llada(&flags), 2, &["--steps", "autoregressive"]);
    let flags = ["eval", "likelihood", "--model", dir, "--data", &answers];
    fails(
        &mut llada(&flags),
        1,
        &["answers.jsonl", "line 1", "answer"],
    );
}

/// What `llada eval` keeps of the first task.
#[track_caller]
fn kept(dir: &TempDir, task: &str, data: &str, flags: &[&str]) -> Value {
    let out = dir.path().join("out.jsonl");
    let path = out.to_str().expect("UTF-8");
    let model = dir.path().to_str().expect("UTF-8");
    let given = ["--model", model, "--data", data, "--output", path];
    eval(task, &[&given, flags].concat());
    let text = fs::read_to_string(&out).expect("a file");
    fs::remove_file(&out).expect("a file");
    serde_json::from_str(text.lines().next().expect("a line")).expect("an object")
}

#[test]
fn a_choice_is_scored_as_by_score() {
    let dir = model();
    let line = r#"{"prompt": "春", "choices": ["风花", "雪月"], "answer": 0}"#;
    let data = file(&dir, "choices.jsonl", line);
    let mut values = Vec::new();
    for flags in [
        &["--mc-samples", "4"][..],
        &["--mc-samples", "4", "--seed", "3"],
        &["--mc-samples", "4", "--estimator", "t"],
        &["--mc-samples", "4", "--cfg-scale", "0.5"],
        &["--estimator", "chain"],
    ] {
        let chosen = kept(&dir, "likelihood", &data, flags);
        let flags = [&["--prompt", "春", "--target", "风花"], flags].concat();
        let scored = run(dir.path(), "score", &flags);
        let value = &chosen["log_likelihoods"][0];
        assert_eq!(value, &scored["log_likelihood"], "{flags:?}");
        assert_eq!(chosen["standard_errors"][0], scored["standard_error"]);
        assert_eq!(chosen["tokens"], json!([3, 3]));
        values.push(value.to_string());
    }
    values.sort_unstable();
    values.dedup();
    assert_eq!(values.len(), 5, "every flag counts: {values:?}");
    let chosen = kept(&dir, "likelihood", &data, &["--no-eos"]);
    assert_eq!(chosen["tokens"], json!([2, 2]));
}

#[test]
fn an_answer_is_written_as_by_generate() {
    let dir = model();
    let line = r#"{"prompt": "春风", "answer": "花雪月山水日"}"#;
    let data = file(&dir, "answers.jsonl", line);
    let whole = kept(&dir, "generation", &data, &[])["text"].clone();
    let stop: String = whole
        .as_str()
        .expect("a text")
        .chars()
        .skip(2)
        .take(1)
        .collect();
    for flags in [
        &[][..],
        &["--steps", "2"],
        &["--block-length", "2", "--steps", "3"],
        &["--cfg-scale", "2"],
        &["--remasking", "random", "--seed", "4"],
        &["--logits-eos-inf"],
        &["--confidence-eos-eot-inf"],
        &["--stop", &stop],
    ] {
        let written = kept(&dir, "generation", &data, flags);
        let flags = [&["春风", "--gen-length", "6"], flags].concat();
        let expected = run(dir.path(), "generate", &flags)["outputs"][0].clone();
        assert_eq!(written["text"], expected["text"], "{flags:?}");
        assert_eq!(written["is_right"], false);
    }
}
