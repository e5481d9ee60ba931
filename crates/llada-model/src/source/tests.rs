//! Tests of loading.

use std::collections::BTreeMap;
use std::fs;

use llada_diffusion::Trainable as _;
use llada_tensor::DType;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::json;

use super::*;
use crate::tests::{device, logit_bits, model};
use crate::weights::save;

const IDS: [u32; 5] = [5, 0, 3, 10, 0];

/// Type, shape and bytes of tensors by their names.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// A folder with a saved model.
fn saved(model: &LladaModel, dtype: DType) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    save(model, folder.path(), dtype).expect("writable");
    folder
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    fs::read(folder.join(name)).expect("was written")
}

fn tensors(bytes: &[u8]) -> Tensors {
    let file = SafeTensors::deserialize(bytes).expect("valid");
    let part = |(name, x): (String, TensorView<'_>)| {
        (name, (x.dtype(), x.shape().to_vec(), x.data().to_vec()))
    };
    file.tensors().into_iter().map(part).collect()
}

fn serialized(tensors: &Tensors) -> Vec<u8> {
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        let view = TensorView::new(*dtype, shape.clone(), data).expect("fits");
        (name.clone(), view)
    });
    safetensors::serialize(views, None).expect("fits")
}

#[track_caller]
fn check_same(source: &ModelSource, model: &LladaModel) {
    let expected = logit_bits(model, &[&IDS]);
    let frozen = source.frozen(&device(), Precision::F32).expect("fits");
    assert_eq!(logit_bits(&frozen, &[&IDS]), expected);
    let trainable = source.trainable(&device(), Precision::F32).expect("fits");
    assert_eq!(logit_bits(&trainable, &[&IDS]), expected);
    assert_eq!(source.config(), model.config());
}

#[test]
fn a_saved_model_gives_the_same_logits_from_a_folder_and_from_bytes() {
    for fields in [
        json!({}),
        json!({"weight_tying": true}),
        json!({"include_bias": true, "causal": true}),
    ] {
        let model = model(&fields);
        let folder = saved(&model, DType::F32);
        let folder = folder.path();
        check_same(&ModelSource::open(folder).expect("a model"), &model);
        let config = read(folder, "config.json");
        let source = ModelSource::from_bytes(&config, read(folder, "model.safetensors"));
        check_same(&source.expect("a model"), &model);
    }
}

#[test]
fn a_model_that_was_saved_in_bf16_has_rounded_values() {
    let model = model(&json!({}));
    let folder = saved(&model, DType::Bf16);
    let source = ModelSource::open(folder.path()).expect("a model");
    let loaded = source.trainable(&device(), Precision::F32).expect("fits");
    for (loaded, p) in loaded.parameters().iter().zip(model.parameters()) {
        let round = |x: f32| half::bf16::from_f32(x).to_f32();
        let expected: Vec<f32> = p
            .value
            .f32s()
            .expect("f32")
            .iter()
            .copied()
            .map(round)
            .collect();
        assert_eq!(loaded.value.f32s().expect("f32"), expected, "{}", p.name);
    }
    // Saving what was loaded changes nothing more.
    check_same(&source, &loaded);
}

/// Puts every other tensor of a saved model into one of two shards.
fn shard(folder: &Path) {
    let all = tensors(&read(folder, "model.safetensors"));
    fs::remove_file(folder.join("model.safetensors")).expect("was written");
    let files = [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ];
    let mut shards = [Tensors::new(), Tensors::new()];
    let mut index = BTreeMap::new();
    for (at, (name, tensor)) in all.into_iter().enumerate() {
        index.insert(name.clone(), files[at % 2]);
        shards[at % 2].insert(name, tensor);
    }
    for (file, shard) in files.iter().zip(&shards) {
        fs::write(folder.join(file), serialized(shard)).expect("writable");
    }
    write_index(folder, &json!(index));
}

fn write_index(folder: &Path, weight_map: &serde_json::Value) {
    let index = json!({"weight_map": weight_map}).to_string();
    fs::write(folder.join("model.safetensors.index.json"), index).expect("writable");
}

#[test]
fn shards_are_one_model() {
    let model = model(&json!({"include_qkv_bias": true}));
    let folder = saved(&model, DType::F32);
    shard(folder.path());
    check_same(&ModelSource::open(folder.path()).expect("a model"), &model);
}

/// The error of a saved model whose files were changed; of all its sources, after the folder.
#[track_caller]
fn check_folder(change: impl FnOnce(&Path), expected: &str) {
    let folder = saved(&model(&json!({})), DType::F32);
    let folder = folder.path();
    change(folder);
    let error = ModelSource::open(folder).expect_err(expected).to_string();
    let place = format!("{}/", folder.display());
    let error = error.replace(&place, "");
    assert_eq!(error.replace(&*folder.to_string_lossy(), "."), expected);
}

#[test]
fn files_that_are_no_model_are_named() {
    let needed = "expected config.json and model.safetensors (or model.safetensors.index.json)";
    let remove = |name: &'static str| {
        move |folder: &Path| fs::remove_file(folder.join(name)).expect("was written")
    };
    check_folder(
        remove("config.json"),
        &format!(". holds no config.json; {needed}"),
    );
    check_folder(
        remove("model.safetensors"),
        &format!(". holds no model.safetensors; {needed}"),
    );
    let outside = |folder: &Path| {
        fs::remove_file(folder.join("model.safetensors")).expect("was written");
        write_index(folder, &json!({"x": "../x.safetensors"}));
    };
    check_folder(
        outside,
        "model.safetensors.index.json: the shard \"../x.safetensors\" is no safetensors file of \
         this folder",
    );
    let twice = |folder: &Path| {
        let bytes = read(folder, "model.safetensors");
        let tensors = tensors(&bytes);
        let ln_f = "model.transformer.ln_f.weight";
        let one = BTreeMap::from([(ln_f.to_owned(), tensors[ln_f].clone())]);
        fs::write(folder.join("more.safetensors"), serialized(&one)).expect("writable");
        let map = json!({"a": "model.safetensors", "b": "more.safetensors"});
        write_index(folder, &map);
    };
    check_folder(
        twice,
        "tensor model.transformer.ln_f.weight is in model.safetensors and in more.safetensors",
    );
    let cut = |folder: &Path| {
        let bytes = read(folder, "model.safetensors");
        let half = &bytes[..bytes.len() / 2];
        fs::write(folder.join("model.safetensors"), half).expect("writable");
    };
    check_folder(
        cut,
        "model.safetensors is not a valid safetensors file (truncated or damaged?)",
    );
}

/// The error of a model in memory whose tensors were changed.
#[track_caller]
fn check(change: impl FnOnce(&mut Tensors), expected: &str) {
    let folder = saved(&model(&json!({})), DType::F32);
    let mut tensors = tensors(&read(folder.path(), "model.safetensors"));
    change(&mut tensors);
    let config = read(folder.path(), "config.json");
    let error = ModelSource::from_bytes(&config, serialized(&tensors))
        .and_then(|source| source.frozen(&device(), Precision::F32))
        .expect_err(expected);
    assert_eq!(error.to_string(), expected);
}

const K_PROJ: &str = "model.transformer.blocks.1.k_proj.weight";

#[test]
fn a_wrong_tensor_is_one_error_that_names_it() {
    let edit = |tensors: &mut Tensors| tensors.remove(K_PROJ).expect("a tensor");
    check(
        |tensors| drop(edit(tensors)),
        &format!("tensor {K_PROJ} is missing from model.safetensors"),
    );
    let set = |tensors: &mut Tensors, tensor| tensors.insert(K_PROJ.to_owned(), tensor);
    check(
        |tensors| {
            let (dtype, _, data) = edit(tensors);
            set(tensors, (dtype, vec![16, 8], data));
        },
        &format!(
            "tensor {K_PROJ} of model.safetensors has shape [16, 8], config.json needs [8, 16]"
        ),
    );
    check(
        |tensors| {
            let (_, shape, data) = edit(tensors);
            set(tensors, (Dtype::I32, shape, data));
        },
        &format!("tensor {K_PROJ} of model.safetensors has dtype I32, expected F32, F16 or BF16"),
    );
    check(
        |tensors| {
            let (dtype, shape, mut data) = edit(tensors);
            data[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
            set(tensors, (dtype, shape, data));
        },
        &format!("tensor {K_PROJ} of model.safetensors holds a value that is not finite"),
    );
    check(
        |tensors| {
            let tensor = edit(tensors);
            set(tensors, tensor.clone());
            tensors.insert("lm_head.weight".to_owned(), tensor);
        },
        "tensor lm_head.weight of model.safetensors does not belong to the model that config.json \
         describes",
    );
}

fn put(folder: &Path, name: &str, tensors: &Tensors) {
    fs::write(folder.join(name), serialized(tensors)).expect("writable");
}

/// Tensors of a saved model after a change, in a folder of their own.
fn changed(fields: &serde_json::Value, change: impl FnOnce(&mut Tensors)) -> tempfile::TempDir {
    let folder = saved(&model(fields), DType::F32);
    let mut all = tensors(&read(folder.path(), "model.safetensors"));
    change(&mut all);
    put(folder.path(), "model.safetensors", &all);
    folder
}

#[test]
fn the_single_file_comes_before_an_index_that_was_left() {
    let fields = json!({"include_qkv_bias": true});
    let folder = saved(&model(&fields), DType::F32);
    let folder = folder.path();
    let new = read(folder, "model.safetensors");
    shard(folder);
    fs::write(folder.join("model.safetensors"), &new).expect("writable");
    // Shards that are not looked at.
    fs::write(folder.join("model-00002-of-00002.safetensors"), b"old").expect("writable");
    let source = ModelSource::open(folder).expect("a model");
    check_same(&source, &model(&fields));
    let [warning] = source.warnings() else {
        panic!("{:?}", source.warnings())
    };
    for name in ["model.safetensors is taken", "model.safetensors.index.json"] {
        assert!(warning.contains(name), "{warning}");
    }
    fs::write(folder.join("model.safetensors.index.json"), "{").expect("writable");
    check_same(
        &ModelSource::open(folder).expect("a model"),
        &model(&fields),
    );
}

#[test]
fn names_that_another_program_has_begun_are_read() {
    for prefix in ["_orig_mod.", "module.", "base_model.model."] {
        let folder = changed(&json!({}), |all| {
            let renamed = all
                .iter()
                .map(|(name, x)| (format!("{prefix}{name}"), x.clone()));
            *all = renamed.collect();
        });
        let source = ModelSource::open(folder.path()).expect(prefix);
        check_same(&source, &model(&json!({})));
    }
}

#[test]
fn a_missing_tensor_shows_the_names_that_are_like_it() {
    check(
        |tensors| {
            let tensor = tensors.remove(K_PROJ).expect("a tensor");
            tensors.insert("model.layers.1.k_proj.weight".to_owned(), tensor);
        },
        &format!(
            "tensor {K_PROJ} is missing from model.safetensors; similar names are there: \
             model.layers.1.k_proj.weight"
        ),
    );
}

#[test]
fn a_tied_tensor_has_either_name_or_both() {
    const WTE: &str = "model.transformer.wte.weight";
    const HEAD: &str = "model.transformer.ff_out.weight";
    let tied = json!({"weight_tying": true});
    let expected = model(&tied);
    let folder = changed(&tied, |all| {
        let tensor = all.remove(WTE).expect("a tensor");
        all.insert(HEAD.to_owned(), tensor);
    });
    check_same(
        &ModelSource::open(folder.path()).expect("a model"),
        &expected,
    );
    let both = |all: &mut Tensors| drop(all.insert(HEAD.to_owned(), all[WTE].clone()));
    let folder = changed(&tied, both);
    check_same(
        &ModelSource::open(folder.path()).expect("a model"),
        &expected,
    );
    let folder = changed(&tied, |all| {
        both(all);
        all.get_mut(HEAD).expect("a tensor").2[40] ^= 1;
    });
    let error = ModelSource::open(folder.path())
        .expect_err("they differ")
        .to_string();
    for part in ["weight_tying", WTE, HEAD] {
        assert!(error.contains(part), "{error}");
    }
    let folder = changed(&json!({}), |all| drop(all.remove(HEAD)));
    let error = ModelSource::open(folder.path())
        .expect_err("none is tied")
        .to_string();
    assert!(error.contains(HEAD), "{error}");
}

#[test]
fn all_tokens_that_end_an_answer_are_known() {
    let folder = saved(&model(&json!({"eos_token_id": [1, 4]})), DType::F32);
    let folder = folder.path();
    let ends = || {
        let source = ModelSource::open(folder).expect("a model");
        source.further_eos_token_ids().to_vec()
    };
    assert_eq!(ends(), [4]);
    let write = |text: &str| fs::write(folder.join("generation_config.json"), text);
    write(r#"{"eos_token_id": [5, 1, 4, 99]}"#).expect("writable");
    assert_eq!(ends(), [4, 5]);
    write(r#"{"eos_token_id": 6}"#).expect("writable");
    assert_eq!(ends(), [4, 6]);
    write(r#"{"max_new_tokens": 6}"#).expect("writable");
    assert_eq!(ends(), [4]);
    write("<!doctype html>").expect("writable");
    let error = ModelSource::open(folder).expect_err("a page").to_string();
    assert!(
        error.contains("generation_config.json is a web page"),
        "{error}"
    );
}

#[test]
fn what_a_folder_holds_in_place_of_weights_is_named() {
    let needed = "expected config.json and model.safetensors (or model.safetensors.index.json)";
    let check = |name: &'static str, hint: &str| {
        let instead = |folder: &Path| {
            fs::remove_file(folder.join("model.safetensors")).expect("was written");
            fs::write(folder.join(name), b"x").expect("writable");
        };
        let hint = format!(". holds no model.safetensors; {needed}; {name} is {hint}");
        check_folder(instead, &hint);
    };
    check(
        "pytorch_model.bin",
        "a Python pickle, as PyTorch saves them: load it in PyTorch and save it again as \
         safetensors (save_pretrained)",
    );
    check(
        "model.safetensors.incomplete",
        "a download that broke off: fetch it again",
    );
    check("m.gguf", "a GGUF file: give the file itself as the model");
    check(
        "consolidated.safetensors",
        "weights under a name that is not looked for: rename it if it is the whole model, or \
         fetch the index of the shards",
    );
    let error = ModelSource::open(Path::new("./nowhere"))
        .expect_err("nothing")
        .to_string();
    assert!(error.starts_with("./nowhere does not exist"), "{error}");
}
