//! `llada replay`: traces as pages.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::{fails, llada, model};

/// A step of a trace.
fn step(request: usize, step: usize, position: usize) -> Value {
    json!({
        "request": request, "step": step, "steps": 2, "block": 0, "masked": 0,
        "revealed": [{"position": position, "token": 5, "text": "</script>", "confidence": 0.5}],
        "canvas": [3, 5, 5], "text": "春",
    })
}

fn write(path: &Path, lines: &[Value]) {
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    fs::write(path, lines.join("\n")).expect("a writable folder");
}

/// The trace that a page holds.
fn data(html: &str) -> Value {
    let data = html
        .split("<script type=\"application/json\" id=\"trace\">")
        .nth(1);
    let data = data.and_then(|rest| rest.split("</script>").next());
    serde_json::from_str(data.expect("the trace in the page")).expect("JSON")
}

#[test]
fn a_trace_of_several_requests_becomes_one_page() {
    let dir = model();
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    fs::write(
        path("in.jsonl"),
        "{\"prompt\": \"春□□，\"}\n{\"prompt\": \"□夏。\"}\n",
    )
    .expect("a writable folder");
    let (model, input, trace) = (path(""), path("in.jsonl"), path("t.jsonl"));
    llada(&[
        "infill", "--model", &model, "--input", &input, "--trace", &trace,
    ])
    .assert()
    .success();
    let page = path("t.html");
    llada(&["replay", &trace, "-o", &page]).assert().success();
    let html = fs::read_to_string(page).expect("the page");
    let data = data(&html);
    assert_eq!(data["name"], "t.jsonl");
    let traced = fs::read_to_string(trace).expect("the trace");
    let traced: Vec<Value> = traced
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON lines"))
        .collect();
    assert_eq!(data["lines"], json!(traced));
    assert_eq!(traced.len(), 3);
    assert!(!html.contains("src=") && !html.contains("/page/"));
}

#[test]
fn a_text_ends_no_script() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (trace, page) = (dir.path().join("t.jsonl"), dir.path().join("t.html"));
    let mut line = step(0, 0, 1);
    line["text"] = json!("<!--<script>\u{2028}");
    write(&trace, &[line.clone()]);
    llada(&["replay"])
        .arg(&trace)
        .arg("-o")
        .arg(&page)
        .assert()
        .success();
    let html = fs::read_to_string(page).expect("the page");
    assert!(!html.contains("<!--") && !html.contains('\u{2028}'));
    assert_eq!(html.matches("</script>").count(), 2);
    assert_eq!(data(&html)["lines"], json!([line]));
}

#[test]
fn a_trace_that_is_none_is_an_error_by_its_line() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (trace, page) = (dir.path().join("t.jsonl"), dir.path().join("t.html"));
    let check = |lines: &[Value], parts: &[&str]| {
        write(&trace, lines);
        let mut command = llada(&["replay"]);
        fails(command.arg(&trace).arg("-o").arg(&page), 1, parts);
        assert!(!page.exists());
    };
    check(&[], &["t.jsonl holds no steps"]);
    check(
        &[step(0, 0, 1), json!("no step")],
        &["t.jsonl, line 2", "--trace"],
    );
    check(
        &[step(0, 0, 1), json!({"step": 1})],
        &["line 2", "missing field"],
    );
    check(
        &[step(0, 1, 1)],
        &["line 1", "step 1 of request 0", "step 0 was due"],
    );
    check(
        &[step(0, 0, 1), step(1, 0, 1), step(0, 2, 2)],
        &["line 3", "step 2", "step 1 was due"],
    );
    check(
        &[step(0, 0, 3)],
        &["line 1", "position 3", "canvas of 3 tokens"],
    );
    let mut longer = step(0, 1, 2);
    longer["canvas"] = json!([3, 5, 5, 5]);
    check(
        &[step(0, 0, 1), longer],
        &["line 2", "4 tokens", "3 in the step before"],
    );
    // The run that wrote it was killed.
    let whole = step(0, 0, 1).to_string();
    fs::write(&trace, &whole[..whole.len() / 2]).expect("a writable folder");
    let mut command = llada(&["replay"]);
    fails(
        command.arg(&trace).arg("-o").arg(&page),
        1,
        &["line 1", "EOF"],
    );
}

#[test]
fn a_trace_is_not_written_over() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let trace = dir.path().join("t.jsonl");
    write(&trace, &[step(0, 0, 1)]);
    let mut command = llada(&["replay"]);
    fails(
        command.arg(&trace).arg("-o").arg(&trace),
        2,
        &["-o", "another file"],
    );
}
