//! A GGUF file in the place of a folder.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{fails, json as run, llada};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../llada/tests/gguf")
        .join(name)
}

#[test]
fn every_command_takes_a_file() {
    let file = file("float-f32.gguf");
    let made = run(&file, "generate", &["Hello", "--chat", "--gen-length", "4"]);
    let tokens = made["outputs"][0]["tokens"].as_array().map(Vec::len);
    assert_eq!(tokens, Some(4));
    assert!(made["outputs"][0]["prompt_tokens"].as_u64() > Some(5));
    let filled = run(&file, "infill", &["to _<|mdm_mask|> be"]);
    let text = filled["outputs"][0]["text"].as_str().expect("a text");
    assert!(text.starts_with("to ") && text.ends_with(" be"), "{text}");
    let prompt = ["--prompt", "a", "--target", "b", "--mc-samples", "2"];
    assert!(run(&file, "score", &prompt)["log_likelihood"].as_f64() < Some(0.0));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (ids, output) = (dir.path().join("ids.json"), dir.path().join("out"));
    fs::write(&ids, r#"{"input_ids": [[3, 4]]}"#).expect("a writable folder");
    let mut logits = llada(&["logits", "--model"]);
    logits.arg(&file).arg("--ids").arg(&ids).arg("--output");
    logits.arg(&output).assert().success();
    assert!(output.exists());
}

#[test]
fn inspect_counts_the_types() {
    let mut inspect = llada(&["inspect", "--format", "json"]);
    let shown = inspect.arg(file("quants.gguf")).assert().success();
    let shown: Value = serde_json::from_slice(&shown.get_output().stdout).expect("an object");
    let types = json!({ "F32": 3, "Q4_0": 3, "Q4_K": 2, "Q6_K": 2, "Q8_0": 2 });
    assert_eq!(shown["tensor_types"], types);
    assert_eq!(shown["d_model"], 256);
}

#[test]
fn what_a_file_lacks_is_named() {
    // This file holds no vocabulary.
    let mut generate = llada(&["generate", "a", "--model"]);
    let parts = ["float-f16.gguf", "tokenizer.ggml.model", "missing"];
    fails(generate.arg(file("float-f16.gguf")), 1, &parts);
    let mut generate = llada(&["generate", "a", "--model"]);
    fails(
        generate.arg(file("none.gguf")),
        1,
        &["none.gguf", "No such file"],
    );
    let mut generate = llada(&["generate", "a", "--model"]);
    fails(
        generate.arg(file("quants.json")),
        1,
        &["quants.json", "GGUF"],
    );
}
