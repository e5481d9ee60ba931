//! Tasks of files of JSON lines.

use std::error::Error as _;

use llada_diffusion::{LikelihoodConfig, PredictorKind};
use llada_eval::{Error, GenerationConfig, choose, exact_matches, read_choices, read_generations};

use crate::all;
use crate::poet::Poet;

const CHOICES: &str = r#"
{"prompt": "春风夏雨，", "choices": ["山月风云。", "秋月冬山。"], "answer": 1}
{"prompt": "天日水花，", "choices": ["山月风云。", "秋月冬山。"], "answer": 0}

{"prompt": "雨雪山天，", "choices": ["春春", "日月春秋。", "春"], "answer": 0}
"#;

const GENERATIONS: &str = r#"{"prompt": "春风夏雨，", "answer": "秋月冬山。"}
{"prompt": "天日水花，", "answer": "秋月冬山。"}"#;

const KINDS: [PredictorKind; 2] = [PredictorKind::Diffusion, PredictorKind::Autoregressive];

#[test]
fn the_likeliest_choice_counts() {
    for kind in KINDS {
        let poet = Poet::new(kind);
        let tasks = read_choices(CHOICES, None, &poet.subject()).unwrap();
        let config = LikelihoodConfig {
            mc_samples: 8,
            ..LikelihoodConfig::default()
        };
        let chosen = choose(&poet.subject(), &tasks, &config, &mut all).unwrap();
        let right: Vec<bool> = chosen.iter().map(|x| x.by_likelihood).collect();
        assert_eq!(right, [true, true, false], "{kind:?}");
        let right: Vec<bool> = chosen.iter().map(|x| x.by_likelihood_per_token).collect();
        assert_eq!(right, [true, true, false], "{kind:?}");
    }
}

#[test]
fn answers_must_match_exactly() {
    for kind in KINDS {
        let poet = Poet::new(kind);
        let tasks = read_generations(GENERATIONS, None, &poet.subject()).unwrap();
        // Longer than the answer: it ends at its EOS.
        for gen_length in [None, Some(6)] {
            let steps = None;
            let config = GenerationConfig { gen_length, steps };
            let right = exact_matches(&poet.subject(), &tasks, config, &mut all).unwrap();
            assert_eq!(right, [true, false], "{kind:?}, {gen_length:?}");
        }
        let config = GenerationConfig {
            gen_length: Some(40),
            steps: None,
        };
        let error = exact_matches(&poet.subject(), &tasks, config, &mut all).unwrap_err();
        let expected = "line 1: 45 tokens exceed the context of 24";
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_limit_takes_the_first() {
    let poet = Poet::new(PredictorKind::Diffusion);
    let some = read_choices(CHOICES, Some(2), &poet.subject()).unwrap();
    let all = read_choices(CHOICES, None, &poet.subject()).unwrap();
    assert_eq!(some, all[..2]);
    let some = read_generations(GENERATIONS, Some(1), &poet.subject()).unwrap();
    assert_eq!(some.len(), 1);
}

#[track_caller]
fn check<T: std::fmt::Debug>(result: Result<T, Error>, message: &str) {
    let error = result.unwrap_err();
    let source = error.source().map(ToString::to_string);
    let whole = format!("{error}: {}", source.unwrap_or_default());
    assert!(whole.contains(message), "{whole}");
}

#[test]
fn bad_lines_are_named() {
    let poet = Poet::new(PredictorKind::Diffusion);
    let subject = &poet.subject();
    let choices = |line: &str| read_choices(&format!("\n{line}"), None, subject);
    check(choices("{"), "line 2: EOF");
    check(
        choices(r#"{"prompt": "春"}"#),
        "line 2: missing field `choices`",
    );
    let extra = r#"{"prompt": "春", "choices": ["风", "雨"], "answer": 0, "x": 1}"#;
    check(choices(extra), "line 2: unknown field `x`");
    let one = r#"{"prompt": "春", "choices": ["风"], "answer": 0}"#;
    check(choices(one), "line 2: expected at least two choices");
    let outside = r#"{"prompt": "春", "choices": ["风", "雨"], "answer": 2}"#;
    check(choices(outside), "line 2: answer is the number of a choice");
    let no_prompt = r#"{"prompt": "", "choices": ["风", "雨"], "answer": 0}"#;
    check(choices(no_prompt), "line 2: the prompt is empty");
    let empty = r#"{"prompt": "春", "choices": ["风", ""], "answer": 0}"#;
    check(choices(empty), "line 2: a choice is empty");
    let unknown = r#"{"prompt": "春", "choices": ["风", "龘"], "answer": 0}"#;
    check(
        choices(unknown),
        "the vocabulary has no character of the text (龘..)",
    );
    let long = "春".repeat(24);
    let long = format!(r#"{{"prompt": "{long}", "choices": ["风", "雨"], "answer": 0}}"#);
    check(choices(&long), "line 2: 26 tokens exceed the context of 24");
    check(read_choices("", None, subject), "no tasks in the data");

    let generations = |line: &str| read_generations(line, None, subject);
    let no_answer = r#"{"prompt": "春", "answer": ""}"#;
    check(generations(no_answer), "line 1: the answer is empty");
    let no_prompt = r#"{"prompt": "", "answer": "春"}"#;
    check(generations(no_prompt), "line 1: the prompt is empty");
}
