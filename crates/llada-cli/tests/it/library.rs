//! The library gives what the command prints.

use llada::diffusion::LikelihoodConfig;
use llada::sample::Process;
use llada::{Answer, Checkpoint, CpuConfig, Device, Llada, Overrides, Precision, Task};
use serde_json::Value;

use crate::{json as run, model, object};

fn device() -> Device {
    Device::cpu(CpuConfig::default()).expect("a CPU")
}

/// What the command says of the embedded model.
fn embedded(command: &str, args: &[&str]) -> Value {
    object(&mut crate::llada(
        &[&[command, "--format", "json"], args].concat(),
    ))
}

fn poet() -> Llada {
    let poet = Checkpoint::embedded().and_then(|poet| poet.frozen(&device(), Precision::F32));
    poet.expect("it is in the binary")
}

#[track_caller]
fn check(answer: &Answer, command: &Value) {
    let told = &command["outputs"][0];
    assert_eq!(told["text"], answer.text);
    let tokens: Vec<u32> = serde_json::from_value(told["tokens"].clone()).expect("ids");
    assert_eq!(tokens, answer.output.answer());
    assert_eq!(told["nfe"], answer.output.nfe);
}

#[test]
fn texts_are_those_of_the_command() {
    let llada = poet();
    let usual = Overrides::default();
    let answer = llada.generate("床前明月光，", &usual).expect("a text");
    assert_eq!(
        answer.whole_text,
        "床前明月光，疑是地上霜。举头望明月，低头思故乡。"
    );
    check(&answer, &embedded("generate", &["床前明月光，"]));
    let hole = "□□□□□，低头思故乡。";
    let filled = llada.infill(hole, &usual).expect("a text");
    check(&filled, &embedded("infill", &[hole]));

    let fast = Overrides {
        gen_length: Some(18),
        process: Some(Process::Threshold(0.9)),
        block_length: Some(6),
        ..Overrides::default()
    };
    let flags = [
        "--gen-length",
        "18",
        "--threshold",
        "0.9",
        "--block-length",
        "6",
    ];
    let answer = llada.generate("白日依山尽，", &fast).expect("a text");
    let command = [&["白日依山尽，"], &flags[..]].concat();
    check(&answer, &embedded("generate", &command));

    let words = [(12, "低头".to_owned())];
    let task = Task::generate("床前明月光，").constrained(&words);
    let mut steps = llada.stream(&task, &usual).expect("a stream");
    let texts: Vec<String> = steps
        .by_ref()
        .map(|step| step.expect("a step").text)
        .collect();
    assert!(
        texts[0].contains("低头") && texts[0].contains('□'),
        "{}",
        texts[0]
    );
    let answer = steps.into_answer().expect("all steps are done");
    let flags = ["床前明月光，", "--constraints", "12:低头"];
    check(&answer, &embedded("generate", &flags));
}

#[test]
fn a_model_in_a_folder_and_its_settings_too() {
    let dir = model();
    let llada = llada::load(dir.path(), &device(), Precision::F32).expect("a model");
    let overrides = Overrides {
        temperature: 0.7,
        seed: 3,
        steps: Some(4),
        cfg_scale: 0.5,
        ..Overrides::default()
    };
    let flags = [
        "--temperature",
        "0.7",
        "--seed",
        "3",
        "--steps",
        "4",
        "--cfg-scale",
        "0.5",
    ];
    let command = |command: &str, args: &[&str]| run(dir.path(), command, &[args, &flags].concat());
    let answer = llada.generate("春风", &overrides).expect("a text");
    check(&answer, &command("generate", &["春风"]));
    let answer = llada.infill("春_月__。", &overrides).expect("a text");
    check(&answer, &command("infill", &["春_月__。"]));
    // Ids are used as they are: no end is shown.
    let answer = llada.generate(vec![4, 5], &overrides).expect("a text");
    assert_eq!(answer.output.suffix_len, 0);
    check(&answer, &command("generate", &["--prompt-ids", "4,5"]));
}

#[track_caller]
fn check_score(llada: &Llada, prompt: &str, target: &str, told: &Value) {
    let config = LikelihoodConfig {
        mc_samples: 16,
        ..LikelihoodConfig::default()
    };
    let score = llada.score(prompt, target, &config).expect("a score");
    assert_eq!(told["log_likelihood"], score.estimate.log_likelihood);
    assert_eq!(told["standard_error"], score.estimate.standard_error);
    assert_eq!(told["target_tokens"], score.estimate.n_tokens);
    assert_eq!(told["greedy_match"], score.is_greedy);
}

#[test]
fn scores_are_those_of_the_command() {
    let llada = poet();
    for target in ["疑是地上霜。", "春水碧于天。"] {
        let args = [
            "--prompt",
            "床前明月光，",
            "--target",
            target,
            "--mc-samples",
            "16",
        ];
        check_score(&llada, "床前明月光，", target, &embedded("score", &args));
    }
}
