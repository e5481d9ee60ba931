//! Tests of bodies and their errors.

use serde_json::Value;

use super::*;
use crate::routes::chat::ChatRequest;
use crate::routes::completions::CompletionRequest;

/// The field that a body is refused for, null for the body itself, and part of the reason.
#[track_caller]
fn check<T: DeserializeOwned + std::fmt::Debug>(body: &str, param: impl Into<Value>, reason: &str) {
    let error = parse::<T>(body.as_bytes()).unwrap_err().to_json();
    assert_eq!(error["error"]["param"], param.into(), "{error}");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains(reason), "{message}");
}

#[test]
fn an_error_names_the_field() {
    type Completion = CompletionRequest;
    check::<Completion>(
        r#"{"prompt": "a", "n": "two"}"#,
        "n",
        "n: invalid type: string \"two\", expected a whole number, 0 or more",
    );
    check::<Completion>(
        r#"{"prompt": "a", "steps": -1}"#,
        "steps",
        "steps: invalid value",
    );
    check::<Completion>(r#"{"prompt": "a", "stepz": 1}"#, "stepz", "no such field");
    check::<Completion>(r#"{"n": 1}"#, "prompt", "prompt is missing");
    check::<Completion>(
        r#"{"prompt": {"a": 1}}"#,
        "prompt",
        "expected a text, a list",
    );
    check::<Completion>(
        r#"{"prompt": "a", "stream_options": {"usage": true}}"#,
        "stream_options.usage",
        "no such field",
    );
    check::<Completion>(
        r#"{"prompt": "a", "stream_mode": "all"}"#,
        "stream_mode",
        "unknown variant",
    );
    check::<Completion>(
        r#"{"prompt": "a", "n": 1, "n": 2}"#,
        Value::Null,
        "duplicate field",
    );
    check::<ChatRequest>(r#"{"messages": ["hi"]}"#, "messages[0]", "invalid type");
}

#[test]
fn what_is_no_json_is_said() {
    type Completion = CompletionRequest;
    check::<Completion>("", Value::Null, "not JSON");
    check::<Completion>("{\"prompt\": \"a\"} x", Value::Null, "not JSON");
    check::<Completion>(&"[".repeat(100_000), Value::Null, "not JSON");
    check::<Value>(&"{\"a\":".repeat(100_000), Value::Null, "recursion limit");
    let error = parse::<Value>(b"{\"a\": \"\xff\"}").unwrap_err().to_json();
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("not UTF-8 at byte 7"), "{message}");
}
