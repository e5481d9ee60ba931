//! What is learned, what is written, and what stops a run.

use std::fs;

use llada_tensor::bf16;
use llada_train::Error;
use safetensors::{Dtype, SafeTensors};

use crate::toy::{config, run_until, write_texts};

const NEVER: u64 = u64::MAX;

#[track_caller]
fn check_learns(objective: &str, at_most: f64) {
    let folder = tempfile::tempdir().unwrap();
    write_texts(folder.path());
    let lines = "steps = 300\nbatch_size = 8\neval_every = 100";
    let config = config(folder.path(), objective, lines);
    let (_, summary, reports) = run_until(&config, &folder.path().join("run"), NEVER).unwrap();
    assert_eq!(reports.len(), 300);
    let bound = summary.validation_bound.unwrap();
    assert!(bound < at_most, "{bound}");
}

#[test]
fn diffusion_reaches_the_entropy_of_single_characters() {
    // Alone in its place, a mask tells nothing but how frequent characters are: about ln 11.
    check_learns("diffusion", 2.45);
}

#[test]
fn autoregression_learns_which_character_follows() {
    // The alphabet is a cycle: all but the end of the document is certain.
    check_learns("autoregressive", 0.9);
}

#[test]
fn exported_model_has_names_shapes_and_rounded_values() {
    let folder = tempfile::tempdir().unwrap();
    write_texts(folder.path());
    for (dtype, expected) in [("f32", Dtype::F32), ("bf16", Dtype::BF16)] {
        let lines = format!("steps = 3\nbatch_size = 4\nexport_dtype = \"{dtype}\"");
        let run = folder.path().join(dtype);
        let (model, ..) =
            run_until(&config(folder.path(), "diffusion", &lines), &run, NEVER).unwrap();
        let bytes = fs::read(run.join("model.safetensors")).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.len(), 4);
        assert_eq!(file.tensor("norm.weight").unwrap().shape(), [8]);
        let wte = file.tensor("wte.weight").unwrap();
        assert_eq!(wte.dtype(), expected);
        let first = f32::from_bits(model.bits()[0]);
        let stored = match expected {
            Dtype::F32 => first.to_le_bytes().to_vec(),
            _ => bf16::from_f32(first).to_le_bytes().to_vec(),
        };
        assert_eq!(wte.data()[..stored.len()], stored);
        for name in ["config.json", "tokenizer.json", "metrics.jsonl", "loss.svg"] {
            assert!(run.join(name).is_file(), "{name}");
        }
    }
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    write_texts(folder.path());
    let run = folder.path().join("run");
    let lines = "steps = 9\nbatch_size = 4\ncheckpoint_every = 2\nwarmup_steps = 1";
    let text = |rate: &str| {
        let mut config = config(folder.path(), "diffusion", lines);
        config.train.learning_rate = rate.parse().unwrap();
        config
    };
    run_until(&text("1e-2"), &run, 2).unwrap();
    let before = fs::read(run.join("model.safetensors")).unwrap();
    let error = run_until(&text("1e30"), &run, NEVER).unwrap_err();
    assert!(matches!(error, Error::NonFinite { step: 4, .. }), "{error}");
    assert_eq!(fs::read(run.join("model.safetensors")).unwrap(), before);
    let (_, summary, _) = run_until(&text("1e-2"), &run, NEVER).unwrap();
    assert_eq!(summary.resumed_from, Some(2));
}

#[test]
fn data_that_the_model_cannot_hold_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    write_texts(folder.path());
    let mut config = config(folder.path(), "diffusion", "steps = 1\nbatch_size = 4");
    config.data.sequence_length = 65;
    let error = run_until(&config, &folder.path().join("run"), NEVER).unwrap_err();
    let expected = "train: the longest sequence of the data is 65, the model has 64";
    assert_eq!(error.to_string(), expected);
}
