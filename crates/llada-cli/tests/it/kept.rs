//! Results that are kept in a file while they come, and gone on with.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::{fails, llada, model, object};

/// Prompts, one a line, and a folder for them with a model.
fn folder() -> (TempDir, PathBuf) {
    let dir = model();
    let lines: String = (0..20)
        .map(|i| {
            let prompt: String = "春夏秋冬风花雪月山水日天"
                .chars()
                .cycle()
                .skip(i)
                .take(1 + i % 5)
                .collect();
            format!("{{\"prompt\": \"{prompt}\"}}\n")
        })
        .collect();
    let path = dir.path().join("prompts.jsonl");
    fs::write(&path, lines).expect("a writable folder");
    (dir, path)
}

/// Flags of `llada COMMAND --model DIR .. --output OUT`, each command with its input.
fn commands(dir: &Path) -> Vec<Vec<String>> {
    let choices = r#"{"prompt": "春", "choices": ["风花", "雪月", "山"], "answer": 0}"#;
    let answers = r#"{"prompt": "春", "answer": "风花雪月"}"#;
    for (name, line) in [("choices", choices), ("answers", answers)] {
        let lines: String = ["春", "夏秋", "冬风花"]
            .iter()
            .map(|prompt| format!("{}\n", line.replacen("春", prompt, 1)))
            .collect();
        fs::write(dir.join(name), lines).expect("a writable folder");
    }
    let path = |name: &str| dir.join(name).to_str().expect("UTF-8").to_owned();
    let command = |words: &[&str], input: &str, flag: &str| {
        let model = ["--model", &path("")].map(str::to_owned);
        let words = words.iter().map(ToString::to_string).chain(model);
        let input = [flag, &path(input)].map(str::to_owned);
        words.chain(input).collect::<Vec<String>>()
    };
    vec![
        command(
            &[
                "generate",
                "--temperature",
                "1",
                "--n",
                "2",
                "--gen-length",
                "4",
            ],
            "prompts.jsonl",
            "--input",
        ),
        command(&["infill"], "holes.jsonl", "--input"),
        command(
            &["eval", "likelihood", "--mc-samples", "5"],
            "choices",
            "--data",
        ),
        command(&["eval", "generation"], "answers", "--data"),
    ]
}

fn run(command: &[String], output: &Path) -> Value {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut command = llada(&words);
    object(command.args(["--format", "json", "--output"]).arg(output))
}

#[test]
fn a_command_goes_on_where_it_was_stopped() {
    let (dir, _) = folder();
    let holes = "{\"prompt\": \"春□秋\"}\n{\"prompt\": \"□□山\"}\n";
    fs::write(dir.path().join("holes.jsonl"), holes).expect("a writable folder");
    for command in commands(dir.path()) {
        let output = dir.path().join("out.jsonl");
        let first = run(&command, &output);
        let whole = fs::read(&output).expect("a file");
        let starts: Vec<usize> = (0..whole.len()).filter(|&at| whole[at] == b'\n').collect();
        assert!(starts.len() >= 2, "{command:?}");
        // Killed between lines, within one, and at the end.
        for end in [
            0,
            starts[0] + 1,
            starts[1] - 3,
            whole.len() - 1,
            whole.len(),
        ] {
            fs::write(&output, &whole[..end]).expect("a writable folder");
            let again = run(&command, &output);
            let kept = starts.iter().filter(|&&at| at < end).count();
            assert!(
                fs::read(&output).expect("a file") == whole,
                "{command:?}, {end}"
            );
            for field in ["outputs", "accuracy", "n", "per_token", "per_character"] {
                assert_eq!(again[field], first[field], "{command:?}");
            }
            if command[0] == "generate" {
                assert_eq!(again["resumed_from"], kept);
            }
        }
        fs::remove_file(&output).expect("a file");
    }
}

#[test]
fn what_is_kept_is_what_is_printed() {
    let (dir, _) = folder();
    let command = &commands(dir.path())[0];
    let output = dir.path().join("out.jsonl");
    run(command, &output);
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let printed = object(llada(&words).args(["--format", "json"]));
    let printed = printed["outputs"].as_array().expect("a list").clone();
    let kept = fs::read_to_string(&output).expect("a file");
    let kept = kept.lines().map(|line| {
        let mut result: Value = serde_json::from_str(line).expect("an object");
        let fields = result.as_object_mut().expect("an object");
        fields.remove("key").expect("a key");
        result
    });
    assert_eq!(kept.collect::<Vec<Value>>(), printed);
    assert_eq!(printed.len(), 40);
}

#[test]
fn more_lines_may_be_added_and_nothing_else_changed() {
    let (dir, prompts) = folder();
    let model = dir.path().to_str().expect("UTF-8");
    let output = dir.path().join("out.jsonl");
    let text = fs::read_to_string(&prompts).expect("a file");
    let first: String = text
        .lines()
        .take(3)
        .map(|line| format!("{line}\n"))
        .collect();
    let with = |lines: &str, flags: &[&str]| {
        fs::write(&prompts, lines).expect("a writable folder");
        let mut command = llada(&["generate", "--model", model, "--gen-length", "4", "--input"]);
        command
            .arg(&prompts)
            .args(flags)
            .arg("--output")
            .arg(&output);
        command
    };
    object(with(&first, &["--format", "json"]).arg("--threads=1"));
    let longer = object(&mut with(&text, &["--format", "json"]));
    assert_eq!(
        (&longer["resumed_from"], &longer["outputs"]),
        (&3.into(), &20.into())
    );
    let kept = fs::read(&output).expect("a file");
    let refused = |lines: &str, flags: &[&str], line: &str| {
        let parts = [line, "out.jsonl", "made of other input", "--output"];
        fails(&mut with(lines, flags), 1, &parts);
        assert!(fs::read(&output).expect("a file") == kept);
    };
    refused(&text, &["--steps", "2"], "line 1:");
    refused(&text, &["--stop", "春"], "line 1:");
    refused(&text, &["--dtype", "bf16"], "line 1:");
    refused(&first, &[], "line 4:");
    refused(&text.replacen("夏", "冬", 1), &[], "line 2:");
    fails(
        llada(&["generate", "--model", model, "春", "--output"]).arg(&prompts),
        1,
        &["prompts.jsonl", "line 1", "not a result"],
    );
}

#[cfg(unix)]
#[test]
fn an_interrupt_keeps_what_was_done() {
    use std::process::{Command, Stdio};
    let (dir, prompts) = folder();
    let output = dir.path().join("out.jsonl");
    let line = "{\"prompt\": \"春夏秋冬\"}\n";
    fs::write(&prompts, line.repeat(1000)).expect("a writable folder");
    let command = |signalled: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llada"));
        command.args([
            "generate",
            "--format",
            "json",
            "--gen-length",
            "20",
            "--model",
        ]);
        command.arg(dir.path()).arg("--input").arg(&prompts);
        command.arg("--output").arg(&output);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("llada");
        let n_lines = || fs::read_to_string(&output).map_or(0, |text| text.lines().count());
        while signalled && n_lines() == 0 {
            assert!(child.try_wait().expect("a child").is_none());
            std::thread::yield_now();
        }
        if signalled {
            let status = Command::new("kill").arg(child.id().to_string()).status();
            assert!(status.expect("kill").success());
        }
        child.wait_with_output().expect("a child")
    };
    let interrupted = command(true);
    assert!(interrupted.status.success());
    let result: Value = serde_json::from_slice(&interrupted.stdout).expect("one JSON object");
    let done = result["outputs"].as_u64().expect("a number");
    assert_eq!(result["interrupted"], true);
    assert!(done > 0 && done < 1000, "{result}");
    let message = String::from_utf8_lossy(&interrupted.stderr);
    assert!(
        message.contains("run the same command again to go on"),
        "{message}"
    );
    let result: Value = serde_json::from_slice(&command(false).stdout).expect("one JSON object");
    assert_eq!(
        (&result["resumed_from"], &result["outputs"]),
        (&done.into(), &1000.into())
    );
}
