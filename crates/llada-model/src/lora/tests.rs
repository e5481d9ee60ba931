use std::collections::BTreeSet;

use llada_diffusion::{MaskPredictor as _, Query, TokenBatch, Trainable as _};
use llada_tensor::{CpuConfig, Gradients, Tape};

use super::*;
use crate::LladaModel;

fn config(targets: &[&str]) -> LoraConfig {
    LoraConfig {
        rank: 2,
        alpha: 3.0,
        targets: targets.iter().map(|&target| target.to_owned()).collect(),
    }
}

/// A random model of two blocks, with biases, and adapters whose `B` are not zero any more.
fn model(targets: &[&str]) -> LladaModel {
    let json = br#"{"d_model": 16, "n_heads": 2, "n_kv_heads": 1, "n_layers": 2,
        "mlp_hidden_size": 24, "vocab_size": 40, "max_sequence_length": 16,
        "mask_token_id": 0, "eos_token_id": 1, "include_bias": true, "include_qkv_bias": true}"#;
    let model = ModelConfig::from_json(json, Path::new("config.json")).expect("valid");
    let device = Device::cpu(CpuConfig::default()).expect("a processor");
    let model = LladaModel::random(model, &device, Precision::F32, 5).expect("supported");
    let mut model = model.with_lora(&config(targets), 8).expect("valid");
    let philox = Philox::new(2, Stream::Test);
    for (tensor, parameter) in (0..).zip(model.parameters_mut()) {
        if parameter.name.contains("lora_B") {
            let n: u32 = parameter.value.numel().try_into().expect("small");
            let draw = |at| 0.3 * (philox.uniform_f32([at, tensor, 0]) - 0.5);
            let values: Vec<f32> = (0..n).map(draw).collect();
            let shape = parameter.value.shape().to_vec();
            parameter.value = Tensor::from_f32(&device, &shape, &values).expect("fits");
        }
    }
    model
}

fn batch() -> (TokenBatch, [usize; 4], [u32; 4], [f32; 4]) {
    let batch = TokenBatch::new(&[&[7, 0, 3, 0, 9][..], &[0, 12, 0]]).expect("not empty");
    (batch, [1, 3, 5, 7], [4, 30, 2, 17], [0.5, 1.0, 0.25, 0.75])
}

fn loss(model: &LladaModel, tape: &mut Tape) -> llada_tensor::Var {
    let (batch, positions, targets, weights) = batch();
    model
        .weighted_cross_entropy(tape, &batch, &positions, &targets, &weights)
        .expect("fits")
}

#[test]
fn new_adapters_change_nothing() {
    let adapted = model(&TARGETS);
    let config = adapted.config().clone();
    let device = adapted.device().clone();
    let [plain, fresh] = [false, true].map(|lora| {
        let plain = LladaModel::random(config.clone(), &device, Precision::F32, 5).expect("valid");
        match lora {
            true => plain.with_lora(&self::config(&TARGETS), 8).expect("valid"),
            false => plain,
        }
    });
    let (batch, positions, ..) = batch();
    let [plain, fresh, adapted] = [plain, fresh, adapted]
        .map(|model| model.logits(Query::new(&batch, &positions)).expect("fits"));
    assert_eq!(plain, fresh);
    assert_ne!(plain, adapted);
}

#[test]
fn the_merged_model_gives_the_loss_of_the_adapted_one() {
    for targets in [&TARGETS[..], &["q_proj", "v_proj"], &["ff_out"]] {
        let model = model(targets);
        let mut tape = Tape::inference(model.device(), Precision::F32);
        let adapted = f64::from(
            loss(&model, &mut tape)
                .value()
                .to_vec_f32()
                .expect("a scalar")[0],
        );
        let export = model.export().expect("fits").swap_remove(0);
        assert_eq!(export.file, "model.safetensors");
        let values = export.tensors.into_iter().map(|(_, value)| value).collect();
        let (config, device) = (model.config().clone(), model.device());
        let merged = LladaModel::new(config, device, Precision::F32, values).expect("fits");
        let (batch, positions, targets, weights) = batch();
        let losses = [&merged, &model].map(|model| {
            model
                .token_losses(Query::new(&batch, &positions), &targets)
                .expect("fits")
        });
        assert_eq!(losses[0], losses[1], "inference runs on the merged weights");
        let pairs = losses[0].iter().zip(weights);
        let merged: f64 = pairs.map(|(&x, w)| f64::from(x) * f64::from(w)).sum();
        // Values of about one, over some hundred roundings.
        let error = (adapted - merged).abs();
        assert!(error <= 256.0 * f64::from(f32::EPSILON), "{error:e}");
    }
}

#[test]
fn gradients_of_adapters_are_those_of_central_differences() {
    for targets in [&TARGETS[..], &["ff_out"]] {
        let mut model = model(targets);
        let mut tape = Tape::recording(model.device(), Precision::F32);
        let value = loss(&model, &mut tape);
        let of = model.parameters().iter().map(|p| &p.value);
        let mut gradients = Gradients::zeros_like(of).expect("fits");
        tape.backward(&value, &mut gradients).expect("a scalar");
        // Losses of about four, known to 1e-6, over a step of 2 * 0.01; third derivatives are small.
        const STEP: f32 = 0.01;
        let mut largest = 0.0_f64;
        for at in 0..model.parameters().len() {
            let gradient = gradients.tensors()[at].to_vec_f32().expect("fits");
            let values = model.parameters()[at].value.to_vec_f32().expect("fits");
            for i in [0, values.len() / 2, values.len() - 1] {
                let [above, below] = [STEP, -STEP].map(|step| {
                    let mut moved = values.clone();
                    moved[i] += step;
                    set(&mut model, at, &moved);
                    let mut tape = Tape::inference(model.device(), Precision::F32);
                    let loss = loss(&model, &mut tape);
                    f64::from(loss.value().to_vec_f32().expect("a scalar")[0])
                });
                let slope = (above - below) / f64::from(2.0 * STEP);
                let error = (slope - f64::from(gradient[i])).abs();
                assert!(error <= 1e-3, "{at}[{i}]: {slope}, not {}", gradient[i]);
                largest = largest.max(slope.abs());
            }
            set(&mut model, at, &values);
        }
        assert!(largest > 0.02, "the check sees gradients: {largest}");
    }
}

fn set(model: &mut LladaModel, at: usize, values: &[f32]) {
    let device = model.device().clone();
    let parameter = &mut model.parameters_mut()[at];
    let shape = parameter.value.shape().to_vec();
    parameter.value = Tensor::from_f32(&device, &shape, values).expect("fits");
}

#[test]
fn adapters_have_the_names_and_shapes_of_peft() {
    let model = model(&["q_proj", "ff_out"]);
    let found: Vec<_> = model
        .parameters()
        .iter()
        .map(|p| (p.name.as_str(), p.value.shape()))
        .collect();
    let name =
        |layer, rest: &str| format!("base_model.model.model.transformer.blocks.{layer}.{rest}");
    let mut expected = BTreeSet::new();
    for layer in 0..2 {
        for (rest, shape) in [
            ("q_proj.lora_A.weight", [2, 16]),
            ("q_proj.lora_B.weight", [16, 2]),
            ("ff_out.lora_A.weight", [2, 24]),
            ("ff_out.lora_B.weight", [16, 2]),
        ] {
            expected.insert((name(layer, rest), shape.to_vec()));
        }
    }
    let found: BTreeSet<_> = found
        .iter()
        .map(|(n, s)| ((*n).to_owned(), s.to_vec()))
        .collect();
    assert_eq!(found, expected);
    let files = model.export().expect("fits");
    assert_eq!(files[1].file, "adapter/adapter_model.safetensors");
    assert_eq!(files[1].tensors.len(), 8);
}

#[test]
fn the_adapter_has_a_folder_of_its_own_and_old_files_are_moved_there() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| dir.path().join(name);
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::write(at(name), "old").expect("writable");
    }
    let config = config(&["q_proj", "ff_out"]);
    config
        .save(dir.path(), Some("a/b"), Some("v2"))
        .expect("writable");
    assert!(!at("adapter_config.json").exists() && !at("adapter_model.safetensors").exists());
    let read = |name: &str| std::fs::read_to_string(at(name)).expect("written");
    assert_eq!(read("adapter/adapter_model.safetensors"), "old");
    let json: serde_json::Value =
        serde_json::from_str(&read("adapter/adapter_config.json")).expect("JSON");
    assert_eq!(json["base_model_name_or_path"], "a/b");
    assert_eq!(json["revision"], "v2");
    // Of the head, whose name is ff_out too, nothing is adapted.
    assert_eq!(json["target_modules"], r".*\.blocks\.\d+\.(q_proj|ff_out)");
}

#[test]
fn a_wrong_configuration_names_the_key() {
    let check = |config: LoraConfig, expected: &str| {
        let error = config.check().expect_err("wrong").to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(
        LoraConfig {
            rank: 0,
            ..config(&["q_proj"])
        },
        "lora.rank: 0",
    );
    check(
        LoraConfig {
            alpha: f64::NAN,
            ..config(&["q_proj"])
        },
        "lora.alpha: NaN",
    );
    check(config(&[]), "lora.targets: []");
    check(
        config(&["wte"]),
        "lora.targets: wte is not supported, expected some of q_proj",
    );
}

/// With adapters and without.
#[test]
fn activation_checkpointing_changes_no_bit() {
    let adapted = model(&TARGETS);
    let (config, device) = (adapted.config().clone(), adapted.device().clone());
    let plain = LladaModel::random(config, &device, Precision::F32, 5).expect("valid");
    for model in [adapted, plain] {
        let run = |model: &LladaModel| {
            let values = model.parameters().iter().map(|p| &p.value);
            let mut gradients = Gradients::zeros_like(values).expect("fits");
            let mut tape = Tape::recording(&device, Precision::F32);
            let loss = loss(model, &mut tape);
            let mut order = Vec::new();
            let mut on_final = |index, _: &Gradients| {
                order.push(index);
                Ok(())
            };
            tape.backward_with(&loss, &mut gradients, &mut on_final)
                .expect("a scalar");
            order.sort_unstable();
            let bits = |x: &Tensor| {
                x.to_vec_f32()
                    .expect("fits")
                    .iter()
                    .map(|x| x + 0.0)
                    .collect()
            };
            let bits: Vec<Vec<f32>> = gradients.tensors().iter().map(bits).collect();
            (loss.value().to_vec_f32().expect("fits"), bits, order)
        };
        let kept = run(&model);
        let (loss, gradients, order) = run(&model.checkpoint_activations(true));
        assert_eq!(loss, kept.0);
        assert_eq!(gradients, kept.1);
        assert_eq!(order, kept.2, "each parameter is named once");
        assert!(gradients.iter().flatten().any(|&x| x != 0.0));
    }
}
