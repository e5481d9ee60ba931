//! Models of other families: their recorded runs through the flags, and what is shown of them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{fails, json as result, llada, object};

/// The configurations of LLaDA2.x and LLaDA-MoE name no mask, and these models have no tokenizer.
const MASK: &str = "--mask-token-id=283";

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../llada/tests/goldens/families")
}

fn folder(family: &str, model: &str) -> PathBuf {
    goldens().join(family).join("models").join(model)
}

/// A recorded run.
fn golden(family: &str, name: &str) -> Value {
    let path = goldens().join(family).join("generate").join(name);
    let text = fs::read_to_string(path.with_extension("json")).expect("a golden");
    serde_json::from_str(&text).expect("JSON")
}

/// A copy of a model, with changes to its `config.json`; null takes a key out.
fn changed(folder: &Path, changes: &Value) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for file in fs::read_dir(folder).expect("a model") {
        let file = file.expect("a file");
        fs::copy(file.path(), dir.path().join(file.file_name())).expect("a writable folder");
    }
    let path = dir.path().join("config.json");
    let config = fs::read_to_string(&path).expect("a configuration");
    let mut config: Value = serde_json::from_str(&config).expect("JSON");
    for (key, value) in changes.as_object().expect("an object") {
        match value {
            Value::Null => _ = config.as_object_mut().expect("an object").remove(key),
            value => config[key] = value.clone(),
        }
    }
    fs::write(path, config.to_string()).expect("a writable folder");
    dir
}

fn ids(tokens: &Value) -> String {
    let ids = tokens.as_array().expect("a list").iter();
    ids.map(Value::to_string).collect::<Vec<_>>().join(",")
}

/// The output of `generate` for a recorded prompt.
#[track_caller]
fn generated(dir: &Path, prompt: &Value, flags: &str) -> Value {
    let prompt = ids(prompt);
    let flags = flags.split_whitespace();
    let args: Vec<&str> = ["--prompt-ids", &prompt].into_iter().chain(flags).collect();
    result(dir, "generate", &args)["outputs"][0].clone()
}

/// The answer of LLaDA2.x is what was recorded.
#[track_caller]
fn check_llada2(name: &str, flags: &str) {
    let golden = golden("llada2", name);
    let model = folder("llada2", golden["model"].as_str().expect("a name"));
    let size = json!({ "block_size": golden["block_length"] });
    let dir = changed(&model, &size);
    let length = golden["gen_length"].to_string();
    let flags = format!("{MASK} --gen-length {length} {flags}");
    let output = generated(dir.path(), &golden["prompt"], &flags);
    assert_eq!(output["tokens"], golden["output"], "{name}");
    assert_eq!(output["nfe"], golden["forward_calls"], "{name}");
}

#[test]
fn the_loops_of_llada2_are_flags() {
    check_llada2("20_block32", "--threshold 0.7");
    check_llada2("20_threshold_95", "--steps 8");
    // Above 1 nothing is sure enough, and a step takes its share.
    check_llada2("20_fixed_few_steps", "--steps 3 --threshold 2");
    check_llada2("20_minimal_topk", "--threshold 0.9 --minimal-topk 4");
    check_llada2(
        "20_minimal_topk",
        "--threshold 0.9 --minimal_topk=4 --steps 32",
    );
    check_llada2(
        "20_eos_early_stop",
        "--steps 8 --threshold 0.9 --early-stop",
    );
    check_llada2("21_block32", "--threshold 0.7 --editing-threshold 0.5");
    check_llada2(
        "21_few_post_steps",
        "--threshold 0.3 --editing_threshold 0 --max-post-steps 1",
    );
    check_llada2(
        "21_transfer_three",
        "--threshold 0.9 --editing-threshold 0.4 --num-to-transfer 3",
    );
}

#[test]
fn the_loop_of_dream_is_flags() {
    let model = folder("dream", "gqa-f32");
    for (name, flags) in [
        ("entropy_top_p", "--alg entropy --top-p 0.9"),
        ("topk_margin", "--alg topk_margin --alg-temp 0"),
        ("maskgit_plus", "--alg=maskgit_plus"),
        ("entropy_eps", "--alg entropy"),
    ] {
        let golden = golden("dream", name);
        let [prompt, output] = ["prompt", "output"].map(|key| golden[key][0].clone());
        let n = prompt.as_array().expect("ids").len();
        let flags = format!(
            "{flags} --gen-length {} --eps {} --steps {}",
            golden["max_new_tokens"], golden["eps"], golden["steps"]
        );
        let written = generated(&model, &prompt, &flags);
        let expected = &output.as_array().expect("ids")[n..];
        assert_eq!(written["tokens"], json!(expected), "{name}");
    }
}

#[test]
fn illada_writes_blocks_until_a_stop_or_a_canvas() {
    let check = |name: &str, flags: &str| {
        let golden = golden("illada", name);
        let model = folder("illada", golden["model"].as_str().expect("a name"));
        let flags = format!(
            "--gen-length {} --block-length {} --steps {} {flags}",
            golden["gen_length"], golden["block_length"], golden["steps"]
        );
        let written = generated(&model, &golden["prompt"], &flags);
        let n = golden["prompt"].as_array().expect("ids").len();
        let expected = &golden["output"].as_array().expect("ids")[n..];
        assert_eq!(written["tokens"], json!(expected), "{name}");
        assert_eq!(written["nfe"], golden["forward_calls"], "{name}");
        if golden["answer_text"].is_string() {
            assert_eq!(written["text"], golden["answer_text"], "{name}");
        }
    };
    check("var_stop_text", "--stop themz");
    check(
        "var_stop_text",
        "--variable-length --stop nothing --stop themz",
    );
    check("fixed_blocks_half_steps", "--variable-length=false");
    check("fixed_full_steps", "--variable_length=no");
}

#[test]
fn a_special_token_is_a_stop_that_is_not_shown() {
    let dir = folder("illada", "gqa-tied-f32");
    let golden = golden("illada", "var_stop_text");
    let flags = "--gen-length 48 --block-length 8 --steps 8";
    let whole = generated(&dir, &golden["prompt"], flags);
    // A token of the second block, made special under another name.
    let name = "<|end|>";
    let id = golden["output"][12 + 8].clone();
    let dir = changed(&dir, &json!({}));
    let path = dir.path().join("tokenizer.json");
    let text = fs::read_to_string(&path).expect("a tokenizer");
    let mut tokenizer: Value = serde_json::from_str(&text).expect("JSON");
    let vocab = tokenizer["model"]["vocab"]
        .as_object_mut()
        .expect("a vocabulary");
    let found = vocab.iter().find(|(_, known)| **known == id);
    let token = found.expect("a token").0.clone();
    vocab.remove(&token);
    vocab.insert(name.to_owned(), id.clone());
    let merges = tokenizer["model"]["merges"].as_array_mut();
    merges
        .expect("a list")
        .retain(|merge| !merge.to_string().contains(&token));
    let added = json!({
        "id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true,
    });
    tokenizer["added_tokens"]
        .as_array_mut()
        .expect("a list")
        .push(added);
    fs::write(&path, tokenizer.to_string()).expect("a writable folder");
    let flags = format!("{flags} --stop {name}");
    let ended = generated(dir.path(), &golden["prompt"], &flags);
    assert_eq!(ended["tokens"].as_array().map(Vec::len), Some(16));
    let (whole, ended) = (whole["text"].as_str(), ended["text"].as_str());
    assert!(whole.expect("a text").starts_with(ended.expect("a text")));
    assert!(!ended.expect("a text").contains(name));
}

#[test]
fn the_end_of_reasoning_is_made_likelier() {
    let dir = folder("illada", "gqa-tied-f32");
    let prompt = json!([70, 71, 72]);
    let flags = "--gen-length 32 --block-length 8 --steps 8";
    let usual = generated(&dir, &prompt, flags);
    assert!(!usual["text"].as_str().expect("a text").contains("</think>"));
    let boosted = format!("{flags} --end-think-boost 1e6 --end-think-power 10");
    let boosted = generated(&dir, &prompt, &boosted);
    let text = boosted["text"].as_str().expect("a text");
    let before = text.split("</think>").next().expect("a part");
    assert!(before.len() > 4 && before.len() < text.len(), "{text:?}");
    // It is too small to change the first block.
    let first = |tokens: &Value| tokens.as_array().expect("ids")[..8].to_vec();
    assert_eq!(first(&usual["tokens"]), first(&boosted["tokens"]));

    let model = dir.to_str().expect("UTF-8");
    let base = ["generate", "--model", model, "--prompt-ids", "70"];
    let mut power = llada(&base);
    fails(
        power.args(["--end-think-power", "3"]),
        2,
        &["--end-think-power needs --end-think-boost"],
    );
    let mut power = llada(&base);
    fails(
        power.args(["--end-think-boost", "1", "--end-think-power=-1"]),
        2,
        &["--end-think-power must be a number, 0 or more, got -1"],
    );
    // A vocabulary without such letters.
    let none = folder("llada2", "mini-f32");
    let mut none = llada(&["generate", "--model", none.to_str().expect("UTF-8")]);
    none.args(["--prompt-ids", "70", "--end-think-boost", "1", MASK]);
    fails(
        &mut none,
        2,
        &["--end-think-boost", "no tokens for </think>"],
    );
}

#[test]
fn the_mask_is_what_the_flag_says_where_no_file_does() {
    let model = folder("illada", "gqa-tied-f32");
    let dir = changed(&model, &json!({}));
    fs::remove_file(dir.path().join("tokenizer.json")).expect("a tokenizer");
    fs::remove_file(dir.path().join("tokenizer_config.json")).expect("its configuration");
    fs::remove_file(dir.path().join("special_tokens_map.json")).expect("its tokens");
    let golden = golden("illada", "var_no_stop");
    let prompt = ids(&golden["prompt"]);
    let path = dir.path().to_str().expect("UTF-8");
    let mut unsaid = llada(&["generate", "--model", path, "--prompt-ids", &prompt]);
    fails(&mut unsaid, 1, &["--mask-token-id"]);
    let flags = format!(
        "--mask-token-id 5 --gen-length {} --block-length {} --steps {}",
        golden["gen_length"], golden["block_length"], golden["steps"]
    );
    let written = generated(dir.path(), &golden["prompt"], &flags);
    let n = golden["prompt"].as_array().expect("ids").len();
    let expected = &golden["output"].as_array().expect("ids")[n..];
    assert_eq!(written["tokens"], json!(expected));
    let inspect = llada(&["inspect", path, "--mask_token_id=5", "--format", "json"])
        .assert()
        .success();
    let shown: Value = serde_json::from_slice(&inspect.get_output().stdout).expect("JSON");
    assert_eq!(shown["mask_token_id"], 5);
    // What is kept says which mask it was written with.
    let kept = dir.path().join("kept.jsonl");
    let kept = kept.to_str().expect("UTF-8");
    let run = |mask: &str| {
        let mut run = llada(&["generate", "--model", path, "--prompt-ids", "70", "-n", "8"]);
        run.args([
            "--block-length",
            "8",
            "--output",
            kept,
            "--mask-token-id",
            mask,
        ]);
        run
    };
    run("5").assert().success();
    fails(&mut run("6"), 1, &["kept.jsonl"]);
    fails(
        &mut llada(&["generate", "春", "--mask-token-id", "5"]),
        2,
        &["--mask-token-id needs --model"],
    );
}

#[test]
fn a_setting_of_another_loop_is_refused_by_the_name_of_its_flag() {
    let check = |family: &str, model: &str, flags: &[&str], parts: &[&str]| {
        let dir = folder(family, model);
        let mut run = llada(&["generate", "--model", dir.to_str().expect("UTF-8")]);
        let has_mask = matches!(family, "dream" | "illada");
        run.args((!has_mask).then_some(MASK));
        fails(run.args(["--prompt-ids", "70,71"]).args(flags), 2, parts);
    };
    let llada2 = |flags: &[&str], parts: &[&str]| check("llada2", "mini-f32", flags, parts);
    llada2(
        &["--alg", "entropy"],
        &[
            "--alg cannot be used with this model",
            "LLaDA2.0",
            "--minimal-topk",
        ],
    );
    llada2(
        &["--editing-threshold", "0.5", "--steps", "8"],
        &[
            "--steps cannot be used with this model",
            "LLaDA2.1",
            "--threshold",
        ],
    );
    llada2(&["--factor", "1"], &["--factor cannot be used"]);
    llada2(
        &["--block-length", "16"],
        &["--block-length must be 32", "got 16"],
    );
    llada2(
        &["--remasking", "random"],
        &["--remasking cannot be used with block diffusion"],
    );
    llada2(
        &["--minimal-topk", "0"],
        &["minimal_topk must be at least 1"],
    );
    llada2(
        &["--threshold=-1"],
        &["threshold must be a number, 0 or more"],
    );
    check(
        "llada22",
        "mini-f32",
        &["--num-to-transfer", "2"],
        &["--num-to-transfer cannot be used", "LLaDA2.2"],
    );
    check(
        "dream",
        "gqa-f32",
        &["--block-length", "8"],
        &["--block-length cannot be used", "Dream", "--alg"],
    );
    check(
        "dream",
        "gqa-f32",
        &["--alg", "best"],
        &["unknown alg \"best\"", "topk_margin"],
    );
    check(
        "dream",
        "gqa-f32",
        &["--eps", "1"],
        &["eps must be above 0 and below 1, got 1"],
    );
    check(
        "lladamoe",
        "moe-f32",
        &["--max-post-steps", "2"],
        &["--max-post-steps cannot be used", "LLaDA's"],
    );
    check(
        "illada",
        "gqa-tied-f32",
        &["--minimal-topk", "2"],
        &[
            "--minimal-topk cannot be used",
            "in blocks that are appended",
        ],
    );
}

/// The canvas after a step, made of that before it.
fn followed(before: &[Value], line: &Value, mask: &Value) -> Vec<Value> {
    let mut canvas = before.to_vec();
    let place =
        |edit: &Value| usize::try_from(edit["position"].as_u64().expect("a place")).expect("few");
    let none = Vec::new();
    let edits = line["edits"].as_array().unwrap_or(&none);
    if !edits.is_empty() {
        let bound = |at: usize| {
            usize::try_from(line["window"][at].as_u64().expect("a place")).expect("few")
        };
        let (start, end) = (bound(0), bound(1));
        let mut block = canvas[start..end].to_vec();
        let places = |kind: &str| {
            let of_kind = edits.iter().filter(|edit| edit["kind"] == kind);
            let mut places: Vec<usize> = of_kind.map(|edit| place(edit) - start).collect();
            places.sort_unstable();
            places
        };
        for at in places("deleted").into_iter().rev() {
            block.remove(at);
        }
        for at in places("inserted") {
            block.insert(at, mask.clone());
        }
        block.resize(end - start, mask.clone());
        canvas.splice(start..end, block);
        for edit in edits.iter().filter(|edit| edit["kind"] == "replaced") {
            assert_eq!(canvas[place(edit)], edit["from"], "{edit}");
            canvas[place(edit)] = edit["to"].clone();
        }
    }
    for revealed in line["revealed"].as_array().expect("a list") {
        assert_eq!(&canvas[place(revealed)], mask, "{revealed}");
        canvas[place(revealed)] = revealed["token"].clone();
    }
    canvas
}

/// The kinds of edits in a trace, each line of which leads from the canvas before to its own.
#[track_caller]
fn traced(family: &str, name: &str, flags: &[&str]) -> Vec<String> {
    let golden = golden(family, name);
    let model = folder(family, golden["model"].as_str().expect("a name"));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (trace, page) = (dir.path().join("t.jsonl"), dir.path().join("t.html"));
    let prompt = ids(&golden["prompt"]);
    let mut run = llada(&[
        "generate",
        "--format",
        "json",
        MASK,
        "--prompt-ids",
        &prompt,
    ]);
    run.arg("--model")
        .arg(model)
        .arg("--trace")
        .arg(&trace)
        .args(flags);
    object(&mut run);
    let text = fs::read_to_string(&trace).expect("a trace");
    let lines: Vec<Value> = (text.lines())
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let mask = &golden["mask_id"];
    let length = lines[0]["canvas"].as_array().expect("a canvas").len();
    let mut canvas = golden["prompt"].as_array().expect("ids").clone();
    canvas.resize(length, mask.clone());
    let mut kinds = Vec::new();
    for line in &lines {
        canvas = followed(&canvas, line, mask);
        assert_eq!(json!(canvas), line["canvas"], "step {}", line["step"]);
        let edits = line["edits"].as_array().into_iter().flatten();
        kinds.extend(edits.map(|edit| edit["kind"].as_str().expect("a kind").to_owned()));
    }
    llada(&["replay"])
        .arg(&trace)
        .arg("-o")
        .arg(&page)
        .assert()
        .success();
    kinds
}

#[test]
fn a_trace_has_what_a_step_edits() {
    let flags = [
        "--gen-length",
        "32",
        "--threshold",
        "0.7",
        "--editing-threshold",
        "0.5",
    ];
    let kinds = traced("llada2", "21_block32", &flags);
    let recorded = golden("llada2", "21_block32");
    assert_eq!(json!(kinds.len()), recorded["edits"]);
    assert!(kinds.iter().all(|kind| kind == "replaced"));

    for (name, flags, kind) in LLADA22 {
        let flags: Vec<&str> = flags.split(' ').collect();
        let kinds = traced("llada22", name, &flags);
        assert!(kinds.iter().any(|known| known == kind), "{kind}");
        let moves = kinds.iter().filter(|known| *known != "replaced").count();
        assert_eq!(json!(moves), golden("llada22", name)["edit_operations"]);
    }
}

/// Runs of LLaDA2.2, their flags, and what they do beside replacing tokens.
const LLADA22: [(&str, &str, &str); 2] = [
    ("default", "-n 25 --steps 8", "deleted"),
    (
        "few_post_steps",
        "-n 26 --steps 8 --threshold 0.4 --max-post-steps 2",
        "inserted",
    ),
];

#[test]
fn edits_are_seen_while_they_happen() {
    let model = folder("llada22", "mini-f32");
    for ((name, flags, _), sign) in LLADA22.into_iter().zip(["−", "+□"]) {
        let prompt = ids(&golden("llada22", name)["prompt"]);
        let mut run = llada(&["generate", "--watch", MASK, "--prompt-ids", &prompt]);
        run.arg("--model").arg(&model).args(flags.split(' '));
        let run = run.assert().success();
        let shown = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
        for sign in [sign, "→"] {
            let is_edit = |line: &str| line.ends_with(']') && line.contains(sign);
            assert!(shown.lines().any(is_edit), "no {sign} in {shown}");
        }
    }
}

#[test]
fn an_edit_outside_of_its_block_is_no_trace() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (trace, page) = (dir.path().join("t.jsonl"), dir.path().join("t.html"));
    let check = |edit: Value, window: [usize; 2], parts: &[&str]| {
        let line = json!({
            "request": 0, "step": 0, "steps": 1, "revealed": [], "canvas": [1, 2, 3],
            "edits": [edit], "window": window,
        });
        fs::write(&trace, line.to_string()).expect("a writable folder");
        let mut replay = llada(&["replay"]);
        fails(replay.arg(&trace).arg("-o").arg(&page), 1, parts);
    };
    let deleted = |position: usize| json!({"kind": "deleted", "position": position, "from": 1});
    check(deleted(2), [0, 2], &["line 1", "position 2", "0 to 2"]);
    check(deleted(2), [0, 4], &["line 1", "ends at 4", "canvas of 3"]);
    check(
        json!({"kind": "moved", "position": 0}),
        [0, 2],
        &["line 1", "moved"],
    );
    check(
        json!({"kind": "replaced", "position": 0}),
        [0, 2],
        &["line 1", "to"],
    );
}

#[test]
fn inspect_says_how_a_family_works() {
    let of = |args: &[&str]| object(llada(&["inspect", "--format", "json"]).args(args));
    let mini = of(&["--preset", "llada2-mini"]);
    assert_eq!(mini["family"], "LLaDA2.x");
    assert_eq!(mini["block_size"], 32);
    let experts = &mini["experts"];
    assert_eq!(
        (&experts["count"], &experts["active"]),
        (&json!(256), &json!(8))
    );
    assert_eq!(experts["router"]["topk_group"], 4);
    let parameters = |shown: &Value, key: &str| shown[key].as_f64().expect("a count");
    assert!(parameters(&mini, "total_parameters") > 15e9);
    assert!(parameters(&mini, "active_parameters") < 2e9);
    assert_eq!(
        mini["protocol"],
        json!({
            "name": "block_diffusion", "steps": 32, "block_length": 32, "gen_length": 2048,
            "threshold": 0.95, "minimal_topk": 1,
        })
    );
    let moe = of(&["--preset", "llada-moe-7b-a1b"]);
    assert_eq!(moe["experts"]["router"], json!({"rule": "softmax"}));
    assert_eq!(moe["protocol"], json!({"name": "llada"}));
    let dream = of(&["--preset", "dream-7b"]);
    assert_eq!(dream["protocol"]["alg"], "origin");
    assert!(dream["experts"].is_null() && dream["active_parameters"].is_null());
    let model = folder("llada22", "mini-f32");
    let edits = of(&[model.to_str().expect("UTF-8"), MASK]);
    assert_eq!(edits["protocol"]["delete_token_id"], 285);
    assert_eq!(edits["experts"]["router"]["capacity"], 6);
}
