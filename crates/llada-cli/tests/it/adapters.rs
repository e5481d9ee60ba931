//! Adapters on a model: those of a fine-tuning run, laid on the model that it began with.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::{fails, json as run, llada, model};

/// Fine-tunes a model with `LoRA`; the adapter lies in `RUN/adapter`.
pub(crate) fn tuned(base: &Path, run: &Path, flags: &[&str]) {
    let folder = run.parent().expect("a folder");
    let pairs = folder.join("pairs.jsonl");
    fs::write(&pairs, r#"{"prompt": "春夏", "completion": "秋冬"}"#).expect("writable");
    let config = folder.join("run.toml");
    let text = "seed = 3\n[data]\ntrain = [\"pairs.jsonl\"]\nsequence_length = 12\n[train]\nsteps = 3\n\
                batch_size = 1\nwarmup_steps = 0\nlearning_rate = 0.05\ndecay_steps = 0\n\
                checkpoint_every = 3\n[lora]\nrank = 2\nalpha = 4.0\n";
    fs::write(&config, text).expect("writable");
    let mut command = llada(&["sft"]);
    command.arg(run).arg("--config").arg(&config);
    command.arg("--model").arg(base).args(flags);
    command.assert().success();
}

fn score(model: &Path, flags: &[&str]) -> Value {
    let flags = [&["--target", "秋冬", "--mc-samples", "4"], flags].concat();
    run(model, "score", &flags)["log_likelihood"].clone()
}

#[track_caller]
fn check_close(got: &Value, expected: &Value) {
    let [got, expected] = [got, expected].map(|x| x.as_f64().expect("a number"));
    // Both are f32 models of the same weights, merged by two products that may round differently.
    assert!(
        (got - expected).abs() <= 1e-4 * expected.abs(),
        "{got}, not {expected}"
    );
}

#[test]
fn the_adapter_of_a_run_is_laid_on_its_base_by_every_command() {
    let base = model();
    let out = tempfile::tempdir().expect("a temporary folder");
    let run_dir = out.path().join("run");
    tuned(base.path(), &run_dir, &[]);
    let adapter = run_dir.join("adapter");
    let name = adapter.to_str().expect("a plain name");
    let merged = score(&run_dir, &[]);
    let plain = score(base.path(), &[]);
    assert_ne!(merged, plain, "training has changed something");
    check_close(&score(base.path(), &["--adapter", name]), &merged);
    let none = format!("{name}:0");
    assert_eq!(score(base.path(), &["--adapter", &none]), plain);
    // The folder itself knows its base.
    check_close(&score(&adapter, &[]), &merged);

    let converted = out.path().join("converted");
    llada(&["convert"])
        .args([base.path(), &converted])
        .args(["--dtype", "f32", "--adapter", name])
        .assert()
        .success();
    check_close(&score(&converted, &[]), &merged);

    // A further run begins with the merged weights, and says of its adapter that no folder has its
    // base.
    let further = out.path().join("further");
    tuned(base.path(), &further, &["--adapter", name]);
    let config = fs::read(further.join("adapter/adapter_config.json")).expect("written");
    let config: Value = serde_json::from_slice(&config).expect("JSON");
    assert_eq!(config["base_model_name_or_path"], json!(null));
    let both = further.join("adapter");
    let both = both.to_str().expect("a plain name");
    let twice = score(base.path(), &["--adapter", name, "--adapter", both]);
    check_close(&twice, &score(&further, &[]));
}

#[test]
fn an_adapter_that_does_not_fit_is_one_error() {
    let base = model();
    let out = tempfile::tempdir().expect("a temporary folder");
    let run_dir = out.path().join("run");
    tuned(base.path(), &run_dir, &[]);
    let adapter = run_dir.join("adapter");
    let generate = |flag: &str| {
        let mut command = llada(&["generate", "春", "--gen-length", "2", "--model"]);
        command.arg(base.path()).args(["--adapter", flag]);
        command
    };
    let name = adapter.to_str().expect("a plain name");
    fails(
        &mut generate("nowhere"),
        1,
        &["nowhere", "adapter_config.json"],
    );
    generate(&format!("{name}:nan")).assert().code(2);
    let path = adapter.join("adapter_config.json");
    let text = fs::read_to_string(&path).expect("written");
    fs::write(&path, text.replace("true", "\"pissa\"")).expect("writable");
    fails(&mut generate(name), 1, &["init_lora_weights", "pissa"]);
    let text = text.replace(&*base.path().to_string_lossy(), "../nowhere");
    fs::write(&path, text).expect("writable");
    let mut alone = llada(&["generate", "春", "--model"]);
    fails(
        alone.arg(&adapter),
        1,
        &["is an adapter", "../nowhere", "--adapter"],
    );
}
