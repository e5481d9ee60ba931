//! The binary, run on a tiny random model that the tests make.

#![forbid(unsafe_code)]

mod adapters;
mod bad_input;
mod bench;
mod chat;
mod convert;
mod eval;
mod families;
mod gguf;
#[cfg(feature = "hub")]
mod hub;
mod kept;
mod library;
#[cfg(feature = "mpi")]
mod mpi;
mod replay;
mod results;
mod sft;
mod train;
mod tune;

use std::path::Path;

use assert_cmd::Command;
use llada::tensor::DType;
use llada::{CpuConfig, Device, LladaModel, ModelConfig, Precision, Tokenizer};
use serde_json::Value;
use tempfile::TempDir;

/// What the tokenizer of the tests knows.
const TEXT: &str = "春夏秋冬风花雪月山水日天，。";

/// Tokens that the model of the tests has room for.
const CONTEXT: usize = 24;

/// A folder with a tiny random model.
fn model() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let fold = [('風', '风')].into_iter();
    let tokenizer = Tokenizer::character_level_folding([TEXT].into_iter(), 1, fold, &[]);
    let tokenizer = tokenizer.expect("a text with characters");
    tokenizer.save(dir.path()).expect("a writable folder");
    let config = serde_json::json!({
        "d_model": 16, "n_heads": 2, "n_layers": 1, "mlp_hidden_size": 32,
        "vocab_size": tokenizer.vocab_size(), "max_sequence_length": CONTEXT,
        "mask_token_id": 0, "eos_token_id": 1,
    });
    let config = ModelConfig::from_json(config.to_string().as_bytes(), Path::new("config.json"));
    let config = config.expect("a valid configuration");
    let device = Device::cpu(CpuConfig::default()).expect("a processor");
    let model = LladaModel::random(config, &device, Precision::F32, 7).expect("a model");
    llada::model::weights::save(&model, dir.path(), DType::F32).expect("a writable folder");
    dir
}

fn llada(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llada"));
    command.args(args).env_remove("LLADA_CPU_LEVEL");
    command
}

/// Runs `command --model DIR --format json args` and reads what it prints.
#[track_caller]
fn json(dir: &Path, command: &str, args: &[&str]) -> Value {
    let mut command = llada(&[command]);
    object(
        command
            .arg("--model")
            .arg(dir)
            .args(["--format", "json"])
            .args(args),
    )
}

/// The object that a command prints.
#[track_caller]
fn object(command: &mut Command) -> Value {
    let run = command.assert().success();
    serde_json::from_slice(&run.get_output().stdout).expect("one JSON object")
}

/// Runs a command that must end with `code` and one line that says all of `parts`.
#[track_caller]
fn fails(command: &mut Command, code: i32, parts: &[&str]) {
    let run = command.assert().code(code);
    let message = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
    assert!(run.get_output().stdout.is_empty(), "{message}");
    assert!(message.starts_with("error: "), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    for part in parts {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
}
