//! `llada train`, from nothing to a model that the other commands load.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{fails, json, llada};

/// Writes a training text and its configuration.
pub(crate) fn config(dir: &Path) -> PathBuf {
    let line = "春风花月，秋水山天。\n";
    fs::write(dir.join("text.txt"), line.repeat(20)).expect("a writable folder");
    let path = dir.join("train.toml");
    let toml = r#"
        objective = "diffusion"
        [data]
        train = ["text.txt"]
        tokenizer = "char"
        sequence_length = 16
        [model]
        d_model = 16
        n_layers = 1
        n_heads = 2
        mlp_hidden_size = 32
        [train]
        steps = 10
        batch_size = 2
        learning_rate = 1e-3
        warmup_steps = 2
        checkpoint_every = 5
    "#;
    fs::write(&path, toml).expect("a writable folder");
    path
}

#[test]
fn a_run_trains_resumes_and_loads() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (config, run) = (config(dir.path()), dir.path().join("run"));
    let train = || -> Value {
        let mut command = llada(&["train", "--format", "json", "--config"]);
        let assert = command.arg(&config).arg(&run).assert().success();
        serde_json::from_slice(&assert.get_output().stdout).expect("one JSON object")
    };
    let first = train();
    assert_eq!(
        (first["step"].as_u64(), first["finished"].as_bool()),
        (Some(10), Some(true))
    );
    assert_eq!(train()["resumed_from"], 10);
    let result = json(&run, "infill", &["春□花月，"]);
    assert_eq!(result["outputs"][0]["nfe"], 1);
}

/// A configuration with other lines in the place of one.
fn with(dir: &Path, line: &str, lines: &str) -> PathBuf {
    let path = config(dir);
    let text = fs::read_to_string(&path).expect("written");
    assert!(text.contains(line), "{line}");
    fs::write(&path, text.replace(line, lines)).expect("a writable folder");
    path
}

/// What a run writes on standard error, which is no terminal.
#[track_caller]
fn said(config: &Path, run: &Path) -> String {
    let mut command = llada(&["train", "--threads", "1", "--config"]);
    let assert = command.arg(config).arg(run).assert().success();
    String::from_utf8_lossy(&assert.get_output().stderr).into_owned()
}

#[test]
fn a_run_begins_with_a_summary_and_says_how_it_goes_on() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let config = with(
        dir.path(),
        "steps = 10",
        "steps = 10\n        eval_every = 5",
    );
    let config = {
        let text = fs::read_to_string(&config).expect("written");
        let text = text.replace(
            "tokenizer = ",
            "validation = [\"text.txt\"]\n        tokenizer = ",
        );
        fs::write(&config, text).expect("a writable folder");
        config
    };
    let text = said(&config, &dir.path().join("run"));
    // 20 lines of 10 characters and an EOS: 13 sequences of 16 and one of 12; a step has 2 of them.
    for part in [
        "text.txt: 20 documents, one a line, of 11 tokens on average, 220 in all (text with line \
         breaks needs .jsonl)\n",
        "text.txt (held out): 20 documents",
        "model: 3,024 parameters, all trained; vocabulary of 13\n",
        "10 steps of about 31 tokens: 1.43 epochs",
        "memory: about ",
        "step 1/10, loss ",
        "step 5/10, loss ",
        "held-out ",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn a_dry_run_prints_the_plan_and_writes_nothing() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (config, run) = (config(dir.path()), dir.path().join("run"));
    let dry = |format: &str| {
        let mut command = llada(&["train", "--dry-run", "--threads", "1", "--format", format]);
        let assert = command.arg("--config").arg(&config).arg(&run).assert();
        assert.success().get_output().stdout.clone()
    };
    let result: Value = serde_json::from_slice(&dry("json")).expect("one JSON object");
    for (field, expected) in [
        ("documents", 20),
        ("tokens", 220),
        ("vocabulary", 13),
        ("parameters", 3024),
        ("trained_parameters", 3024),
        ("steps", 10),
    ] {
        assert_eq!(result[field], expected, "{field}");
    }
    assert!(result["seconds_per_step"].as_f64().expect("a number") > 0.0);
    assert_eq!(result["resumes"], false);
    let text = String::from_utf8(dry("text")).expect("UTF-8");
    assert!(
        text.ends_with("nothing was written\n") && text.contains("a step takes "),
        "{text}"
    );
    assert!(!run.exists(), "nothing was written");
    said(&config, &run);
    let result: Value = serde_json::from_slice(&dry("json")).expect("one JSON object");
    assert_eq!(result["resumes"], true);
}

#[test]
fn what_is_wrong_with_a_configuration_is_named() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = dir.path().join("run");
    let check = |line: &str, lines: &str, parts: &[&str]| {
        let config = with(dir.path(), line, lines);
        let mut command = llada(&["train", "--config"]);
        fails(command.arg(config).arg(&run), 1, parts);
    };
    let key = "d_model = 16";
    let unknown = [
        "train.toml",
        "unknown key hidden_size; did you mean d_model?",
    ];
    check(key, "hidden_size = 16", &unknown);
    check(key, "", &["section [model] of ", "d_model is missing"]);
    // Activations of a thousand million tokens.
    let line = "夏".repeat(100_000);
    fs::write(dir.path().join("long.txt"), format!("{line}\n")).expect("a writable folder");
    let long = [
        "needs about ",
        "and this machine has ",
        "data.sequence_length (100000)",
        "train.micro_batch_tokens",
    ];
    let config = config(dir.path());
    let text = fs::read_to_string(&config).expect("written");
    let text = text
        .replace("text.txt", "long.txt")
        .replace("sequence_length = 16", "sequence_length = 100000")
        .replace("batch_size = 2", "batch_size = 1000000");
    fs::write(&config, text).expect("a writable folder");
    let mut command = llada(&["train", "--config"]);
    fails(command.arg(config).arg(&run), 1, &long);
    // A tokenizer whose mask has a name that nobody knows.
    let tokenizer = r#"{"model": {"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1},
        "unk_token": "[UNK]"}, "added_tokens": []}"#;
    fs::write(dir.path().join("tokenizer.json"), tokenizer).expect("a writable folder");
    let parts = [
        "no end-of-text token; add one of [EOS], <|endoftext|>",
        "eos_token_id in [model]",
    ];
    check(
        "tokenizer = \"char\"",
        "tokenizer = \"tokenizer.json\"",
        &parts,
    );
}

#[cfg(unix)]
#[test]
fn signals_stop_a_run_with_a_checkpoint() {
    use std::process::{Command, Stdio};
    for signal in ["-USR1", "-USR2", "-TERM", "-INT"] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let config = with(dir.path(), "steps = 10", "steps = 4000000000");
        let run = dir.path().join("run");
        let mut command = Command::new(env!("CARGO_BIN_EXE_llada"));
        command.args(["train", "--threads", "1", "--format", "json", "--config"]);
        let pipes = command
            .arg(&config)
            .arg(&run)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = pipes.spawn().expect("the binary");
        while !run.join("state/step-5").exists() && !run.join("state/step-10").exists() {
            assert!(
                child.try_wait().expect("a child").is_none(),
                "it ended by itself"
            );
            std::thread::yield_now();
        }
        let kill = Command::new("kill")
            .arg(signal)
            .arg(child.id().to_string())
            .status();
        assert!(kill.expect("kill").success());
        let output = child.wait_with_output().expect("a child");
        assert!(output.status.success(), "{signal}: {output:?}");
        let result: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        assert_eq!(result["finished"], false, "{signal}");
        let newest = run.join(format!("state/step-{}", result["step"]));
        assert!(newest.is_dir(), "{signal}: {result}");
    }
}

#[cfg(not(feature = "mpi"))]
#[test]
fn one_process_of_several_needs_a_build_with_mpi() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (config, run) = (config(dir.path()), dir.path().join("run"));
    let mut command = llada(&["train", "--config"]);
    command.arg(&config).arg(&run);
    command.env("OMPI_COMM_WORLD_SIZE", "2");
    fails(&mut command, 1, &["MPI is not built in", "--features mpi"]);
    assert!(!run.exists(), "nothing was begun");
    command.env("OMPI_COMM_WORLD_SIZE", "1");
    command.assert().success();
}
