//! Models in another type.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::{fails, json as run, llada, model};

/// Converts and reads what is printed.
#[track_caller]
fn convert(source: &Path, target: &Path, dtype: &str) -> Value {
    let convert = llada(&["convert"])
        .args([source, target])
        .args(["--dtype", dtype, "--format", "json"])
        .assert()
        .success();
    serde_json::from_slice(&convert.get_output().stdout).expect("one JSON object")
}

/// The logits of some ids, as the bytes of the file.
#[track_caller]
fn logits(dir: &Path, dtype: &str) -> Vec<u8> {
    let out = tempfile::tempdir().expect("a temporary folder");
    let (ids, file) = (out.path().join("ids.json"), out.path().join("logits"));
    let input = json!({ "input_ids": [[0, 3, 0, 5, 7], [2, 0, 0, 4, 9]] });
    fs::write(&ids, input.to_string()).expect("a writable folder");
    llada(&["logits", "--dtype", dtype, "--model"])
        .arg(dir)
        .arg("--ids")
        .arg(&ids)
        .arg("--output")
        .arg(&file)
        .assert()
        .success();
    fs::read(file).expect("the logits")
}

#[test]
fn a_converted_model_is_the_model_that_is_converted_on_load() {
    let dir = model();
    let out = tempfile::tempdir().expect("a temporary folder");
    let f32 = out.path().join("f32");
    let error = convert(dir.path(), &f32, "f32")["mean_logit_error"].as_f64();
    assert!(error.expect("a number").abs() < f64::EPSILON);
    assert!(logits(&f32, "auto") == logits(dir.path(), "auto"));
    convert(dir.path(), &out.path().join("bf16"), "bf16");
    // From bf16: the embedding of a model of integers is bf16.
    for dtype in ["int8", "int4"] {
        let target = out.path().join(format!("bf16-{dtype}"));
        let report = convert(&out.path().join("bf16"), &target, dtype);
        let error = report["relative_error"].as_f64().expect("a number");
        let bounds = if dtype == "int8" {
            0.001..0.02
        } else {
            0.02..0.2
        };
        assert!(bounds.contains(&error), "{dtype}: {error}");
        let expected = logits(&out.path().join("bf16"), dtype);
        assert!(logits(&target, dtype) == expected, "{dtype}");
        assert!(logits(&target, "auto") == expected, "{dtype} as auto");
        // Other precisions use the values that the codes stand for.
        let result = run(&target, "infill", &["春□□月", "--dtype", "f32"]);
        assert_eq!(
            result["outputs"][0]["tokens"].as_array().map(Vec::len),
            Some(4)
        );
    }
}

/// The whole model is in one file, with its tokenizer, although that has no words in GGUF.
#[test]
fn a_gguf_file_generates_as_its_folder() {
    let dir = model();
    let out = tempfile::tempdir().expect("a temporary folder");
    let file = out.path().join("model.gguf");
    let report = convert(dir.path(), &file, "f32");
    assert!(file.is_file());
    assert_eq!(report["mean_logit_error"], 0.0);
    let tokens = |model: &Path| {
        let made = run(model, "generate", &["春", "--gen-length", "6"]);
        made["outputs"][0]["tokens"].clone()
    };
    assert_eq!(tokens(&file), tokens(dir.path()));
    for (dtype, bounds) in [("Q8_0", 0.0..0.02), ("q4_0", 0.02..0.2)] {
        let file = out.path().join(format!("{dtype}.gguf"));
        let report = convert(dir.path(), &file, dtype);
        assert_eq!(report["dtype"], dtype.to_lowercase());
        let error = report["relative_error"].as_f64().expect("a number");
        assert!(bounds.contains(&error), "{dtype}: {error}");
        let folder = out.path().join(dtype);
        convert(&file, &folder, "f32");
        assert_eq!(tokens(&file), tokens(&folder), "{dtype}");
    }
}

/// An interrupted conversion leaves no configuration, and perhaps a file that it was writing.
#[test]
fn a_conversion_starts_again() {
    let dir = model();
    let out = tempfile::tempdir().expect("a temporary folder");
    let leftover = out.path().join(".llada-tmp-model.safetensors");
    fs::write(&leftover, "half of the weights").expect("a writable folder");
    convert(dir.path(), out.path(), "int8");
    assert!(!leftover.exists());
    let names = fs::read_dir(out.path()).expect("a folder");
    let mut names: Vec<_> = names
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["config.json", "model.safetensors", "tokenizer.json"]
    );
}

#[test]
fn bad_targets_and_types() {
    let dir = model();
    let convert = |target: &Path, dtype: &str| {
        let mut command = llada(&["convert"]);
        command.args([dir.path(), target]).args(["--dtype", dtype]);
        command
    };
    fails(
        &mut convert(dir.path(), "int8"),
        1,
        &["holds a model already"],
    );
    let out = tempfile::tempdir().expect("a temporary folder");
    fails(&mut convert(out.path(), "auto"), 2, &["--dtype", "int8"]);
    let gguf = out.path().join("new.gguf");
    for dtype in ["int8", "int4"] {
        fails(&mut convert(&gguf, dtype), 2, &["q8_0 or q4_0", "GGUF"]);
    }
    let folder = out.path().join("new");
    for dtype in ["f16", "q8_0", "q4_0"] {
        fails(&mut convert(&folder, dtype), 2, &["int8 or int4", ".gguf"]);
    }
    assert!(!gguf.exists() && !folder.exists());
    let file = out.path().join("file");
    fs::write(&file, "x").expect("a writable folder");
    fails(&mut convert(&file.join("model"), "int8"), 1, &["creating"]);
}

/// A file that says something else than its configuration.
#[test]
fn damaged_codes() {
    let dir = model();
    let out = tempfile::tempdir().expect("a temporary folder");
    let target = out.path().join("int4");
    convert(dir.path(), &target, "int4");
    let weights = target.join("model.safetensors");
    let whole = fs::read(&weights).expect("the weights");
    let generate = || {
        let mut command = llada(&["generate", "春", "--gen-length", "2", "--model"]);
        command.arg(&target);
        command
    };
    let config = target.join("config.json");
    let text = fs::read_to_string(&config).expect("the configuration");
    for (from, to, parts) in [
        (
            "\"llada\",\n    \"bits\"",
            "\"gptq\",\n    \"bits\"",
            ["quantization_config", "llada convert"],
        ),
        (
            "\"bits\": 4,\n    \"rotation\": 64,\n    \"group_size\": 32",
            "\"bits\": 8,\n    \"rotation\": 64",
            ["q_proj.weight", "U8"],
        ),
    ] {
        assert!(text.contains(from), "{text}");
        fs::write(&config, text.replace(from, to)).expect("a writable folder");
        fails(&mut generate(), 1, &parts);
    }
    fs::write(&config, &text).expect("a writable folder");
    let header: [u8; 8] = *whole.first_chunk().expect("a header");
    let start = 8 + usize::try_from(u64::from_le_bytes(header)).expect("a length");
    let header: Value = serde_json::from_slice(&whole[8..start]).expect("a JSON header");
    for (end, bytes) in [
        ("_multiplier", &[99][..]),
        ("_scale", &f32::NAN.to_le_bytes()),
    ] {
        let name = format!("model.transformer.blocks.0.up_proj.weight{end}");
        let at = header[&name]["data_offsets"][0]
            .as_u64()
            .expect("an offset");
        let at = start + usize::try_from(at).expect("an offset");
        let mut damaged = whole.clone();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        fs::write(&weights, damaged).expect("a writable folder");
        fails(&mut generate(), 1, &["up_proj", "convert the model again"]);
    }
}
