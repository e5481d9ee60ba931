//! Every kind of model, converted to every type, against the model that is converted on load.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use llada::tensor::DType;
use llada::text::Message;
use llada::{
    Checkpoint, CpuConfig, Device, Gguf, GgufType, LladaModel, ModelConfig, ModelSource, Overrides,
    Precision, Tokenizer,
};
use tempfile::TempDir;

const PRECISIONS: [Precision; 4] = [
    Precision::F32,
    Precision::Bf16,
    Precision::Int8,
    Precision::Int4,
];
const TYPES: [GgufType; 5] = [
    GgufType::F32,
    GgufType::F16,
    GgufType::Bf16,
    GgufType::Q8_0,
    GgufType::Q4_0,
];

fn device() -> Device {
    let config = CpuConfig {
        threads: 1,
        level: None,
    };
    Device::cpu(config).unwrap()
}

fn recorded(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(path)
}

/// What a training run leaves.
fn run_folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::character_level(["春眠不觉晓处处闻啼鸟"].into_iter(), 1).unwrap();
    tokenizer.save(dir.path()).unwrap();
    let config = serde_json::json!({
        "d_model": 16, "n_heads": 2, "n_layers": 2, "mlp_hidden_size": 40,
        "vocab_size": tokenizer.vocab_size(), "max_sequence_length": 32,
        "mask_token_id": 0, "eos_token_id": 1,
    });
    let config = ModelConfig::from_json(config.to_string().as_bytes(), Path::new("config.json"));
    let model = LladaModel::random(config.unwrap(), &device(), Precision::F32, 7).unwrap();
    llada::model::weights::save(&model, dir.path(), DType::F32).unwrap();
    dir
}

/// The tokens of an answer.
fn tokens(checkpoint: &Checkpoint, precision: Precision, prompt: &str) -> Vec<u32> {
    let overrides = Overrides {
        gen_length: Some(8),
        ..Overrides::default()
    };
    let llada = checkpoint.frozen(&device(), precision).unwrap();
    llada.generate(prompt, &overrides).unwrap().output.tokens
}

fn rendered(checkpoint: &Checkpoint) -> Option<String> {
    let template = checkpoint.template().ok()?;
    Some(template.render(&[Message::user(" hi ")], true).unwrap())
}

fn folder(from: &Checkpoint, to: &Path, precision: Precision) -> Checkpoint {
    from.convert(to, precision, &device(), &mut |_, _| {})
        .unwrap();
    Checkpoint::open(to).unwrap()
}

fn gguf(from: &Checkpoint, to: &Path, kind: GgufType) -> Checkpoint {
    from.convert_to_gguf(to, kind, &mut |_, _| {}).unwrap();
    Checkpoint::open(to).unwrap()
}

/// The values of all parameters of a file.
fn values(path: &Path) -> Vec<Vec<f32>> {
    let file = Gguf::open(path).unwrap();
    let names = file.config().parameter_shapes().into_iter();
    names.map(|(name, _)| file.values(&name).unwrap()).collect()
}

#[track_caller]
fn check(source: &Checkpoint, prompt: &str) {
    let dir = tempfile::tempdir().unwrap();
    let expected = source.tokenizer().unwrap();
    for precision in PRECISIONS {
        let name = precision.name();
        let converted = folder(source, &dir.path().join(name), precision);
        assert_eq!(
            tokens(&converted, precision, prompt),
            tokens(source, precision, prompt),
            "{name}"
        );
        if precision.is_integer() {
            assert_eq!(converted.config().default_precision(), precision);
        }
        assert_eq!(converted.tokenizer().unwrap().to_json(), expected.to_json());
        assert_eq!(rendered(&converted), rendered(source), "{name}");
    }
    for kind in TYPES {
        let name = kind.name();
        let path = dir.path().join(format!("{name}.gguf"));
        let written = gguf(source, &path, kind);
        if kind == GgufType::F32 {
            for precision in PRECISIONS {
                let expected = tokens(source, precision, prompt);
                assert_eq!(tokens(&written, precision, prompt), expected);
            }
        }
        assert_eq!(written.tokenizer().unwrap().to_json(), expected.to_json());
        assert_eq!(rendered(&written), rendered(source), "{name}");
        // And to a folder and to another file, without a loss.
        let again = folder(
            &written,
            &dir.path().join(format!("of-{name}")),
            Precision::F32,
        );
        let answer = tokens(&written, Precision::F32, prompt);
        assert_eq!(tokens(&again, Precision::F32, prompt), answer, "{name}");
        assert_eq!(rendered(&again), rendered(source), "{name}");
        let path_again = dir.path().join(format!("again-{name}.gguf"));
        gguf(&again, &path_again, GgufType::F32);
        assert_eq!(values(&path_again), values(&path), "{name}");
    }
}

#[test]
fn a_folder_converts_to_everything() {
    for name in ["mha-f32", "gqa-qkvbias-bf16"] {
        let source = Checkpoint::open(&recorded("goldens/models").join(name)).unwrap();
        check(&source, "Lily can run 12 kilometers");
    }
}

#[test]
fn a_gguf_file_converts_to_everything() {
    let source = Checkpoint::open(&recorded("gguf/float-f32.gguf")).unwrap();
    check(&source, "Lily can run");
}

#[test]
fn the_embedded_model_converts_to_everything() {
    check(&Checkpoint::embedded().unwrap(), "床前明月光，");
}

#[test]
fn a_run_folder_converts_to_everything() {
    let run = run_folder();
    check(&Checkpoint::open(run.path()).unwrap(), "春眠");
}

/// Vectors are f32, and rows that are no multiple of 32 f16, as in llama.cpp.
#[test]
fn types_in_a_file_are_those_of_llama_cpp() {
    let run = run_folder();
    let source = Checkpoint::open(run.path()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/q8.GGUF");
    // Rows of 16 and 40: nothing is a whole block.
    gguf(&source, &path, GgufType::Q8_0);
    let types = Gguf::open(&path).unwrap().tensor_types();
    assert_eq!(types, BTreeMap::from([("F16", 16), ("F32", 5)]));
    let source = Checkpoint::open(&recorded("goldens/models/mha-f32")).unwrap();
    for kind in ["Q8_0", "Q4_0"] {
        let path = dir.path().join(kind);
        let asked = TYPES.into_iter().find(|x| x.name() == kind).unwrap();
        gguf(&source, &path, asked);
        // `ffn_down` of three layers has rows of 176.
        let types = Gguf::open(&path).unwrap().tensor_types();
        assert_eq!(types, BTreeMap::from([("F16", 3), ("F32", 7), (kind, 20)]));
    }
}

#[test]
fn what_is_there_is_kept() {
    let run = run_folder();
    let source = Checkpoint::open(run.path()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    fs::write(&path, "mine").unwrap();
    let error = source.convert_to_gguf(&path, GgufType::F32, &mut |_, _| {});
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("model.gguf holds a model already"),
        "{error}"
    );
    assert_eq!(fs::read(&path).unwrap(), b"mine");
}

/// Values that are beyond f16 are told, and nothing is left behind.
#[test]
fn a_value_that_a_type_cannot_hold_is_an_error() {
    let config = ModelConfig::from_json(
        br#"{"d_model": 4, "n_heads": 1, "n_layers": 1, "mlp_hidden_size": 4, "vocab_size": 4,
            "mask_token_id": 0, "eos_token_id": 1, "include_bias": false}"#,
        Path::new("config.json"),
    );
    let dir = tempfile::tempdir().unwrap();
    let model = LladaModel::random(config.unwrap(), &device(), Precision::F32, 7).unwrap();
    llada::model::weights::save(&model, dir.path(), DType::F32).unwrap();
    let weights = dir.path().join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&1e6_f32.to_le_bytes());
    fs::write(&weights, bytes).unwrap();
    // It has no tokenizer, which weights can do without.
    let source = Checkpoint::open(dir.path()).unwrap();
    let path = dir.path().join("f16.gguf");
    let error = source.convert_to_gguf(&path, GgufType::F16, &mut |_, _| {});
    let error = error.unwrap_err().to_string();
    for part in ["model.safetensors", "tensor model.", "F16", "bf16"] {
        assert!(error.contains(part), "no {part} in {error}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    let path = dir.path().join("bf16.gguf");
    gguf(&source, &path, GgufType::Bf16);
    let missing = Checkpoint::open(&path).unwrap().tokenizer().unwrap_err();
    assert!(missing.to_string().contains("tokenizer.ggml"), "{missing}");
    folder(
        &Checkpoint::open(&path).unwrap(),
        &dir.path().join("f"),
        Precision::F32,
    );
}

/// What lies beside the weights goes along; classes of code that is not there are left out.
#[test]
fn a_folder_takes_along_what_readers_need() {
    let from = tempfile::tempdir().unwrap();
    let golden = recorded("goldens/models/mha-f32");
    for entry in fs::read_dir(golden).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, from.path().join(path.file_name().unwrap())).unwrap();
    }
    let config = from.path().join("config.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    json["auto_map"] = serde_json::json!({ "AutoConfig": "configuration_llada.LLaDAConfig" });
    fs::write(&config, json.to_string()).unwrap();
    let others = [
        "added_tokens.json",
        "chat_template.jinja",
        "additional_chat_templates/a.jinja",
    ];
    fs::create_dir(from.path().join("additional_chat_templates")).unwrap();
    for name in others {
        fs::write(from.path().join(name), "{}").unwrap();
    }
    fs::write(from.path().join("pytorch_model.bin.index.json"), "{}").unwrap();
    let source = Checkpoint::open(from.path()).unwrap();
    let to = tempfile::tempdir().unwrap();
    let code = "configuration_llada.py";
    for has_code in [false, true] {
        if has_code {
            fs::write(from.path().join(code), "class LLaDAConfig: ...").unwrap();
        }
        let target = to.path().join(has_code.to_string());
        let converted = folder(&source, &target, Precision::Bf16);
        assert_eq!(converted.config().other.contains_key("auto_map"), has_code);
        assert_eq!(target.join(code).exists(), has_code);
        let names = [
            "generation_config.json",
            "special_tokens_map.json",
            "tokenizer_config.json",
        ];
        for name in names.iter().chain(&others) {
            let copied = fs::read(target.join(name)).unwrap();
            assert_eq!(copied, fs::read(from.path().join(name)).unwrap(), "{name}");
        }
        assert!(!target.join("pytorch_model.bin.index.json").exists());
    }
}

/// A folder made of a file has the fields without which the reference's code is another model.
#[test]
fn a_folder_of_a_file_says_its_architecture() {
    let dir = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(&recorded("gguf/float-f32.gguf")).unwrap();
    folder(&source, dir.path(), Precision::F32);
    let read = |name| -> serde_json::Value {
        serde_json::from_slice(&fs::read(dir.path().join(name)).unwrap()).unwrap()
    };
    let config = read("config.json");
    for (field, value) in [
        ("block_type", "llama"),
        ("layer_norm_type", "rms"),
        ("activation_type", "silu"),
    ] {
        assert_eq!(config[field], value);
    }
    assert_eq!(config["rope"], true);
    let settings = read("tokenizer_config.json");
    assert_eq!(settings["bos_token"], "<|startoftext|>");
    assert_eq!(settings["tokenizer_class"], "PreTrainedTokenizerFast");
    assert!(settings["chat_template"].is_string());
    let source = ModelSource::open(dir.path()).unwrap();
    assert!(source.frozen(&device(), Precision::F32).is_ok());
}
