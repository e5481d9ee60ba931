//! `llada chat` by pipes: answers, and nothing else, on standard output.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{CONTEXT, fails, llada, model, object};

const ACROSTIC: &str = "五言藏头：春夏秋冬。";

/// A tiny model whose chat template writes everything that is said.
fn talker() -> TempDir {
    let dir = model();
    let template = "{% for message in messages %}{{ message.content }}{% endfor %}";
    fs::write(dir.path().join("chat_template.jinja"), template).expect("a writable folder");
    dir
}

fn path(dir: &TempDir) -> &str {
    dir.path().to_str().expect("UTF-8")
}

/// What a chat prints, to standard output and to standard error.
#[track_caller]
fn chat(flags: &[&str], typed: &str) -> (String, String) {
    let run = llada(&[&["chat"], flags].concat())
        .write_stdin(typed)
        .assert()
        .success();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let output = run.get_output();
    (text(&output.stdout), text(&output.stderr))
}

/// The answer to messages.
#[track_caller]
fn generated(flags: &[&str], messages: &Value) -> String {
    let dir = tempfile::tempdir().expect("a folder");
    let input = dir.path().join("input.jsonl");
    fs::write(&input, json!({ "messages": messages }).to_string()).expect("a file");
    let input = input.to_str().expect("UTF-8");
    let args = ["generate", "--format", "json", "--input", input];
    let result = object(&mut llada(&[&args, flags].concat()));
    let text = result["outputs"][0]["text"].as_str();
    text.expect("a text").to_owned()
}

fn said(role: &str, content: &str) -> Value {
    json!({ "role": role, "content": content })
}

#[test]
fn the_embedded_model_answers_an_instruction() {
    let (out, err) = chat(&[], &format!("{ACROSTIC}\n/quit\n上句：更上一层楼。\n"));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 1, "{out}");
    assert_eq!(err, "");
    let clauses: Vec<&str> = lines[0].split_terminator(['，', '。']).collect();
    assert_eq!(clauses.len(), 4, "{out}");
    for (clause, head) in clauses.iter().zip("春夏秋冬".chars()) {
        assert!(clause.starts_with(head), "{out}");
        assert_eq!(clause.chars().count(), 5, "{out}");
    }
    assert!(lines[0].ends_with('。'), "{out}");
    let args = ["generate", ACROSTIC, "--chat", "--format", "json"];
    let result = object(&mut llada(&args));
    assert_eq!(result["outputs"][0]["text"], lines[0]);
}

#[test]
fn generate_takes_messages_and_says_what_of_them_is_not_read() {
    let alone = generated(&[], &json!([said("user", ACROSTIC)]));
    let before = [
        said("system", "s"),
        said("user", "a"),
        said("assistant", "b"),
    ];
    let messages = [&before[..], &[said("user", ACROSTIC)]].concat();
    assert_eq!(generated(&[], &messages.into()), alone);

    let with_system = llada(&["generate", ACROSTIC, "--system", "Be brief."])
        .assert()
        .success();
    let output = with_system.get_output();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), alone);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(
        err.contains("warning") && err.contains("last message alone"),
        "{err}"
    );
    let dir = tempfile::tempdir().expect("a folder");
    let input = dir.path().join("input.jsonl");
    let none = json!({ "messages": [said("system", "s")] });
    fs::write(&input, none.to_string()).expect("a file");
    let mut command = llada(&["generate", "--input", input.to_str().expect("UTF-8")]);
    fails(&mut command, 1, &["last message of the user"]);
}

#[test]
fn every_turn_is_answered_after_all_of_the_turns_before() {
    let dir = talker();
    let flags = ["--model", path(&dir), "--gen-length", "3"];
    let with_system = [&flags[..], &["--system", "山"]].concat();
    let (out, _) = chat(&with_system, "春\n夏\n");
    let lines: Vec<&str> = out.lines().collect();
    let mut messages = vec![said("system", "山"), said("user", "春")];
    for (line, next) in lines.iter().zip(["夏", ""]) {
        assert_eq!(*line, generated(&flags, &messages.clone().into()), "{out}");
        messages.push(said("assistant", line));
        messages.push(said("user", next));
    }
    assert_eq!(lines.len(), 2);

    // Commands between them, and a message of two lines.
    let typed = "秋\n/clear\n/system 山\n春\n风\n/undo\n夏\n";
    let (commanded, err) = chat(&flags, typed);
    let commanded: Vec<&str> = commanded.lines().collect();
    assert_eq!((commanded[1], commanded[3]), (lines[0], lines[1]));
    assert!(err.contains("taken back: 风"), "{err}");
    let joined = generated(&flags, &json!([said("user", "春\n风")]));
    let (out, _) = chat(&flags, "春\\\n风\n");
    assert_eq!(out, format!("{joined}\n"));
}

#[test]
fn another_answer_has_the_next_seed() {
    let dir = talker();
    let flags = ["--model", path(&dir), "-n", "4"];
    let drawn = [&flags[..], &["--temperature", "1"]].concat();
    let (out, _) = chat(&flags, "/set temperature 1\n春\n/retry\n/retry\n夏\n");
    let lines: Vec<&str> = out.lines().collect();
    let asked = json!([said("user", "春")]);
    for (line, seed) in lines.iter().zip(["0", "1", "2"]) {
        let flags = [&drawn[..], &["--seed", seed]].concat();
        assert_eq!(*line, generated(&flags, &asked), "{out}");
    }
    assert!(lines[0] != lines[1] && lines[1] != lines[2], "{out}");
    let next = json!([
        said("user", "春"),
        said("assistant", lines[2]),
        said("user", "夏")
    ]);
    assert_eq!(lines[3], generated(&drawn, &next));
}

#[test]
fn a_conversation_is_saved_and_goes_on() {
    let dir = talker();
    let flags = ["--model", path(&dir), "-n", "3"];
    let file = dir.path().join("talk.jsonl");
    let name = file.to_str().expect("UTF-8");
    let (out, err) = chat(&flags, &format!("春\n/save {name}\n夏\n/save {name}\n"));
    assert!(err.contains("saved as line 2"), "{err}");
    let lines: Vec<&str> = out.lines().collect();
    let text = fs::read_to_string(&file).expect("a file");
    let saved: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(
        saved[0],
        json!({ "messages": [said("user", "春"), said("assistant", lines[0])] })
    );
    let (again, err) = chat(&flags, &format!("/load {name}\n/retry\n/show\n"));
    assert_eq!(again, format!("{}\n", lines[1]));
    assert!(err.contains("4 messages"), "{err}");
    assert!(
        err.contains(&format!("of the context of {CONTEXT}")),
        "{err}"
    );
    // `generate --input` reads the lines too.
    let mut command = llada(&["generate", "--input", name]);
    command.args(flags).assert().success();
}

#[test]
fn steps_are_shown_on_standard_error_where_they_are_asked_for() {
    let dir = talker();
    let flags = ["--model", path(&dir), "-n", "3", "--logits-eos-inf"];
    let (plain, err) = chat(&flags, "春\n");
    assert_eq!(err, "");
    let (out, err) = chat(&flags, "/watch on\n春\n/watch off\n夏\n");
    assert_eq!(out.lines().next(), plain.lines().next());
    assert_eq!(err.lines().count(), 3, "{err}");
    assert!(err.starts_with("  1/3 ") && err.contains('□'), "{err}");
    let trace = dir.path().join("trace.jsonl");
    let trace_flags = ["--trace", trace.to_str().expect("UTF-8")];
    chat(&[&flags[..], &trace_flags].concat(), "春\n夏\n");
    let trace = fs::read_to_string(&trace).expect("a trace");
    let requests = trace.lines().map(|line| {
        let step: Value = serde_json::from_str(line).expect("JSON");
        step["request"].as_u64().expect("a number")
    });
    assert_eq!(requests.collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1]);
}

#[test]
fn an_answer_ends_before_a_stop() {
    let dir = talker();
    let flags = ["--model", path(&dir), "-n", "8", "--temperature", "1"];
    let asked = json!([said("user", "春")]);
    let whole = generated(&flags, &asked);
    let stop = whole.chars().nth(4).expect("a text of eight").to_string();
    let expected = whole.split(&stop).next().expect("a beginning");
    let with_stop = ["--stop", "none of it", "--stop", &stop];
    let all = [&flags[..], &with_stop].concat();
    assert_eq!(generated(&all, &asked), expected);
    let (out, _) = chat(&all, "春\n");
    assert_eq!(out, format!("{expected}\n"));
    let typed = format!("/set stop {stop}\n春\n/show\n/set stop default\n/retry\n");
    let (out, err) = chat(&flags, &typed);
    assert_eq!(out.lines().next(), Some(expected));
    assert!(err.contains(&format!("--stop {stop}")), "{err}");
}

#[test]
fn reasoning_stands_between_its_marks() {
    let goldens = "../llada/tests/goldens/families/illada/models/gqa-tied-f32";
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join(goldens);
    let dir = tempfile::tempdir().expect("a folder");
    let template = dir.path().join("think.jinja");
    let text = "{{ messages[-1].content }}<think>\n";
    fs::write(&template, text).expect("a writable folder");
    let template = template.to_str().expect("UTF-8");
    let flags = [
        "--model",
        model.to_str().expect("UTF-8"),
        "--chat-template",
        template,
        "--gen-length",
        "32",
        "--block-length",
        "8",
        "--steps",
        "8",
        "--end-think-boost",
        "1e6",
        "--end-think-power",
        "10",
    ];
    let generate = ["generate", "as as", "--format", "json"];
    let result = object(&mut llada(&[&generate, &flags[..]].concat()));
    let [reasoning, content] = ["reasoning_content", "text"].map(|key| {
        let text = result["outputs"][0][key].as_str().expect("a text");
        assert!(!text.is_empty() && !text.contains("think>"), "{text:?}");
        text
    });
    let shown = format!("<think>{reasoning}</think>\n\n{content}\n");
    let run = llada(&[&["generate", "as as"], &flags[..]].concat()).assert();
    assert_eq!(run.success().get_output().stdout, shown.as_bytes());
    let file = dir.path().join("talk.jsonl");
    let typed = format!("as as\n/save {}\n", file.display());
    let (out, _) = chat(&flags, &typed);
    assert_eq!(out, shown);
    let saved = fs::read_to_string(&file).expect("a file");
    let saved: Value = serde_json::from_str(&saved).expect("JSON");
    let answer = json!({
        "role": "assistant", "content": content, "reasoning_content": reasoning,
    });
    assert_eq!(saved["messages"][1], answer);
    // The same model with its own template, which begins no reasoning.
    let plain = [
        "chat",
        "--model",
        flags[1],
        "-n",
        "32",
        "--block-length",
        "8",
    ];
    let plain = [&plain[..], &flags[10..]].concat();
    let run = llada(&plain).write_stdin("as as\n").assert().success();
    let out = String::from_utf8_lossy(&run.get_output().stdout).into_owned();
    assert!(
        out.contains("</think>") && !out.contains("<think>"),
        "{out}"
    );
}

/// A chat that ends with one error about a line.
#[track_caller]
fn ends(dir: &Path, typed: &str, code: i32, parts: &[&str]) {
    let mut command = llada(&["chat", "-m", dir.to_str().expect("UTF-8"), "-n", "3"]);
    fails(command.write_stdin(typed), code, parts);
}

#[test]
fn what_does_not_fit_is_one_error_that_names_the_line() {
    let dir = talker();
    let line = |n: usize| format!("standard input, line {n}");
    let long = "春".repeat(CONTEXT - 2);
    let parts = [
        "takes 22 tokens and its answer 3",
        "has 24",
        "/undo",
        "/clear",
    ];
    ends(dir.path(), &long, 2, &[&parts[..], &[&line(1)]].concat());
    ends(dir.path(), "\n/sett a b\n", 2, &[&line(2), "/set?"]);
    ends(
        dir.path(),
        "/set temperature hot",
        2,
        &["'hot'", "--temperature", &line(1)],
    );
    ends(dir.path(), "/set threshold 2", 2, &["threshold", "[0, 1]"]);
    ends(
        dir.path(),
        "/set factor 1 threshold 0.5",
        2,
        &["--threshold", "--factor"],
    );
    ends(dir.path(), "/set gen_length 99", 2, &["99", "24 tokens"]);
    ends(dir.path(), "/retry", 2, &["nothing was said"]);
    ends(dir.path(), "/load /nowhere.jsonl", 1, &["/nowhere.jsonl"]);
    ends(dir.path(), "\"\"\"春\n夏", 1, &["has no \"\"\""]);
    ends(dir.path(), "龘", 2, &["vocabulary"]);
    let mut command = llada(&["chat", "-m", path(&dir)]);
    fails(command.write_stdin(&b"\xff\n"[..]), 1, &[&line(1), "UTF-8"]);
}

#[test]
fn flags_that_do_not_suit_a_conversation_are_refused() {
    let plain = model();
    fails(
        &mut llada(&["chat", "-m", path(&plain)]),
        1,
        &["no chat template"],
    );
    fails(
        &mut llada(&["chat", "--format", "json"]),
        2,
        &["generate --chat"],
    );
    fails(&mut llada(&["chat", "--n", "2"]), 2, &["/retry"]);
    fails(&mut llada(&["chat", "--threshold", "2"]), 2, &["[0, 1]"]);
    fails(
        &mut llada(&["chat", "--gen-length", "300"]),
        2,
        &["256 tokens"],
    );
    llada(&["chat", "--plain", "--watch"]).assert().code(2);
}
