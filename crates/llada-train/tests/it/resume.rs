//! A resumed run is bit-identical to one that was never stopped.

use std::fs;
use std::path::Path;

use llada_train::{Error, TrainConfig, tokenizer_for};

use crate::toy::{config, run_until, run_with, sft_config, write_texts};

const NEVER: u64 = u64::MAX;

/// Everything that a run leaves behind, except what tells the time.
#[track_caller]
fn assert_same_run(a: &Path, b: &Path, step: u64) {
    let files = [
        "parameters.safetensors",
        "first_moments.safetensors",
        "second_moments.safetensors",
    ]
    .map(|name| format!("state/step-{step}/{name}"));
    for name in files
        .iter()
        .map(String::as_str)
        .chain(["model.safetensors", "tokenizer.json"])
    {
        let [a, b] = [a, b].map(|run| fs::read(run.join(name)).unwrap());
        assert!(a == b, "{name} differs");
    }
    let [a, b] = [a, b].map(|run| {
        let text = fs::read_to_string(run.join(format!("state/step-{step}/state.json"))).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        json["state"]["batches"].clone()
    });
    assert_eq!(a, b, "the data order stands elsewhere");
}

#[track_caller]
fn check(objective: &str, train_lines: &str) {
    check_config(|folder| config(folder, objective, train_lines));
}

#[track_caller]
fn check_config(config: impl Fn(&Path) -> TrainConfig) {
    let folder = tempfile::tempdir().unwrap();
    write_texts(folder.path());
    let config = config(folder.path());
    let (straight, stopped) = (
        folder.path().join("straight"),
        folder.path().join("stopped"),
    );
    let (model, summary, reports) = run_until(&config, &straight, NEVER).unwrap();
    assert!(summary.finished && summary.step == 20);

    let (_, first, mut resumed_reports) = run_until(&config, &stopped, 7).unwrap();
    assert!(!first.finished && first.step == 7 && first.resumed_from.is_none());
    let (_, second, more) = run_until(&config, &stopped, 13).unwrap();
    assert_eq!((second.step, second.resumed_from), (13, Some(7)));
    resumed_reports.extend(more);
    let (resumed_model, last, more) = run_until(&config, &stopped, NEVER).unwrap();
    resumed_reports.extend(more);
    assert_eq!(last.resumed_from, Some(13));

    assert_eq!(model.bits(), resumed_model.bits());
    assert_eq!(
        reports, resumed_reports,
        "every loss, norm and rate is the same"
    );
    assert_eq!(summary.loss, last.loss);
    assert_eq!(summary.validation_bound, last.validation_bound);
    assert_same_run(&straight, &stopped, 20);
    let [a, b] =
        [&straight, &stopped].map(|run| fs::read_to_string(run.join("metrics.jsonl")).unwrap());
    assert_eq!(a, b, "the clock of the test ticks evenly");
}

#[test]
fn diffusion_run_resumes_bit_identical() {
    check(
        "diffusion",
        "steps = 20\nbatch_size = 3\nwarmup_steps = 5\nlog_every = 4",
    );
}

#[test]
fn run_with_token_batches_random_lengths_and_parts_resumes_bit_identical() {
    check(
        "diffusion",
        "steps = 20\nbatch_tokens = 29\nmicro_batch_tokens = 11\nt_sampler = \"stratified\"\n\
         random_length_probability = 0.3\ndecay_steps = 9\neval_every = 6",
    );
}

#[test]
fn run_with_muon_resumes_bit_identical() {
    check(
        "diffusion",
        "steps = 20\nbatch_size = 3\noptimizer = \"muon\"",
    );
}

#[test]
fn autoregressive_run_resumes_bit_identical() {
    check(
        "autoregressive",
        "steps = 20\nbatch_size = 5\ncheckpoint_every = 3\neval_every = 5",
    );
}

#[test]
fn fine_tuning_resumes_bit_identical() {
    let lines = "steps = 20\nbatch_size = 5\nmicro_batch_tokens = 30\neval_every = 6\n\
                 [sft]\nlocal_batch_size = 2\neos_pad_weight = 0.5";
    check_config(|folder| sft_config(folder, lines));
}

#[test]
fn fine_tuning_reports_a_bound_of_the_answers_and_counts_padding() {
    let folder = tempfile::tempdir().unwrap();
    write_texts(folder.path());
    let config = sft_config(folder.path(), "steps = 60\nbatch_size = 4\nlog_every = 60");
    let (_, summary, reports) = run_until(&config, &folder.path().join("run"), NEVER).unwrap();
    assert!(
        reports.iter().all(|report| report.tokens % 4 == 0),
        "padded to one length"
    );
    let n_ids = 13.0_f64;
    let bound = summary.validation_bound.unwrap();
    assert!(
        bound > 0.0 && bound < n_ids.ln(),
        "{bound} is better than a guess"
    );
}

#[test]
fn raising_the_steps_of_a_finished_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    write_texts(folder.path());
    let config = |steps| {
        config(
            folder.path(),
            "diffusion",
            &format!("steps = {steps}\nbatch_size = 3\ndecay_steps = 0"),
        )
    };
    let (short, long) = (folder.path().join("short"), folder.path().join("long"));
    run_until(&config(9), &short, NEVER).unwrap();
    let (_, summary, _) = run_until(&config(16), &short, NEVER).unwrap();
    assert_eq!((summary.step, summary.resumed_from), (16, Some(9)));
    run_until(&config(16), &long, NEVER).unwrap();
    assert_same_run(&short, &long, 16);
}

#[test]
fn changed_configuration_is_an_error_that_names_the_key() {
    let folder = tempfile::tempdir().unwrap();
    write_texts(folder.path());
    let run = folder.path().join("run");
    let lines = "steps = 4\nbatch_size = 3";
    run_until(&config(folder.path(), "diffusion", lines), &run, NEVER).unwrap();
    let changed = config(folder.path(), "diffusion", &format!("{lines}\nbeta2 = 0.9"));
    let error = run_until(&changed, &run, NEVER).unwrap_err();
    assert!(
        matches!(&error, Error::ConfigChanged { key, .. } if key == "train.beta2"),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .starts_with("resume: train.beta2 was 0.95 and is now 0.9")
    );
}

#[test]
fn changed_text_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    write_texts(folder.path());
    let run = folder.path().join("run");
    let config = config(folder.path(), "diffusion", "steps = 4\nbatch_size = 3");
    run_until(&config, &run, NEVER).unwrap();
    // The characters stay as frequent as they were, so that the tokenizer is the same.
    let text = fs::read_to_string(folder.path().join("b.txt")).unwrap();
    let reversed: Vec<&str> = text.lines().rev().collect();
    fs::write(folder.path().join("b.txt"), reversed.join("\n")).unwrap();
    let error = run_until(&config, &run, NEVER).unwrap_err();
    assert!(
        matches!(&error, Error::DataChanged { name } if name == "b.txt"),
        "{error}"
    );
}

#[test]
fn a_checkpoint_of_a_version_without_a_key_goes_on_with_its_default() {
    let folder = tempfile::tempdir().unwrap();
    write_texts(folder.path());
    let run = folder.path().join("run");
    let config = config(folder.path(), "diffusion", "steps = 20\nbatch_size = 3");
    run_until(&config, &run, 7).unwrap();
    let path = run.join("state/step-7/state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let keys = state["state"]["config"].as_object_mut().unwrap();
    assert_eq!(keys.remove("data.token_dtype").unwrap(), "auto");
    fs::write(&path, state.to_string()).unwrap();
    let (_, summary, _) = run_until(&config, &run, 9).unwrap();
    assert_eq!(summary.resumed_from, Some(7));
    // Another value than the default is a change.
    let mut other = config;
    other.data.token_dtype = llada_train::TokenDType::Uint16;
    let error = run_until(&other, &run, 11).unwrap_err().to_string();
    assert!(error.contains("data.token_dtype was"), "{error}");
}

#[test]
fn changes_can_be_allowed() {
    let folder = tempfile::tempdir().unwrap();
    write_texts(folder.path());
    let run = folder.path().join("run");
    let before = config(folder.path(), "diffusion", "steps = 40\nbatch_size = 3");
    run_until(&before, &run, 30).unwrap();
    // One line in place of 17, of the same characters: the old place in the file is past its end.
    fs::write(folder.path().join("b.txt"), "abcdefghij").unwrap();
    let lines = "steps = 40\nbatch_size = 3\nbeta2 = 0.9";
    let after = config(folder.path(), "diffusion", lines);
    let (_, summary, _) = run_with(&after, &run, NEVER, true).unwrap();
    assert_eq!((summary.step, summary.resumed_from), (40, Some(30)));
}

/// Ids alone, in the place of the text that they were made of.
#[test]
fn a_pre_tokenized_file_trains_as_its_text() {
    let folder = tempfile::tempdir().unwrap();
    write_texts(folder.path());
    let lines = "steps = 12\nbatch_size = 4\ncheckpoint_every = 5\nweight_decay = 0.1";
    let text = config(folder.path(), "diffusion", lines);
    let tokenizer = tokenizer_for(&text).unwrap();
    tokenizer.save(folder.path()).unwrap();
    let eos = u16::try_from(tokenizer.eos_token_id().unwrap()).unwrap();
    for name in ["a", "b", "held-out"] {
        let documents = fs::read_to_string(folder.path().join(format!("{name}.txt"))).unwrap();
        let mut bytes = Vec::new();
        for document in documents.lines() {
            let ids = tokenizer.encode(document).unwrap();
            let ids = ids.iter().map(|&id| u16::try_from(id).unwrap());
            bytes.extend(ids.chain([eos]).flat_map(u16::to_le_bytes));
        }
        fs::write(folder.path().join(format!("{name}.bin")), bytes).unwrap();
    }
    let mut ids = text.clone();
    ids.data.tokenizer = "tokenizer.json".to_owned();
    for name in ids.data.train.iter_mut().chain(&mut ids.data.validation) {
        *name = name.replace(".txt", ".bin");
    }
    let (of_text, of_ids) = (folder.path().join("text"), folder.path().join("ids"));
    let (model, expected, _) = run_until(&text, &of_text, NEVER).unwrap();
    run_until(&ids, &of_ids, 7).unwrap();
    let (same, summary, _) = run_until(&ids, &of_ids, NEVER).unwrap();
    assert_eq!(model.bits(), same.bits());
    assert_eq!(summary.validation_bound, expected.validation_bound);

    // Another file of the same length is told from it.
    let path = folder.path().join("a.bin");
    let mut bytes = fs::read(&path).unwrap();
    bytes[0] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = run_until(&ids, &of_ids, NEVER).unwrap_err();
    assert!(matches!(error, Error::DataChanged { .. }), "{error}");
}
