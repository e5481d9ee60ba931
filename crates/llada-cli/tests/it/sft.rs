//! `llada sft`, from a tiny model to one that the other commands load.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{fails, json, llada, model};

const PAIRS: &str = r#"{"prompt": "春夏", "completion": "秋冬"}
{"messages": [{"role": "user", "content": "风"}, {"role": "assistant", "content": "花雪月"}]}
{"conversations": [{"from": "human", "value": "山"}, {"from": "gpt", "value": "水。"}, {"from": "human", "value": "日"}, {"from": "gpt", "value": "天"}]}
{"prompt": "春夏秋冬春夏秋冬", "completion": "秋冬春夏秋冬春夏"}
"#;

/// Writes the pairs and a configuration with more lines.
fn config(dir: &Path, steps: u64, lines: &str) -> PathBuf {
    fs::write(dir.join("pairs.jsonl"), PAIRS).expect("a writable folder");
    let path = dir.join(format!("sft-{steps}.toml"));
    let toml = format!(
        "seed = 3\n[data]\ntrain = [\"pairs.jsonl\"]\nvalidation = [\"pairs.jsonl\"]\n\
         sequence_length = 12\n[train]\nsteps = {steps}\nbatch_size = 3\nwarmup_steps = 2\n\
         learning_rate = 1e-2\ndecay_steps = 0\ncheckpoint_every = 4\n{lines}"
    );
    fs::write(&path, toml).expect("a writable folder");
    path
}

/// Fine-tunes `base`; what was printed on standard error comes with the result.
#[track_caller]
fn sft(base: &Path, config: &Path, run: &Path) -> (Value, String) {
    let mut command = llada(&["sft", "--format", "json", "--threads", "1", "--config"]);
    let command = command.arg(config).arg(run).arg("--model").arg(base);
    let output = command.assert().success().get_output().clone();
    let result = serde_json::from_slice(&output.stdout).expect("one JSON object");
    (result, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[track_caller]
fn check(lines: &str, files: &[&str]) {
    let base = model();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| dir.path().join(name);
    let (short, long) = (config(dir.path(), 6, lines), config(dir.path(), 10, lines));
    let (first, notes) = sft(base.path(), &short, &at("run"));
    assert_eq!(
        (first["step"].as_u64(), &first["finished"]),
        (Some(6), &true.into())
    );
    assert!(first["validation_bound"].as_f64().expect("a bound") > 0.0);
    assert!(
        notes.contains("pairs.jsonl: too long and left out: 1 of 5 pairs"),
        "{notes}"
    );

    // Going on with more steps gives the bits of a run that was never stopped.
    assert_eq!(sft(base.path(), &long, &at("run")).0["resumed_from"], 6);
    sft(base.path(), &long, &at("straight"));
    for file in files {
        let [a, b] = ["run", "straight"].map(|run| fs::read(at(run).join(file)).expect("written"));
        assert!(a == b, "{file} differs");
    }

    let args = ["春夏", "--gen-length", "4"];
    let [before, after] = [base.path(), &at("run")].map(|dir| {
        let result = json(dir, "score", &["--prompt", "春夏", "--target", "秋冬"]);
        result["log_likelihood"].as_f64().expect("a number")
    });
    assert!(after > before, "{after} is no better than {before}");
    assert_eq!(
        json(&at("run"), "generate", &args)["outputs"][0]["steps"],
        4
    );
}

#[test]
fn a_model_is_fine_tuned_resumed_and_loaded() {
    check("", &["model.safetensors", "config.json", "tokenizer.json"]);
}

#[test]
fn adapters_are_trained_resumed_and_merged() {
    let lines = "[lora]\nrank = 4\nalpha = 32\n\
                 targets = [\"q_proj\", \"v_proj\", \"ff_proj\", \"up_proj\", \"ff_out\"]";
    let files = [
        "model.safetensors",
        "adapter/adapter_model.safetensors",
        "adapter/adapter_config.json",
    ];
    check(lines, &files);
}

#[test]
fn adapters_of_muon_resume_too() {
    let lines = "optimizer = \"muon\"\n[lora]\ntargets = [\"attn_out\", \"ff_out\"]";
    check(
        lines,
        &["model.safetensors", "adapter/adapter_model.safetensors"],
    );
}

#[test]
fn what_belongs_to_the_model_goes_along_and_what_is_not_used_is_named() {
    let base = model();
    let at = |name: &str| base.path().join(name);
    fs::write(at("generation_config.json"), "{\"eos_token_id\": [1]}").expect("writable");
    fs::write(at("modeling_llada.py"), "# code").expect("writable");
    let mut fields: Value =
        serde_json::from_slice(&fs::read(at("config.json")).expect("written")).expect("JSON");
    fields["auto_map"] = serde_json::json!({"AutoModel": "modeling_llada.LLaDAModelLM"});
    fs::write(at("config.json"), fields.to_string()).expect("writable");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = config(dir.path(), 1, "[lora]");
    let pairs = PAIRS.replace("\"completion\"", "\"id\": 7, \"completion\"");
    fs::write(dir.path().join("pairs.jsonl"), pairs).expect("writable");
    let run = dir.path().join("run");
    let mut command = llada(&["sft", "--dry-run", "--format", "json", "--config"]);
    let command = command.arg(&path).arg(&run).arg("--model").arg(base.path());
    let output = command.assert().success().get_output().stdout.clone();
    let plan: Value = serde_json::from_slice(&output).expect("one JSON object");
    // Of q_proj and v_proj of one block, A and B of rank 8 and width 16.
    assert_eq!(plan["trained_parameters"], 2 * 2 * 8 * 16);
    assert!(!run.exists(), "nothing was written");
    let (_, notes) = sft(base.path(), &path, &run);
    let unused = "pairs.jsonl: warning: fields that are not used: id (2 lines)";
    assert!(notes.contains(unused), "{notes}");
    for file in ["generation_config.json", "modeling_llada.py"] {
        let [a, b] = [base.path(), &run].map(|folder| fs::read(folder.join(file)).expect(file));
        assert_eq!(a, b);
    }
    let fields = fs::read_to_string(run.join("config.json")).expect("written");
    assert!(fields.contains("auto_map"), "{fields}");
    let adapter = fs::read_to_string(run.join("adapter/adapter_config.json")).expect("written");
    let adapter: Value = serde_json::from_str(&adapter).expect("JSON");
    let whole = base.path().canonicalize().expect("a folder");
    assert_eq!(
        adapter["base_model_name_or_path"],
        whole.to_str().expect("UTF-8")
    );
    // Without its code the name of it goes as well.
    fs::remove_file(at("modeling_llada.py")).expect("writable");
    let run = dir.path().join("second");
    let (_, notes) = sft(base.path(), &path, &run);
    assert!(
        notes.contains("auto_map of config.json is left out"),
        "{notes}"
    );
    let fields = fs::read_to_string(run.join("config.json")).expect("written");
    assert!(!fields.contains("auto_map"), "{fields}");
}

#[test]
fn a_run_goes_on_from_the_model_that_it_began_with() {
    let base = model();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (short, long) = (
        config(dir.path(), 4, "[lora]"),
        config(dir.path(), 6, "[lora]"),
    );
    let run = dir.path().join("run");
    sft(base.path(), &short, &run);
    // The same shape and tokenizer, other weights.
    let mut command = llada(&["sft", "--threads", "1", "--config"]);
    let other = dir.path().join("other");
    sft(base.path(), &config(dir.path(), 2, ""), &other);
    let command = command.arg(&long).arg(&run).arg("--model").arg(&other);
    let message = command.assert().code(1).get_output().stderr.clone();
    let message = String::from_utf8_lossy(&message).into_owned();
    assert!(
        message.contains(&format!(
            "error: resume: this run began with {}, and what was given is {}",
            base.path().display(),
            other.display()
        )) && message.contains("--allow-changes"),
        "{message}"
    );
}

#[test]
fn wrong_input_is_one_line() {
    let base = model();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = dir.path().join("run");
    let command = |config: &Path| {
        let mut command = llada(&["sft", "--config"]);
        command
            .arg(config)
            .arg(&run)
            .arg("--model")
            .arg(base.path());
        command
    };
    let wrong = config(dir.path(), 4, "[lora]\ntargets = [\"wte\"]");
    fails(&mut command(&wrong), 1, &["lora.targets: wte", "q_proj"]);
    let wrong = config(dir.path(), 4, "[sft]\nchat = \"always\"");
    fails(&mut command(&wrong), 1, &["sft.chat", "no chat template"]);
    let wrong = config(dir.path(), 4, "[sft]\nrank = 4");
    let message = command(&wrong).assert().code(1).get_output().stderr.clone();
    assert!(String::from_utf8_lossy(&message).contains("unknown field `rank`"));
    fs::write(dir.path().join("pairs.jsonl"), "{\"text\": \"春\"}\n").expect("writable");
    let path = dir.path().join("sft-4.toml");
    let toml = "[data]\ntrain = [\"pairs.jsonl\"]\nsequence_length = 12\n[train]\nsteps = 4\n";
    fs::write(&path, toml).expect("writable");
    fails(
        &mut command(&path),
        1,
        &["line 1 is no pair", "\"prompt\" and \"completion\""],
    );
    // The model itself is not overwritten.
    let mut command = llada(&["sft", "--config"]);
    let command = command
        .arg(&path)
        .arg(base.path())
        .arg("--model")
        .arg(base.path());
    fails(command, 1, &["would be overwritten"]);
}
