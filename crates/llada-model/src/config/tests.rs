//! Tests of configurations.

use std::path::Path;

use super::*;
use crate::{PRESETS, preset};

#[test]
fn presets_have_the_sizes_of_the_paper() {
    // Table 5 of arXiv 2502.09992: total and non-embedding parameters in units of 10^7; the last
    // is ours.
    let expected = [
        (149, 97),
        (802, 698),
        (149, 97),
        (683, 580),
        (803, 698),
        (3, 2),
    ];
    for (name, expected) in PRESETS.into_iter().zip(expected) {
        let config = preset(name).expect("a preset");
        config.check().expect("presets are supported");
        let rounded = |n: usize| (n + 5_000_000) / 10_000_000;
        let got = (
            rounded(config.total_parameters()),
            rounded(config.non_embedding_parameters()),
        );
        assert_eq!(got, expected, "{name}");
    }
}

#[test]
fn a_pass_over_all_positions_uses_every_parameter_but_the_embedding() {
    let config = preset("llada-25m").expect("a preset");
    let (d, f, v) = (384, 1536, 8192);
    let table = (v * d) as u64;
    let used = config.total_parameters() as u64 - table;
    assert_eq!(config.forward_flops(7, 7), 2 * 7 * used);
    // One position pays for the head and for all that follows the last attention.
    let behind = table + (d * d + 3 * d * f + 2 * d) as u64;
    assert_eq!(
        config.forward_flops(7, 1),
        2 * (7 * (used - behind) + behind)
    );
    let tied = ModelConfig {
        weight_tying: true,
        ..config.clone()
    };
    assert_eq!(tied.forward_flops(7, 3), config.forward_flops(7, 3));
}

fn small() -> serde_json::Value {
    serde_json::json!({
        "architectures": ["LLaDAModelLM"], "d_model": 64, "n_heads": 4, "n_layers": 2,
        "vocab_size": 100, "mask_token_id": 7, "eos_token_id": 1,
        "block_type": "llama", "init_fn": "mitchell",
    })
}

#[track_caller]
fn check_error(field: &str, value: serde_json::Value, expected: &str) {
    let mut json = small();
    json[field] = value;
    let bytes = serde_json::to_vec(&json).expect("valid");
    let error = ModelConfig::from_json(&bytes, Path::new("config.json")).expect_err(field);
    let Error::Config { path, source } = error else {
        panic!("{error:?}")
    };
    assert_eq!(path, Path::new("config.json"));
    assert_eq!(source.to_string(), expected);
}

#[test]
fn unknown_fields_survive_a_round_trip() {
    let bytes = serde_json::to_vec(&small()).expect("valid");
    let config = ModelConfig::from_json(&bytes, Path::new("config.json")).expect("valid");
    assert_eq!(config.mlp_width(), 256);
    let again = ModelConfig::from_json(config.to_json().as_bytes(), Path::new("x")).expect("valid");
    assert_eq!(again, config);
    assert_eq!(again.other["init_fn"], "mitchell");
}

#[test]
fn unsupported_values_name_the_field() {
    let unsupported = |field: &str, value: &str, expected: &str| {
        format!("config field {field}: {value} is not supported, expected {expected}")
    };
    check_error(
        "block_type",
        "sequential".into(),
        &unsupported("block_type", "\"sequential\"", "\"llama\""),
    );
    check_error("alibi", true.into(), &unsupported("alibi", "true", "false"));
    check_error(
        "architectures",
        serde_json::json!(["LlamaForCausalLM"]),
        &unsupported(
            "architectures",
            "LlamaForCausalLM",
            "LLaDAModelLM or ILLaDAForCausalLM or LLaDAMoEModelLM or LLaDA2MoeModelLM or DreamModel",
        ),
    );
    check_error(
        "mask_token_id",
        100.into(),
        &unsupported("mask_token_id", "100", "an id below embedding_size"),
    );
    check_error(
        "n_heads",
        3.into(),
        &unsupported("d_model", "64", "an even multiple of n_heads"),
    );
    check_error(
        "n_layers",
        0.into(),
        &unsupported("n_layers", "0", "a number from 1 to 2^28"),
    );
}

/// The configuration of [`small`] with fields.
fn with(fields: &serde_json::Value) -> Result<ModelConfig> {
    let mut json = small();
    for (field, value) in fields.as_object().expect("fields") {
        json[field] = value.clone();
    }
    let bytes = serde_json::to_vec(&json).expect("valid");
    ModelConfig::from_json(&bytes, Path::new("config.json"))
}

#[track_caller]
fn check_refused(fields: &serde_json::Value, parts: &[&str]) {
    let Err(Error::Config { source, .. }) = with(fields) else {
        panic!("{fields} is read")
    };
    let message = source.to_string();
    for part in parts {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
}

#[test]
fn the_base_of_the_frequencies_is_read_where_transformers_5_writes_it() {
    let check = |fields: serde_json::Value, expected: f32| {
        let got = with(&fields).expect("valid").rope_theta.to_bits();
        assert_eq!(got, expected.to_bits(), "{fields}");
    };
    let json = |text: &str| serde_json::from_str(text).expect("JSON");
    check(json("{}"), 10_000.0);
    check(json(r#"{"rope_theta": 500000}"#), 500_000.0);
    check(
        json(r#"{"rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}}"#),
        500_000.0,
    );
    check(
        json(
            r#"{"rope_theta": 5e5, "rope_parameters": {"rope_theta": 500000}, "rope_scaling": null}"#,
        ),
        500_000.0,
    );
    check(
        json(r#"{"rope_theta": 7, "rope_parameters": {"type": "default", "rope_type": null}}"#),
        7.0,
    );
    check(json(r#"{"rope_theta": 7, "rope_parameters": null}"#), 7.0);
    check(
        json(r#"{"rope_theta": 7, "rope_scaling": {"rope_type": "default"}}"#),
        7.0,
    );
}

#[test]
fn frequencies_that_are_scaled_or_contradict_each_other_are_refused() {
    let check = |text: &str, parts: &[&str]| {
        check_refused(&serde_json::from_str(text).expect("JSON"), parts);
    };
    check(
        r#"{"rope_scaling": {"type": "linear", "factor": 2.0}}"#,
        &["rope_scaling", "linear"],
    );
    check(
        r#"{"rope_scaling": {"factor": 2.0}}"#,
        &["rope_scaling", "factor = 2"],
    );
    check(
        r#"{"rope_scaling": {"rope_type": "default", "type": "yarn"}}"#,
        &["rope_scaling", "yarn"],
    );
    check(
        r#"{"rope_parameters": {"rope_theta": 1e4, "rope_type": "llama3", "factor": 8.0}}"#,
        &["rope_parameters", "llama3"],
    );
    check(
        r#"{"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}"#,
        &["partial_rotary_factor"],
    );
    check(
        r#"{"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}"#,
        &["rope_parameters", "full_attention"],
    );
    check(
        r#"{"rope_parameters": {"rope_type": "default"}}"#,
        &["rope_parameters", "rope_theta"],
    );
    check(
        r#"{"rope_theta": 5e5, "rope_parameters": {"rope_theta": 1e4}}"#,
        &["rope_parameters", "10000", "500000"],
    );
    check(r#"{"rope_type": "yarn"}"#, &["rope_type", "yarn"]);
}

#[test]
fn models_of_other_kinds_are_named_before_their_fields_are_read() {
    let check = |text: &str, parts: &[&str]| {
        let error = ModelConfig::from_json(text.as_bytes(), Path::new("config.json"));
        let Err(Error::Config { source, .. }) = error else {
            panic!("{error:?}")
        };
        let message = source.to_string();
        for part in parts {
            assert!(message.contains(part), "no {part:?} in {message}");
        }
    };
    check(
        r#"{"architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 8}"#,
        &["architectures", "Qwen3MoeForCausalLM"],
    );
    check(
        r#"{"architectures": ["LlamaForCausalLM"]}"#,
        &["LlamaForCausalLM", "LLaDAModelLM"],
    );
    check(
        r#"{"architectures": "MambaForCausalLM", "d_model": "x"}"#,
        &["MambaForCausalLM", "DreamModel"],
    );
    check(
        r#"{"model_type": "qwen2", "hidden_size": 8}"#,
        &["model_type: qwen2", "Dream"],
    );
    check(
        r#"{"architectures": null, "model_type": "qwen3"}"#,
        &["model_type: qwen3"],
    );
    check(
        r#"{"model_type": "llada", "hidden_size": 8}"#,
        &["hidden_size", "d_model"],
    );
}

#[test]
fn a_list_of_ends_is_kept() {
    let one = with(&serde_json::json!({})).expect("valid");
    assert_eq!(
        (one.eos_token_id.usual(), one.eos_token_id.all()),
        (1, &[1][..])
    );
    assert!(one.to_json().contains("\"eos_token_id\": 1"));
    let several = with(&serde_json::json!({"eos_token_id": [3, 1]})).expect("valid");
    assert_eq!(several.eos_token_id.all(), [3, 1]);
    let again = ModelConfig::from_json(several.to_json().as_bytes(), Path::new("x"));
    assert_eq!(again.expect("valid"), several);
    check_refused(&serde_json::json!({"eos_token_id": []}), &["eos_token_id"]);
    check_refused(
        &serde_json::json!({"eos_token_id": [1, 100]}),
        &["eos_token_id: 100"],
    );
}

#[test]
fn a_byte_order_mark_is_no_fault_and_another_file_is_named() {
    let json = [
        &b"\xef\xbb\xbf"[..],
        &*serde_json::to_vec(&small()).expect("valid"),
    ]
    .concat();
    ModelConfig::from_json(&json, Path::new("config.json")).expect("valid");
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    let error = ModelConfig::from_json(pointer, Path::new("config.json")).expect_err("a pointer");
    assert!(error.to_string().contains("Git LFS"), "{error}");
    let error = ModelConfig::from_json(b"<html>", Path::new("config.json")).expect_err("a page");
    assert!(error.to_string().contains("HTML"), "{error}");
}
