//! Tests of adapters.
//!
//! `tests/goldens/adapters` was recorded by `tools/record_adapters.py` with peft 0.21.2 and torch
//! 2.15.0: adapters that PEFT saves for a small model, and what it merges them into.

use std::fs;

use llada_diffusion::Trainable as _;
use llada_tensor::{DType, Precision};
use serde_json::{Value, json};

use super::*;
use crate::tests::{device, logit_bits, model};
use crate::weights::save;
use crate::{LoraConfig, ModelSource};

/// Values by the names of tensors.
type Tensors = BTreeMap<String, Vec<f32>>;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/goldens/adapters")
        .join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    fs::read(golden(name)).expect("recorded")
}

fn values(bytes: &[u8]) -> Tensors {
    let file = SafeTensors::deserialize(bytes).expect("valid");
    let f32s = |view: &TensorView<'_>| {
        let words = view.data().chunks_exact(4);
        words
            .map(|x| f32::from_le_bytes(x.try_into().expect("4 bytes")))
            .collect()
    };
    let tensors = file.tensors().into_iter();
    tensors.map(|(name, view)| (name, f32s(&view))).collect()
}

/// The model that the adapters were recorded for.
fn base() -> ModelSource {
    let config = json!({
        "d_model": 8, "n_heads": 4, "n_kv_heads": 2, "n_layers": 2, "mlp_hidden_size": 12,
        "vocab_size": 11, "mask_token_id": 0, "eos_token_id": 1, "include_bias": true,
    });
    let config = serde_json::to_vec(&config).expect("plain fields");
    ModelSource::from_bytes(&config, bytes("base.safetensors")).expect("a model")
}

fn read(source: &ModelSource) -> Tensors {
    let names = source.config().parameter_shapes().into_iter();
    let tensors = source.tensors().expect("they fit");
    let value = |tensor: &Stored<'_>| {
        let tensor = tensor.read(&device()).expect("finite");
        tensor.to_vec_f32().expect("f32")
    };
    names
        .map(|(name, _)| name)
        .zip(tensors.iter().map(value))
        .collect()
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, x| most.max(x.abs()))
}

/// An adapter gives the weights that PEFT merges; `factor` is at least its alpha / rank.
#[track_caller]
fn check_peft(name: &str, factor: f32) {
    let before = read(&base());
    let source = base().with_adapter(&golden(name), 1.0).expect(name);
    let merged = values(&bytes(&format!("{name}.safetensors")));
    let parts = values(&bytes(&format!("{name}/adapter_model.safetensors")));
    let of_parts = parts.values().map(|part| largest(part)).fold(0.0, f32::max);
    for (name, got) in read(&source) {
        let Some(expected) = merged.get(&name) else {
            assert_eq!(got, before[&name], "{name} has no adapter");
            continue;
        };
        assert_ne!(expected, &before[&name], "{name} is changed");
        // A sum of four products, a factor and a sum: six roundings of what may cancel.
        let size = 4.0 * factor * of_parts * of_parts + largest(&before[&name]);
        let bound = 6.0 * f32::EPSILON / 2.0 * size;
        for (got, expected) in got.iter().zip(expected) {
            assert!(
                (got - expected).abs() <= bound,
                "{name}: {got}, not {expected}"
            );
        }
    }
}

#[test]
fn merged_weights_are_those_of_peft() {
    for name in ["plain", "rslora"] {
        check_peft(name, 3.0);
    }
    check_peft("patterns", 6.0);
    for name in [
        "bias-all",
        "bias-lora-only",
        "lora-bias",
        "ff-out",
        "saved",
        "embedding",
        "tokens",
        "fan-in",
        "gaussian",
        "orthogonal",
    ] {
        check_peft(name, 2.0);
    }
}

#[test]
fn a_scale_counts_and_adapters_add_up() {
    let folder = golden("plain");
    let with = |scales: &[f64]| {
        let lay = |source: ModelSource, scale: &f64| source.with_adapter(&folder, *scale);
        read(&scales.iter().try_fold(base(), lay).expect("fits"))
    };
    let (none, one) = (with(&[]), with(&[1.0]));
    assert_eq!(with(&[0.0]), none);
    for (scales, factor) in [(&[0.5][..], 0.5), (&[1.0, 1.5], 2.5), (&[-1.0], -1.0)] {
        for (name, got) in with(scales) {
            for ((got, base), one) in got.iter().zip(&none[&name]).zip(&one[&name]) {
                let expected = base + factor * (one - base);
                let bound = 8.0 * f32::EPSILON * (base.abs() + 3.0 * (one - base).abs());
                assert!(
                    (got - expected).abs() <= bound,
                    "{name}: {got}, not {expected}"
                );
            }
        }
    }
}

#[test]
fn rows_have_the_same_bits_however_they_are_asked_for() {
    let source = base()
        .with_adapter(&golden("embedding"), 1.0)
        .expect("fits");
    for tensor in source.tensors().expect("they fit") {
        let n = tensor.rows();
        let mut whole = vec![0.0; tensor.shape.iter().product()];
        tensor.fill_once(0..n, &mut whole);
        let width = whole.len() / n;
        for row in 0..n {
            let mut one = vec![0.0; width];
            tensor.fill_once(row..row + 1, &mut one);
            assert_eq!(one, whole[row * width..][..width]);
        }
    }
}

#[test]
fn inference_training_and_files_see_merged_weights() {
    let source = base().with_adapter(&golden("saved"), 1.0).expect("fits");
    let trainable = source.trainable(&device(), Precision::F32).expect("fits");
    let expected = logit_bits(&trainable, &[&[3, 0, 5]]);
    let frozen = source.frozen(&device(), Precision::F32).expect("fits");
    assert_eq!(logit_bits(&frozen, &[&[3, 0, 5]]), expected);
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("merged");
    let mut quiet = |_, _| {};
    crate::convert::convert(&source, &target, Precision::F32, &device(), &mut quiet).expect("fits");
    let converted = ModelSource::open(&target).expect("a model");
    let converted = converted.frozen(&device(), Precision::F32).expect("fits");
    assert_eq!(logit_bits(&converted, &[&[3, 0, 5]]), expected);
}

/// A recorded adapter whose configuration was changed.
fn copied(name: &str, fields: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config: Value =
        serde_json::from_slice(&bytes(&format!("{name}/{CONFIG}"))).expect("JSON");
    for (field, value) in fields.as_object().expect("fields") {
        config[field] = value.clone();
    }
    fs::write(folder.path().join(CONFIG), config.to_string()).expect("writable");
    fs::copy(golden(name).join(WEIGHTS), folder.path().join(WEIGHTS)).expect("writable");
    folder
}

#[track_caller]
fn check_refused(folder: &Path, scale: f64, parts: &[&str]) {
    let error = base()
        .with_adapter(folder, scale)
        .expect_err("refused")
        .to_string();
    for part in parts {
        assert!(error.contains(part), "no {part:?} in {error}");
    }
}

#[test]
fn what_is_not_merged_by_adding_a_product_is_refused_by_name() {
    let check = |fields: Value, parts: &[&str]| {
        check_refused(copied("plain", &fields).path(), 1.0, parts);
    };
    for init in [
        "pissa",
        "pissa_niter_16",
        "olora",
        "corda",
        "loftq",
        "eva",
        "lora_ga",
    ] {
        let way_out = "path_initial_model_for_weight_conversion";
        check(
            json!({"init_lora_weights": init}),
            &["init_lora_weights", init, way_out],
        );
    }
    check(json!({"use_dora": true}), &["use_dora", "merge_and_unload"]);
    for kind in [
        "LOHA",
        "IA3",
        "PROMPT_TUNING",
        "XLORA",
        "ADALORA",
        "TRAINABLE_TOKENS",
    ] {
        check(
            json!({"peft_type": kind}),
            &["peft_type", kind, "merge_and_unload"],
        );
    }
    check(
        json!({"alora_invocation_tokens": [3]}),
        &["alora_invocation_tokens"],
    );
    check(
        json!({"layer_replication": [[0, 2]]}),
        &["layer_replication"],
    );
    check(json!({"a_field_of_tomorrow": 1}), &["a_field_of_tomorrow"]);
    check(json!({"r": 3}), &["lora_A", "rank 2", "expected 3"]);
    check(
        json!({"rank_pattern": {"q_proj": 5}}),
        &["q_proj.lora_A", "rank 2", "expected 5"],
    );
    check(json!({"alpha_pattern": {"q_proj(": 5}}), &["alpha_pattern"]);
    for fields in [
        json!({"init_lora_weights": false}),
        json!({"init_lora_weights": null}),
    ] {
        base()
            .with_adapter(copied("plain", &fields).path(), 1.0)
            .expect("leaves the base");
    }
}

#[test]
fn files_that_do_not_fit_name_the_tensor() {
    let folder = copied("tokens", &json!({"trainable_token_indices": null}));
    check_refused(
        folder.path(),
        1.0,
        &["trainable_tokens_delta", "trainable_token_indices"],
    );
    let folder = copied("tokens", &json!({"trainable_token_indices": [9, 2, 11]}));
    check_refused(folder.path(), 1.0, &["token 11", "below 11"]);
    let folder = copied("tokens", &json!({"trainable_token_indices": [9, 2]}));
    check_refused(
        folder.path(),
        1.0,
        &["trainable_tokens_delta", "[3, 8]", "[2, 8]"],
    );
    for name in ["saved", "tokens", "bias-all"] {
        check_refused(&golden(name), 0.5, &["in place of", "scale of 0.5"]);
    }
    let folder = copied("plain", &json!({}));
    fs::remove_file(folder.path().join(WEIGHTS)).expect("was there");
    check_refused(folder.path(), 1.0, &[WEIGHTS]);
    fs::write(folder.path().join(PICKLE), b"PK").expect("writable");
    check_refused(folder.path(), 1.0, &[PICKLE, "pickle", "save_pretrained"]);
    fs::write(
        folder.path().join(WEIGHTS),
        b"version https://git-lfs\noid sha256:1",
    )
    .expect("ok");
    check_refused(folder.path(), 1.0, &["Git LFS"]);
    fs::remove_file(folder.path().join(CONFIG)).expect("was there");
    check_refused(folder.path(), 1.0, &["holds no adapter_config.json"]);
    // Of a model without biases, and of one with fewer blocks.
    let other = crate::tests::model(&json!({}));
    let folder = tempfile::tempdir().expect("a folder");
    save(&other, folder.path(), DType::F32).expect("writable");
    let other = ModelSource::open(folder.path()).expect("a model");
    let error = other
        .with_adapter(&golden("bias-all"), 1.0)
        .expect_err("another model");
    assert!(error.to_string().contains("base_model.model"), "{error}");
}

/// A changed copy of the tensors of an adapter.
fn rewritten(rename: impl Fn(&str) -> Option<String>) -> tempfile::TempDir {
    let folder = copied("plain", &json!({}));
    let path = folder.path().join(WEIGHTS);
    let old = fs::read(&path).expect("copied");
    let file = SafeTensors::deserialize(&old).expect("valid");
    let kept = file.tensors().into_iter();
    let kept: Vec<_> = kept
        .filter_map(|(name, view)| Some((rename(&name)?, view)))
        .collect();
    fs::write(&path, safetensors::serialize(kept, None).expect("fits")).expect("writable");
    folder
}

#[test]
fn names_of_other_savers_mean_the_same() {
    let expected = read(&base().with_adapter(&golden("plain"), 1.0).expect("fits"));
    for (from, to) in [
        (
            "base_model.model.model.transformer.",
            "base_model.model.transformer.",
        ),
        (
            "base_model.model.model.transformer.",
            "base_model.model._orig_mod.model.transformer.",
        ),
        ("base_model.model.model.transformer.", "model.transformer."),
        (".weight", ".default.weight"),
    ] {
        let folder = rewritten(|name| Some(name.replace(from, to)));
        let source = base().with_adapter(folder.path(), 1.0).expect(to);
        assert_eq!(read(&source), expected, "{to}");
    }
    let half = rewritten(|name| (!name.contains("1.q_proj.lora_B")).then(|| name.to_owned()));
    check_refused(half.path(), 1.0, &["blocks.1.q_proj.lora_A", "other half"]);
    let other = rewritten(|name| Some(name.replace("blocks.1.", "blocks.7.")));
    check_refused(other.path(), 1.0, &["blocks.7.", "belongs to no tensor"]);
}

#[test]
fn the_folder_of_an_adapter_is_its_base_with_it() {
    let top = tempfile::tempdir().expect("a folder");
    let model = model(&json!({"include_bias": true}));
    save(&model, &top.path().join("base"), DType::F32).expect("writable");
    let adapter = adapter_of(&top.path().join("run"), Some("../../base"));
    let laid = ModelSource::open(&top.path().join("base"))
        .and_then(|base| base.with_adapter(&adapter, 1.0))
        .expect("fits");
    let opened = ModelSource::open(&adapter).expect("its base is there");
    assert_eq!(read(&opened), read(&laid));
    for base in [None, Some("org/name"), Some("../nowhere")] {
        let adapter = adapter_of(&top.path().join("other"), base);
        let error = ModelSource::open(&adapter)
            .expect_err("no base")
            .to_string();
        for part in ["is an adapter", base.unwrap_or("null"), "--adapter"] {
            assert!(error.contains(part), "{error}");
        }
    }
    // Merged weights and the adapter in one folder.
    for name in [CONFIG, WEIGHTS] {
        fs::copy(adapter.join(name), top.path().join("base").join(name)).expect("writable");
    }
    let source = ModelSource::open(&top.path().join("base")).expect("a model");
    assert!(
        source.warnings()[0].contains("without the adapter"),
        "{:?}",
        source.warnings()
    );
    assert_ne!(read(&source), read(&laid));
}

/// The adapter of a run of ours, after something like training.
fn adapter_of(run: &Path, base: Option<&str>) -> PathBuf {
    let config = LoraConfig {
        rank: 2,
        alpha: 3.0,
        targets: vec!["q_proj".to_owned(), "ff_out".to_owned()],
    };
    let mut adapted = model(&json!({"include_bias": true}))
        .with_lora(&config, 1)
        .expect("fits");
    for (at, parameter) in adapted.parameters_mut().iter_mut().enumerate() {
        let shape = parameter.value.shape().to_vec();
        let n: usize = shape.iter().product();
        let values: Vec<f32> = (0..n)
            .map(|i| ((7 * i + 3 * at) % 11) as f32 / 8.0 - 0.5)
            .collect();
        parameter.value = llada_tensor::Tensor::from_f32(&device(), &shape, &values).expect("fits");
    }
    config.save(run, base, None).expect("writable");
    for file in adapted.export().expect("fits") {
        let parts: Vec<_> = file
            .tensors
            .iter()
            .map(|(name, value)| crate::files::Part {
                name: name.clone(),
                dtype: safetensors::Dtype::F32,
                shape: value.shape().to_vec(),
                data: crate::files::encode(&value.to_vec_f32().expect("f32"), DType::F32),
            })
            .collect();
        crate::files::write_safetensors(&run.join(file.file), &parts).expect("writable");
    }
    run.join("adapter")
}

#[test]
fn a_tokenizer_of_the_adapter_that_is_not_used_is_told() {
    let top = tempfile::tempdir().expect("a folder");
    let base = top.path().join("base");
    save(&model(&json!({"include_bias": true})), &base, DType::F32).expect("writable");
    let adapter = adapter_of(&top.path().join("run"), None);
    let warnings = || {
        let source = ModelSource::open(&base).and_then(|base| base.with_adapter(&adapter, 1.0));
        source.expect("fits").warnings().to_vec()
    };
    assert_eq!(warnings(), [""; 0]);
    fs::write(adapter.join("tokenizer.json"), "{}").expect("writable");
    assert!(
        warnings()[0].contains("tokenizer.json is not used"),
        "{:?}",
        warnings()
    );
    fs::write(base.join("tokenizer.json"), "{}").expect("writable");
    assert_eq!(warnings(), [""; 0]);
}

#[test]
fn an_adapter_of_a_run_of_ours_gives_the_merged_weights_of_that_run() {
    let top = tempfile::tempdir().expect("a folder");
    save(
        &model(&json!({"include_bias": true})),
        &top.path().join("base"),
        DType::F32,
    )
    .expect("ok");
    let run = top.path().join("run");
    let laid = ModelSource::open(&top.path().join("base"))
        .and_then(|base| base.with_adapter(&adapter_of(&run, None), 1.0))
        .expect("fits");
    let merged = values(&fs::read(run.join("model.safetensors")).expect("exported"));
    for (name, got) in read(&laid) {
        for (got, expected) in got.iter().zip(&merged[&name]) {
            // Two products, a factor and a sum of values below 2.
            assert!(
                (got - expected).abs() <= 4.0 * f32::EPSILON * 2.0,
                "{name}: {got}, {expected}"
            );
        }
    }
}
