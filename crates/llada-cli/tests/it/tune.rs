//! `llada tune`.

use std::fs;

use serde_json::{Value, json};

use crate::{json as run, llada, model};

#[test]
fn rules_and_caches_are_measured_on_prompts_of_a_file() {
    let dir = model();
    let data = dir.path().join("prompts.jsonl");
    let lines = ["春风", "秋月", "山水"].map(|prompt| format!("{}\n", json!({"prompt": prompt})));
    fs::write(&data, lines.concat()).expect("a writable folder");
    let plot = dir.path().join("pictures/tune.svg");
    let [data, plot_file] = [&data, &plot].map(|path| path.to_str().expect("a name in UTF-8"));
    let flags = [
        "--data",
        data,
        "--plot",
        plot_file,
        "--limit",
        "2",
        "-n",
        "6",
        "--block-length",
        "3",
    ];
    let result = run(dir.path(), "tune", &flags);
    assert_eq!(result["prompts"], 2);
    assert_eq!(result["common_flags"], "--gen-length 6 --block-length 3");
    assert_eq!(result["interrupted"], false);
    assert_eq!(result["skipped"], json!([]));
    let settings = result["settings"].as_array().expect("a list");
    let base = &settings[0];
    assert_eq!(base["flags"], "");
    assert_eq!(
        (&base["forwards"], &base["same_texts"]),
        (&json!(6.0), &json!(1.0))
    );
    assert_eq!(base["first_difference"], Value::Null);
    let of = |flags: &str| {
        let found = settings.iter().find(|setting| setting["flags"] == flags);
        found.unwrap_or_else(|| panic!("{flags} is measured"))
    };
    // A bound of 0 is one token a step, and a window past the end hides nothing.
    for same in ["--eb-gamma 0", "--suffix-window 64"] {
        assert_eq!(of(same)["same_texts"], 1.0, "{same}");
        assert_eq!(of(same)["nats_per_token"], base["nats_per_token"], "{same}");
    }
    // The first call of a block sees all nine positions (with the end), the others the block.
    assert_eq!(of("--cache dual")["rows"], json!(2.0 * 9.0 + 4.0 * 3.0));
    let recommended = &result["recommended"];
    assert_eq!(
        (&recommended["same_texts"], &recommended["nats"]),
        (&json!(0.95), &json!(0.05))
    );
    let flags = recommended["by_same_texts"]
        .as_str()
        .expect("a recommendation");
    assert!(
        flags.starts_with("--gen-length 6 --block-length 3"),
        "{flags}"
    );
    // Rules with caches come last.
    let last = settings.last().expect("settings")["flags"].to_string();
    assert!(last.contains("--cache"), "{last}");
    let svg = fs::read_to_string(plot).expect("a picture");
    assert!(
        svg.starts_with("<svg") && svg.contains("--cache dual"),
        "{svg}"
    );
}

#[test]
fn texts_with_holes_are_tuned_too() {
    let dir = model();
    let data = dir.path().join("holes.jsonl");
    fs::write(&data, "{\"prompt\": \"春□秋□，\"}\n").expect("a writable folder");
    let data = data.to_str().expect("a name in UTF-8");
    let result = run(dir.path(), "tune", &["--data", data, "--infill"]);
    assert_eq!(result["settings"][0]["forwards"], 2.0);
    assert_eq!(result["common_flags"], "--block-length 32");
}

#[test]
fn a_picture_that_cannot_be_written_loses_no_figure() {
    let dir = model();
    let data = dir.path().join("prompts.jsonl");
    fs::write(&data, "{\"prompt\": \"春风\"}\n").expect("a writable folder");
    // Below a file.
    let plot = data.join("tune.svg");
    let [model, data, plot] =
        [dir.path(), &data, &plot].map(|path| path.to_str().expect("a name in UTF-8"));
    let flags = ["tune", "--model", model, "--data", data, "--plot", plot];
    let failed = llada(&[&flags[..], &["-n", "3"]].concat()).assert().code(1);
    let output = failed.get_output();
    assert!(String::from_utf8_lossy(&output.stdout).contains("--cache dual"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("prompts.jsonl"), "{stderr}");
}

#[test]
fn wrong_flags_are_told() {
    let dir = model();
    let path = dir.path().to_str().expect("a name in UTF-8");
    for (flags, words) in [
        (&["--model", path][..], "--data is needed with --model"),
        (&["--agreement", "101"], "--agreement must be in [0, 100]"),
        (&["--nats", "-1"], "--nats"),
        (&["--infill"], "--data"),
    ] {
        let failed = llada(&[&["tune"], flags].concat()).assert().code(2);
        let stderr = String::from_utf8_lossy(&failed.get_output().stderr).into_owned();
        assert!(stderr.contains(words), "{stderr}");
    }
}
