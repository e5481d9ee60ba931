//! Every wrong input ends with one line and exit code 1 or 2.

use std::fs;
use std::path::Path;

use crate::{fails, llada, model};

/// `generate --gen-length 2 --model DIR args`.
fn generate(dir: &Path, args: &[&str]) -> assert_cmd::Command {
    let mut command = llada(&["generate", "--gen-length", "2", "--model"]);
    command.arg(dir).args(args);
    command
}

#[test]
fn models_that_cannot_be_read() {
    let dir = model();
    fails(
        &mut generate(&dir.path().join("none"), &["春"]),
        1,
        &["none", "config.json"],
    );
    let weights = dir.path().join("model.safetensors");
    let bytes = fs::read(&weights).expect("the weights");
    fs::write(&weights, &bytes[..bytes.len() / 2]).expect("a writable folder");
    fails(
        &mut generate(dir.path(), &["春"]),
        1,
        &["model.safetensors", "truncated"],
    );
    fs::write(&weights, bytes).expect("a writable folder");
    let path = dir.path().join("config.json");
    let config = fs::read_to_string(&path).expect("the configuration");
    let wider = config.replace("\"mlp_hidden_size\": 32", "\"mlp_hidden_size\": 48");
    assert_ne!(config, wider);
    fs::write(&path, wider).expect("a writable folder");
    fails(
        &mut generate(dir.path(), &["春"]),
        1,
        &["shape", "32", "48", "config.json"],
    );
}

#[test]
fn wrong_prompts() {
    let dir = model();
    let dir = dir.path();
    fails(&mut generate(dir, &[""]), 2, &["the prompt is empty"]);
    let long = "春".repeat(30);
    fails(&mut generate(dir, &[&long]), 2, &["30", "context of 24"]);
    let mut none = generate(dir, &["春", "--n", "0"]);
    none.assert().code(2);
    let strict = &mut generate(dir, &["春龘", "--strict"]);
    fails(strict, 2, &["'龘'", "number 2"]);
    let unknown = &mut generate(dir, &["once upon"]);
    fails(unknown, 2, &["no character of the text (once upon..)"]);
    fails(&mut generate(dir, &["--prompt-ids", "3,999"]), 2, &["999"]);
    fails(&mut generate(dir, &["春", "--steps", "0"]), 2, &["--steps"]);
    let mut malformed = generate(dir, &["春", "--constraints", "雪"]);
    malformed.assert().code(2);
    fails(
        &mut generate(dir, &["春", "--constraints", "1:雪月"]),
        2,
        &["offset 2", "answer of 2"],
    );
    let mut infill = llada(&["infill", "春，", "--model"]);
    fails(infill.arg(dir), 2, &["no mask"]);
}

#[test]
fn flags_of_the_sampler_that_contradict_each_other() {
    let dir = model();
    let dir = dir.path();
    let cases: [(&[&str], &[&str]); 18] = [
        (
            &["--suffix-window", "4", "--cfg-scale", "1"],
            &["suffix window", "cfg_scale"],
        ),
        (&["--vicinity", "2"], &["--vicinity", "--cache"]),
        (
            &["--prompt-interval", "2"],
            &["--prompt-interval", "--cache"],
        ),
        (
            &["--refresh-interval", "2", "--cache", "none"],
            &["--refresh-interval", "--cache"],
        ),
        (
            &["--refresh-interval", "0", "--cache", "dual"],
            &["--refresh-interval", "at least 1"],
        ),
        (
            &["--keep-active", "2", "--cache", "dual"],
            &["--keep-active", "activity"],
        ),
        (&["--relaxed-threshold", "0.5"], &["--threshold"]),
        (
            &["--threshold", "0.5", "--relaxed-threshold", "0.7"],
            &["relaxed_threshold", "threshold"],
        ),
        (
            &["--threshold", "0.5", "--leap-radius", "2"],
            &["--relaxed-threshold"],
        ),
        (
            &["--eb-gamma", "0.1", "--threshold", "0.9"],
            &["--eb-gamma", "--threshold"],
        ),
        (
            &["--eb-gamma", "0.1", "--steps", "3"],
            &["--eb-gamma", "--steps"],
        ),
        (&["--entropy-exit", "NaN"], &["entropy_exit", "0 or more"]),
        (
            &["--margin-exit-fall", "0.2"],
            &["--margin-exit-fall needs --margin-exit"],
        ),
        (&["--margin-exit", "1.5"], &["margin_exit", "in [0, 1]"]),
        (
            &["--margin-exit", "0.9", "--remasking", "random"],
            &["--margin-exit cannot be used with"],
        ),
        (&["--overlap", "0.5"], &["--overlap cannot be used with"]),
        (&["--preset", "slow"], &["fast, balanced or exact"]),
        (
            &["--preset", "balanced", "--refresh-interval", "2"],
            &["--refresh-interval", "--cache"],
        ),
    ];
    for (flags, words) in cases {
        fails(&mut generate(dir, &[&["春"], flags].concat()), 2, words);
    }
}

#[test]
fn wrong_flags() {
    let dir = model();
    let dir = dir.path();
    fails(
        &mut generate(dir, &["春", "--device", "cuda:0"]),
        1,
        &["not built in"],
    );
    fails(
        &mut generate(dir, &["春", "--remasking", "best"]),
        2,
        &["low_confidence"],
    );
    fails(
        &mut generate(dir, &["春", "--cache", "fast"]),
        2,
        &["none, prefix, dual or activity"],
    );
    let guided = ["春", "--cache", "dual", "--cfg-scale", "1"];
    fails(&mut generate(dir, &guided), 2, &["cache", "cfg_scale"]);
    fails(
        &mut generate(dir, &["春", "--threshold", "2"]),
        2,
        &["threshold", "[0, 1]"],
    );
    fails(
        &mut generate(dir, &["春", "--factor", "-1"]),
        2,
        &["factor"],
    );
    fails(
        &mut generate(dir, &["春", "--chat"]),
        1,
        &["no chat template"],
    );
    let mut score = llada(&["score", "--target", "", "--model"]);
    fails(score.arg(dir), 2, &["target is empty"]);
    let mut score = llada(&["score", "--target", "春", "--estimator", "t", "--model"]);
    fails(
        score.arg(dir).args(["--batch-size", "2"]),
        2,
        &["--estimator l"],
    );
    let mut level = generate(dir, &["春"]);
    fails(level.env("LLADA_CPU_LEVEL", "fast"), 2, &["scalar, avx2"]);
    generate(dir, &["春"])
        .env("LLADA_CPU_LEVEL", "scalar")
        .assert()
        .success();
    fails(
        &mut llada(&["inspect", "--preset", "gpt"]),
        2,
        &["llada-8b"],
    );
}

#[test]
fn rows_of_different_lengths() {
    let dir = model();
    let (ids, output) = (dir.path().join("ids.json"), dir.path().join("out"));
    fs::write(&ids, r#"{"input_ids": [[3, 4], [3]]}"#).expect("a writable folder");
    let mut command = llada(&["logits", "--model"]);
    command.arg(dir.path()).arg("--ids").arg(&ids);
    fails(
        command.arg("--output").arg(&output),
        1,
        &["differ in length"],
    );
    assert!(!output.exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk() {
    let dir = model();
    let full = ["春", "--trace", "/dev/full"];
    fails(
        &mut generate(dir.path(), &full),
        1,
        &["/dev/full", "No space left"],
    );
    let ids = dir.path().join("ids.json");
    fs::write(&ids, r#"{"input_ids": [[3, 4]]}"#).expect("a writable folder");
    let mut command = llada(&["logits", "--output", "/dev/full", "--model"]);
    command.arg(dir.path()).arg("--ids").arg(&ids);
    fails(&mut command, 1, &["/dev/full", "No space left"]);
}

#[test]
fn a_run_folder_that_cannot_be_made() {
    let dir = model();
    let config = crate::train::config(dir.path());
    let mut command = llada(&["train", "--config"]);
    // A file in the place of a folder: root may write anywhere else.
    fails(command.arg(&config).arg(config.join("run")), 1, &["run"]);
}
