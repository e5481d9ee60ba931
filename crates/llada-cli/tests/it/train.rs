//! `llada train`, from nothing to a model that the other commands load.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

#[cfg(not(feature = "mpi"))]
use crate::fails;
use crate::{json, llada};

/// Writes a training text and its configuration.
pub(crate) fn config(dir: &Path) -> PathBuf {
    let line = "春风花月，秋水山天。\n";
    fs::write(dir.join("text.txt"), line.repeat(20)).expect("a writable folder");
    let path = dir.join("train.toml");
    let toml = r#"
        objective = "diffusion"
        [data]
        train = ["text.txt"]
        tokenizer = "char"
        sequence_length = 16
        [model]
        d_model = 16
        n_layers = 1
        n_heads = 2
        mlp_hidden_size = 32
        [train]
        steps = 10
        batch_size = 2
        learning_rate = 1e-3
        warmup_steps = 2
        checkpoint_every = 5
    "#;
    fs::write(&path, toml).expect("a writable folder");
    path
}

#[test]
fn a_run_trains_resumes_and_loads() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (config, run) = (config(dir.path()), dir.path().join("run"));
    let train = || -> Value {
        let mut command = llada(&["train", "--format", "json", "--config"]);
        let assert = command.arg(&config).arg(&run).assert().success();
        serde_json::from_slice(&assert.get_output().stdout).expect("one JSON object")
    };
    let first = train();
    assert_eq!(
        (first["step"].as_u64(), first["finished"].as_bool()),
        (Some(10), Some(true))
    );
    assert_eq!(train()["resumed_from"], 10);
    let result = json(&run, "infill", &["春□花月，"]);
    assert_eq!(result["outputs"][0]["nfe"], 1);
}

#[cfg(not(feature = "mpi"))]
#[test]
fn one_process_of_several_needs_a_build_with_mpi() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (config, run) = (config(dir.path()), dir.path().join("run"));
    let mut command = llada(&["train", "--config"]);
    command.arg(&config).arg(&run);
    command.env("OMPI_COMM_WORLD_SIZE", "2");
    fails(&mut command, 1, &["MPI is not built in", "--features mpi"]);
    assert!(!run.exists(), "nothing was begun");
    command.env("OMPI_COMM_WORLD_SIZE", "1");
    command.assert().success();
}
