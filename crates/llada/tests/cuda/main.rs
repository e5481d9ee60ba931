//! Model, sampler and trainer on a CUDA device against the scalar code of the CPU.
//!
//! The device is the software one of `ptxsim`, or a GPU in a build with `--cfg real_gpu`.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use llada::diffusion::{MaskPredictor as _, Query, TokenBatch, Trainable as _};
use llada::model::LoraConfig;
use llada::sample::{CacheMode, Process, Remasking, Request, SampleConfig, sample};
use llada::train::{Optimizer, TrainConfig, train_step};
use llada::{
    CpuConfig, CpuLevel, Device, FrozenModel, LladaModel, ModelConfig, ModelSource, Precision,
};

fn cpu() -> Device {
    let level = Some(CpuLevel::Scalar);
    Device::cpu(CpuConfig { threads: 1, level }).unwrap()
}

fn cuda() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    let config = llada::CudaConfig::from_variables(std::env::var_os);
    DEVICE
        .get_or_init(|| llada::cuda_device(0, config).unwrap())
        .clone()
}

/// A model with grouped heads and biases, and one with a tied embedding.
fn models() -> [PathBuf; 2] {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    // On a machine without the sources the folder of cases says where they are.
    let goldens = match std::env::var_os("LLADA_GOLDENS") {
        Some(folder) if !own.exists() => folder.into(),
        _ => own,
    };
    let models = goldens.join("models");
    ["gqa-qkvbias-bf16", "tied-bias-mqa-f32"].map(|name| models.join(name))
}

fn load(dir: &Path, device: &Device, precision: Precision) -> FrozenModel {
    let source = ModelSource::open(dir).unwrap();
    source.frozen(device, precision).unwrap()
}

fn logits(model: &FrozenModel, sequences: &[&[u32]]) -> Vec<f32> {
    let batch = TokenBatch::new(sequences).unwrap();
    let positions: Vec<usize> = (0..batch.n_tokens()).collect();
    model.logits(Query::new(&batch, &positions)).unwrap()
}

fn largest_difference(x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len());
    let difference = |(x, y): (&f32, &f32)| {
        if x.is_nan() || y.is_nan() {
            f32::INFINITY
        } else {
            (x - y).abs()
        }
    };
    x.iter().zip(y).map(difference).fold(0.0, f32::max)
}

const SEQUENCES: [&[u32]; 3] = [
    &[7, 31, 250, 3, 90, 90, 12, 400, 399, 1, 2],
    &[5],
    &[301, 17, 44],
];

/// Within each type both devices round the same operands and differ in the order of sums. Integers
/// differ more: the CPU rounds what is multiplied by a weight to 8 bits as well, CUDA to bf16.
#[test]
fn logits_are_those_of_the_cpu() {
    for dir in models() {
        for (precision, limit) in [
            (Precision::F32, 2e-5),
            (Precision::Bf16, 2e-2),
            (Precision::Int8, 0.1),
            (Precision::Int4, 0.1),
        ] {
            let expected = logits(&load(&dir, &cpu(), precision), &SEQUENCES);
            let got = logits(&load(&dir, &cuda(), precision), &SEQUENCES);
            let largest = expected.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
            let difference = largest_difference(&got, &expected);
            assert!(
                difference <= limit * largest.max(1.0),
                "{}, {precision:?}: {difference:e} of {largest}",
                dir.display()
            );
        }
    }
}

/// The first pass of a shape runs as it is, the second is recorded, later ones are repeated.
#[test]
fn a_recorded_pass_gives_the_bits_of_the_first() {
    let model = load(&models()[0], &cuda(), Precision::F32);
    let of = |ids: &[u32]| {
        let batch = TokenBatch::new(&[ids]).unwrap();
        model.logits(Query::new(&batch, &[1, 4, 5])).unwrap()
    };
    let (a, b) = ([9, 8, 7, 6, 5, 4], [101, 102, 103, 104, 105, 106]);
    let first = [of(&a), of(&[3; 6]), of(&a), of(&b), of(&a)];
    assert_eq!(first[0], first[2]);
    assert_eq!(first[0], first[4]);
    let fresh = load(&models()[0], &cuda(), Precision::F32);
    let batch = TokenBatch::new(&[b]).unwrap();
    assert_eq!(
        first[3],
        fresh.logits(Query::new(&batch, &[1, 4, 5])).unwrap()
    );
    assert!(first[0] != first[3]);
}

/// Tokens of each step, and their confidences.
fn generate(model: &FrozenModel, config: &SampleConfig) -> (Vec<Vec<(usize, u32)>>, Vec<f32>) {
    let prompts: [&[u32]; 2] = [&[7, 31, 250], &[5, 6, 7, 8, 9]];
    let requests: Vec<Request> = prompts
        .iter()
        .map(|prompt| Request::generate(prompt.to_vec(), config.clone()))
        .collect();
    let (mut steps, mut confidences) = (Vec::new(), Vec::new());
    sample(model, &requests, &mut |event| {
        steps.push(
            event
                .revealed
                .iter()
                .map(|x| (x.position, x.token))
                .collect(),
        );
        confidences.extend(event.revealed.iter().map(|x| x.confidence));
        ControlFlow::Continue(())
    })
    .unwrap();
    (steps, confidences)
}

#[test]
fn generations_are_those_of_the_cpu() {
    let dir = &models()[0];
    let (on_cpu, on_cuda) = (
        load(dir, &cpu(), Precision::F32),
        load(dir, &cuda(), Precision::F32),
    );
    let base = SampleConfig {
        gen_length: 12,
        steps: 6,
        block_length: Some(6),
        ..SampleConfig::default()
    };
    for config in [
        // The device takes the steps of these ahead of the host.
        base.clone(),
        SampleConfig {
            temperature: 0.8,
            remasking: Remasking::Margin,
            logits_eos_inf: vec![5],
            seed: 2,
            ..base.clone()
        },
        SampleConfig {
            process: Process::BlockQuota,
            remasking: Remasking::Entropy,
            early_stop: true,
            ..base.clone()
        },
        SampleConfig {
            temperature: 0.8,
            cfg_scale: 0.5,
            seed: 3,
            ..base.clone()
        },
        SampleConfig {
            cache: CacheMode::Dual,
            process: Process::Threshold(0.05),
            ..base.clone()
        },
        SampleConfig {
            cache: CacheMode::Prefix,
            process: Process::Factor(1.5),
            ..base
        },
    ] {
        let (expected, expected_confidences) = generate(&on_cpu, &config);
        let (got, confidences) = generate(&on_cuda, &config);
        assert_eq!(got, expected, "{config:?}");
        let difference = largest_difference(&confidences, &expected_confidences);
        assert!(difference <= 1e-4, "{config:?}: {difference:e}");
    }
}

const TRAINING: &str = r#"
seed = 3
[data]
train = ["unused.txt"]
sequence_length = 16
[model]
d_model = 32
n_layers = 2
n_heads = 2
mlp_hidden_size = 80
[train]
steps = 3
batch_size = 2
learning_rate = 1e-3
warmup_steps = 1
"#;

/// How a model is made ready for its training.
type Prepare = fn(LladaModel) -> LladaModel;

/// Loss and gradient norm of each step, and all parameters at the end.
type Trained = (Vec<[f64; 2]>, Vec<f32>);

/// Of a model with grouped heads and biases.
fn train(device: &Device, precision: &str, prepare: Prepare) -> Trained {
    let source = ModelSource::open(&models()[0]).unwrap();
    let load = |precision| source.trainable(device, precision).unwrap();
    train_model(precision, |precision| prepare(load(precision)))
}

fn train_model(precision: &str, model: impl Fn(Precision) -> LladaModel) -> Trained {
    let text = format!("{TRAINING}precision = \"{precision}\"\n");
    let config = TrainConfig::from_toml(&text, Path::new("train.toml")).unwrap();
    let mut model = model(config.train.precision.into());
    let mut optimizer = Optimizer::new(model.parameters()).unwrap();
    let batch = TokenBatch::new(&[&[7, 31, 250, 3, 90, 12, 400, 9][..], &[5, 301, 17, 44, 2]]);
    let batch = batch.unwrap().into();
    let mut reports = Vec::new();
    for step in 0..3 {
        let report = train_step(&mut model, &mut optimizer, &batch, &config, step).unwrap();
        reports.push([report.loss, report.grad_norm]);
    }
    let values = |p: &llada::diffusion::Parameter| p.value.to_vec_f32().unwrap();
    (
        reports,
        model.parameters().iter().flat_map(values).collect(),
    )
}

#[test]
fn training_steps_are_those_of_the_cpu() {
    // An update is at most about the learning rate, whatever the gradient: where one is nearly
    // zero, its sign may differ.
    let cases: [(&str, f64, f32, Prepare); 3] = [
        ("f32", 1e-5, 1e-3, |model| {
            model.checkpoint_activations(true)
        }),
        ("bf16", 1e-2, 6e-3, |model| model),
        ("f32", 1e-5, 1e-3, with_adapters),
    ];
    for (precision, limit, parameter_limit, prepare) in cases {
        let (expected, expected_parameters) = train(&cpu(), precision, prepare);
        let (got, parameters) = train(&cuda(), precision, prepare);
        for (step, (got, expected)) in got.iter().zip(&expected).enumerate() {
            for (got, expected) in got.iter().zip(expected) {
                let error = (got - expected).abs() / expected;
                assert!(error <= limit, "{precision}, step {step}: {got} {expected}");
            }
        }
        let difference = largest_difference(&parameters, &expected_parameters);
        assert!(difference <= parameter_limit, "{precision}: {difference:e}");
        let mean = |f: &dyn Fn(usize) -> f32| {
            (0..parameters.len()).map(f).sum::<f32>() / parameters.len() as f32
        };
        let apart = mean(&|i| (parameters[i] - expected_parameters[i]).abs());
        assert!(
            apart <= parameter_limit / 50.0,
            "{precision}: {apart:e} in the mean"
        );
    }
}

/// A model without biases, whose heads have kernels for tensors of bf16: there they stay bf16 from
/// one op to the next, which the CPU does not do.
#[test]
fn training_keeps_tensors_in_bf16() {
    let config = serde_json::json!({
        "d_model": 128, "n_heads": 2, "n_kv_heads": 1, "n_layers": 2, "mlp_hidden_size": 93,
        "vocab_size": 512, "mask_token_id": 511, "eos_token_id": 0,
    });
    let config: ModelConfig = serde_json::from_value(config).unwrap();
    let prepares: [(&str, Prepare); 2] = [("all", |model| model), ("adapters", with_adapters)];
    for (name, prepare) in prepares {
        let model = |device: Device, checkpoints| {
            let config = &config;
            move |precision| {
                let model = LladaModel::random(config.clone(), &device, precision, 5).unwrap();
                prepare(model).checkpoint_activations(checkpoints)
            }
        };
        let (expected, expected_parameters) = train_model("bf16", model(cpu(), false));
        let (got, parameters) = train_model("bf16", model(cuda(), false));
        for (got, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
            let error = (got - expected).abs() / expected;
            assert!(error <= 1e-2, "{name}: {got} {expected}");
        }
        let difference = largest_difference(&parameters, &expected_parameters);
        assert!(difference <= 6e-3, "{name}: {difference:e}");
        let again = train_model("bf16", model(cuda(), true));
        let is_same = again == (got, parameters);
        assert!(is_same, "{name}: activation checkpointing changes nothing");
    }
}

/// Adapters of all kinds of matrices; the rest is frozen, the head too.
fn with_adapters(model: LladaModel) -> LladaModel {
    let lora = LoraConfig {
        rank: 3,
        alpha: 6.0,
        targets: llada::model::LORA_TARGETS.map(str::to_owned).to_vec(),
    };
    model.with_lora(&lora, 4).unwrap()
}

#[test]
fn a_device_that_is_not_there_is_an_error() {
    let config = llada::CudaConfig::default();
    let error = llada::cuda_device(99, config).unwrap_err().to_string();
    assert!(
        error.contains("cuda:99") && error.contains("devices"),
        "{error}"
    );
}
