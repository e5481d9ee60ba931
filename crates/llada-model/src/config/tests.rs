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
        serde_json::json!(["LLaDAMoEModelLM"]),
        &unsupported("architectures", "LLaDAMoEModelLM", "LLaDAModelLM"),
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
