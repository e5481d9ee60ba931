//! Models of the families beside dense LLaDA: in every type, converted, damaged, and trained.

use std::fs;
use std::path::{Path, PathBuf};

use llada::diffusion::{MaskPredictor, Query, TokenBatch, Trainable};
use llada::model::OpenOptions;
use llada::model::convert::convert;
use llada::model::weights::save;
use llada::tensor::{DType, Gradients, Tape};
use llada::{CpuConfig, Device, LladaModel, ModelConfig, ModelSource, Precision, model};
use serde_json::{Value, json};

const MODELS: [&str; 6] = [
    "illada/models/gqa-tied-f32",
    "illada/models/untied-bias-f32",
    "lladamoe/models/dense-first-shared-gqa-f32",
    "llada2/models/mini-bf16",
    "llada22/models/mini-f32",
    "dream/models/gqa-bf16",
];
const MASK: u32 = 283;

fn folder(name: &str) -> PathBuf {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/families");
    goldens.join(name)
}

fn device() -> Device {
    let (threads, level) = (1, None);
    Device::cpu(CpuConfig { threads, level }).unwrap()
}

/// With the mask that recorded runs were given, where no file says which it is.
fn open(dir: &Path) -> model::Result<ModelSource> {
    match ModelSource::open(dir) {
        Err(model::Error::NoMaskToken { .. }) => {
            let mask_token_id = Some(MASK);
            ModelSource::open_with(dir, OpenOptions { mask_token_id })
        }
        opened => opened,
    }
}

fn logits(model: &dyn MaskPredictor) -> Vec<f32> {
    let sequence: Vec<u32> = (0..40).map(|at| at * 7 % 280).collect();
    let batch = TokenBatch::new(&[sequence]).unwrap();
    model
        .logits(Query::new(&batch, &[0, 3, 17, 31, 39]))
        .unwrap()
}

#[test]
fn a_converted_model_is_the_one_that_loading_makes() {
    let device = device();
    for name in MODELS {
        let source = open(&folder(name)).unwrap();
        for precision in [
            Precision::F32,
            Precision::Bf16,
            Precision::Int8,
            Precision::Int4,
        ] {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("model");
            convert(&source, &target, precision, &device, &mut |_, _| ()).unwrap();
            // It says which token is the mask.
            let again = ModelSource::open(&target).unwrap();
            assert_eq!(
                again.config().mask_token_id,
                source.config().mask_token_id,
                "{name}"
            );
            assert_eq!(
                again.default_precision(&device),
                match precision {
                    Precision::Bf16 => Precision::F32,
                    other => other,
                }
            );
            let [ours, theirs] =
                [&source, &again].map(|source| logits(&source.frozen(&device, precision).unwrap()));
            let what = format!("{name} in {}", precision.name());
            match source.config().weight_tying && precision.is_integer() {
                // The embedding is bf16 in the folder, and the head is made of it there.
                true => check_close(&what, &theirs, &ours, 0.05),
                false => assert!(ours == theirs, "{what}"),
            }
        }
    }
}

/// Distances of logits, relative to their size.
#[track_caller]
fn check_close(name: &str, got: &[f32], exact: &[f32], tolerance: f64) {
    let sum = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let difference = got
        .iter()
        .zip(exact)
        .map(|(&x, &y)| f64::from(x) - f64::from(y));
    let error = sum(&mut { difference }) / sum(&mut exact.iter().map(|&x| f64::from(x)));
    assert!(error < tolerance, "{name}: {error}");
}

/// Random weights are harder to round than trained ones: a step of the rounding is an 18th of the
/// standard deviation in 8 bits, about a third in 4.
#[test]
fn integers_stay_close_to_the_values_that_they_stand_for() {
    let device = device();
    for name in MODELS {
        let source = open(&folder(name)).unwrap();
        let exact = logits(&source.frozen(&device, Precision::F32).unwrap());
        let int8 = logits(&source.frozen(&device, Precision::Int8).unwrap());
        check_close(name, &int8, &exact, 0.2);
    }
}

#[test]
fn what_is_saved_is_read_again_in_the_layout_of_the_family() {
    let device = device();
    for name in MODELS {
        let source = open(&folder(name)).unwrap();
        let model = source.trainable(&device, Precision::F32).unwrap();
        let dir = tempfile::tempdir().unwrap();
        save(&model, dir.path(), DType::F32).unwrap();
        let again = ModelSource::open(dir.path()).unwrap();
        let again = again.trainable(&device, Precision::F32).unwrap();
        assert!(logits(&model) == logits(&again), "{name}");
        let bytes = fs::read(dir.path().join("model.safetensors")).unwrap();
        let saved = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let published = fs::read(folder(name).join("config.json")).unwrap();
        let published: Value = serde_json::from_slice(&published).unwrap();
        let config = fs::read(dir.path().join("config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        for (field, value) in published.as_object().unwrap() {
            assert_eq!(&config[field], value, "{name}: {field}");
        }
        assert!(saved.names().contains(&"model.norm.weight"), "{name}");
    }
}

/// A copy of a model with one file, with tensors and fields changed.
fn changed(
    name: &str,
    change: impl Fn(&str) -> Option<Vec<usize>>,
    fields: &[(&str, Value)],
) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = fs::read(folder(name).join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    for (field, value) in fields {
        config[*field] = value.clone();
    }
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let bytes = fs::read(folder(name).join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut views = Vec::new();
    for (name, view) in file.tensors() {
        match change(&name) {
            None => views.push((name, view)),
            Some(shape) if shape.is_empty() => {}
            Some(shape) => {
                let n = 4 * shape.iter().product::<usize>();
                let data = &view.data()[..n];
                let view = safetensors::tensor::TensorView::new(view.dtype(), shape, data);
                views.push((name, view.unwrap()));
            }
        }
    }
    let bytes = safetensors::serialize(views, None).unwrap();
    fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    dir
}

#[track_caller]
fn check_refused(dir: &Path, mask: Option<u32>, parts: &[&str]) {
    let error = ModelSource::open_with(
        dir,
        OpenOptions {
            mask_token_id: mask,
        },
    )
    .unwrap_err();
    let mut message = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        message += &format!(": {cause}");
        source = cause.source();
    }
    for part in parts {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
}

#[test]
fn damaged_folders_are_named_in_one_error() {
    let model = "llada2/models/mini-f32";
    let expert = "model.layers.1.mlp.experts.3.up_proj.weight";
    let dir = changed(model, |name| (name == expert).then(Vec::new), &[]);
    check_refused(dir.path(), Some(MASK), &[expert, "model.safetensors"]);
    let router = "model.layers.1.mlp.gate.weight";
    let dir = changed(model, |name| (name == router).then(|| vec![15, 40]), &[]);
    check_refused(dir.path(), Some(MASK), &[router, "[15, 40]", "[16, 40]"]);
    let fused = "model.layers.0.attention.query_key_value.weight";
    let dir = changed(model, |name| (name == fused).then(|| vec![120, 40]), &[]);
    check_refused(dir.path(), Some(MASK), &[fused, "[120, 40]", "[128, 40]"]);
    let keep = |_: &str| None;
    let dir = changed(model, keep, &[("num_experts", json!(1 << 27))]);
    check_refused(dir.path(), Some(MASK), &["num_experts"]);
    let dir = changed(model, keep, &[("n_group", json!(5))]);
    check_refused(dir.path(), Some(MASK), &["n_group"]);
    let dir = changed(model, keep, &[("topk_group", json!(9))]);
    check_refused(dir.path(), Some(MASK), &["topk_group"]);
    let dir = changed(model, keep, &[("block_size", json!(0))]);
    check_refused(dir.path(), Some(MASK), &["block_size"]);
    // No file says which token is the mask.
    check_refused(&folder(model), None, &["mask_token_id", "--mask-token-id"]);
    check_refused(&folder(model), Some(288), &["mask_token_id", "288"]);
    let dir = changed(model, keep, &[]);
    let tokenizer = r#"{"added_tokens": [{"id": 4, "content": "<|mask|>"}]}"#;
    fs::write(dir.path().join("tokenizer.json"), tokenizer).unwrap();
    fs::write(
        dir.path().join("tokenizer_config.json"),
        r#"{"mask_token": "[M]", "added_tokens_decoder": {"9": {"content": "[M]"}}}"#,
    )
    .unwrap();
    check_refused(dir.path(), None, &["(9)", "(4)", "--mask-token-id"]);
}

/// A mixture of experts of one's own learns: the loss of a batch falls, and experts, routers and
/// what is shared all have gradients.
#[test]
fn a_mixture_of_experts_is_trained() {
    let config = json!({
        "architectures": ["LLaDAMoEModelLM"], "model_type": "llada", "hidden_size": 32,
        "dense_intermediate_size": 48, "expert_intermediate_size": 16, "num_experts": 6,
        "num_experts_per_tok": 2, "shared_expert_intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 24,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
        "qk_layernorm": true, "eos_token_id": 1, "mask_token_id": 0,
    });
    let config = ModelConfig::from_json(config.to_string().as_bytes(), Path::new("config.json"));
    let device = device();
    for (precision, checkpoints) in [(Precision::F32, false), (Precision::Bf16, true)] {
        let config = config.as_ref().unwrap().clone();
        let model = LladaModel::random(config, &device, precision, 3).unwrap();
        let mut model = model.checkpoint_activations(checkpoints);
        let tokens: Vec<u32> = (0..48).map(|at| 2 + at * at % 22).collect();
        let positions: Vec<usize> = (0..48).step_by(2).collect();
        let targets: Vec<u32> = positions.iter().map(|&at| tokens[at]).collect();
        let mut noisy = tokens.clone();
        positions.iter().for_each(|&at| noisy[at] = 0);
        let batch = TokenBatch::new(&[&noisy[..20], &noisy[20..]]).unwrap();
        let weights = vec![1.0 / 24.0; 24];
        let mut losses = Vec::new();
        for _ in 0..30 {
            let mut tape = Tape::recording(&device, precision);
            let loss = model
                .weighted_cross_entropy(&mut tape, &batch, &positions, &targets, &weights)
                .unwrap();
            losses.push(loss.value().to_vec_f32().unwrap()[0]);
            let values = model.parameters().iter().map(|parameter| &parameter.value);
            let mut gradients = Gradients::zeros_like(values).unwrap();
            tape.backward(&loss, &mut gradients).unwrap();
            for (parameter, gradient) in model.parameters_mut().iter_mut().zip(gradients.tensors())
            {
                let gradient_values = gradient.to_vec_f32().unwrap();
                let is_some = gradient_values.iter().any(|&x| x != 0.0);
                assert!(
                    is_some || losses.len() > 1,
                    "{} has no gradient",
                    parameter.name
                );
                let backend = device.backend();
                backend
                    .axpby(-0.5, gradient, 1.0, &mut parameter.value)
                    .unwrap();
            }
        }
        let (first, last) = (losses[0], losses[29]);
        assert!(
            last < 0.8 * first,
            "{}: {first} to {last}",
            precision.name()
        );
    }
}
