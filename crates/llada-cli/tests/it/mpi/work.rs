//! Work on many lines that ranks share: the results of one process, in order, kept and gone on with.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::{launch, result, signal};
use crate::model;

/// `llada COMMAND --model DIR --threads 1 --format json` of so many ranks.
fn llada(ranks: usize, dir: &Path, words: &[&str]) -> Command {
    let mut command = launch(ranks);
    command
        .args(words)
        .args(["--threads", "1", "--format", "json"]);
    command.arg("--model").arg(dir);
    command
}

#[track_caller]
fn run(command: &mut Command) -> Value {
    result(&command.output().expect("mpirun is installed"))
}

/// A file with `n` lines of different lengths.
fn prompts(dir: &Path, n: usize) -> String {
    let line = |i: usize| {
        let words = "春夏秋冬风花雪月山水日天".chars().cycle();
        let prompt: String = words.skip(i).take(1 + i % 5).collect();
        format!("{{\"prompt\": \"{prompt}\"}}\n")
    };
    let path = dir.join("prompts.jsonl");
    fs::write(&path, (0..n).map(line).collect::<String>()).expect("a writable folder");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn ranks_answer_as_one_process() {
    let dir = model();
    let dir = dir.path();
    // More than a round of 8 for each rank, and no multiple of one.
    let prompts = prompts(dir, 37);
    let words = [
        "generate",
        "--gen-length",
        "4",
        "--temperature",
        "1",
        "--input",
        &prompts,
    ];
    let mut kept = None;
    let one = run(&mut llada(1, dir, &words));
    for ranks in [1, 2, 3] {
        let printed = run(&mut llada(ranks, dir, &words));
        assert_eq!(printed["outputs"], one["outputs"], "{ranks} ranks");
        let output = dir.join(format!("{ranks}.jsonl"));
        let summary = run(llada(ranks, dir, &words).arg("--output").arg(&output));
        assert_eq!(summary["outputs"], 37, "{ranks} ranks");
        let content = fs::read_to_string(&output).expect("a file");
        assert_eq!(
            &content,
            kept.get_or_insert(content.clone()),
            "{ranks} ranks"
        );
    }
    assert_eq!(one["outputs"].as_array().map(Vec::len), Some(37));
}

#[test]
fn ranks_evaluate_as_one_process() {
    let dir = model();
    let dir = dir.path();
    let write = |name: &str, line: &dyn Fn(char) -> String| {
        let lines = "春夏秋冬风花雪".chars().map(line);
        fs::write(dir.join(name), lines.collect::<String>()).expect("a writable folder");
        dir.join(name).to_str().expect("UTF-8").to_owned()
    };
    let choices = write("choices.jsonl", &|c| {
        format!("{{\"prompt\": \"{c}\", \"choices\": [\"风花\", \"雪月\"], \"answer\": 0}}\n")
    });
    let answers = write("answers.jsonl", &|c| {
        format!("{{\"prompt\": \"{c}\", \"answer\": \"风花\"}}\n")
    });
    for words in [
        &[
            "eval",
            "likelihood",
            "--mc-samples",
            "3",
            "--data",
            &choices,
        ][..],
        &["eval", "generation", "--data", &answers],
    ] {
        let mut results = [1, 2, 3].map(|ranks| {
            let output = dir.join("out.jsonl");
            let result = run(llada(ranks, dir, words).arg("--output").arg(&output));
            let kept = fs::read_to_string(&output).expect("a file");
            fs::remove_file(&output).expect("a file");
            (result, kept)
        });
        for (result, _) in &mut results {
            result["seconds"] = Value::Null;
            assert_eq!(result["n"], 7);
        }
        assert_eq!(results[1], results[0]);
        assert_eq!(results[2], results[0]);
    }
}

#[test]
fn what_ranks_have_done_outlives_a_rank_that_dies() {
    let dir = model();
    let dir = dir.path();
    let prompts = prompts(dir, 1500);
    let words = ["generate", "--gen-length", "12", "--input", &prompts];
    let output = dir.join("out.jsonl");
    let n_lines = || fs::read_to_string(&output).map_or(0, |text| text.matches('\n').count());
    let start = |ranks, at_least: usize| {
        let mut command = llada(ranks, dir, &words);
        let command = command.arg("--output").arg(&output);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("mpirun is installed");
        while n_lines() < at_least {
            let status = child.try_wait().expect("a child");
            assert!(status.is_none(), "{:?}", child.wait_with_output());
            std::thread::yield_now();
        }
        child
    };
    let child = start(2, 1);
    signal(&child, 1, "-KILL");
    let killed: Output = child.wait_with_output().expect("a child");
    assert!(!killed.status.success());
    let message = String::from_utf8_lossy(&killed.stderr);
    assert!(message.contains("exited on signal 9 (Killed)"), "{message}");
    let kept = n_lines();
    assert!((1..1500).contains(&kept), "{kept}");

    // A signal to one rank ends all after the same round.
    let child = start(3, kept + 1);
    signal(&child, 2, "-USR1");
    let stopped = result(&child.wait_with_output().expect("a child"));
    assert_eq!(stopped["interrupted"], true);
    assert_eq!(stopped["resumed_from"], kept);
    assert_eq!(stopped["outputs"], n_lines());

    let finished = run(llada(2, dir, &words).arg("--output").arg(&output));
    assert_eq!(finished["resumed_from"], stopped["outputs"]);
    assert_eq!(finished["interrupted"], false);
    let whole = dir.join("whole.jsonl");
    run(llada(1, dir, &words).arg("--output").arg(&whole));
    let [resumed, whole] = [&output, &whole].map(|path| fs::read(path).expect("a file"));
    assert!(resumed == whole);
}

#[test]
fn an_error_is_told_once() {
    let dir = model();
    let dir = dir.path();
    let prompts = prompts(dir, 5);
    let words = ["generate", "--gen-length", "4", "--input", &prompts];
    for (flag, part) in [("--trace", "leave mpirun out"), ("--output", "opening")] {
        let mut command = llada(2, dir, &words);
        let command = command.arg(flag).arg(dir.join("none").join("out.jsonl"));
        let output = command.output().expect("mpirun is installed");
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("error: rank 0: "), "{message}");
        assert!(message.contains(part), "{message}");
        assert!(!message.contains("rank 1:"), "{message}");
    }
}
