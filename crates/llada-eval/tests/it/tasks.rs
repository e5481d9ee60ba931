//! Tasks of files of JSON lines.

use std::error::Error as _;

use llada_diffusion::{LikelihoodConfig, PredictorKind};
use llada_eval::{Chosen, Error, GenerationConfig, Generations, choose};
use llada_eval::{read_choices, read_generations};
use llada_sample::Overrides;

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
        let tasks = read_choices(CHOICES, None, true, &poet.subject()).unwrap();
        let config = LikelihoodConfig {
            mc_samples: 8,
            ..LikelihoodConfig::default()
        };
        let choose = |task| choose(&poet.subject(), task, &config).unwrap();
        let chosen: Vec<Chosen> = tasks.iter().map(choose).collect();
        let by: [fn(&Chosen) -> usize; 3] = [
            |x| x.by_likelihood,
            |x| x.by_likelihood_per_token,
            |x| x.by_likelihood_per_character,
        ];
        for by in by {
            let right: Vec<bool> = chosen.iter().map(|x| by(x) == x.answer).collect();
            assert_eq!(right, [true, true, false], "{kind:?}");
        }
        // Five characters and the end.
        assert_eq!(chosen[0].estimates[0].n_tokens, 6);
    }
}

#[test]
fn answers_must_match_exactly() {
    for kind in KINDS {
        let poet = Poet::new(kind);
        let tasks = read_generations(GENERATIONS, None, &poet.subject()).unwrap();
        // Longer than the answer: it ends at its EOS.
        let generations = |gen_length, stops: &[&str]| {
            let config = GenerationConfig {
                overrides: Overrides {
                    gen_length,
                    ..Overrides::default()
                },
                stops: stops.iter().map(ToString::to_string).collect(),
            };
            Generations::new(&poet.subject(), tasks.clone(), &config)
        };
        let write = |gen_length, stops: &[&str], places: &[usize]| {
            let generations = generations(gen_length, stops).unwrap();
            generations.write(&poet.subject(), places).unwrap()
        };
        for gen_length in [None, Some(6)] {
            let written = write(gen_length, &[], &[0, 1]);
            let right: Vec<bool> = written.iter().map(|x| x.is_right).collect();
            assert_eq!(right, [true, false], "{kind:?}, {gen_length:?}");
            assert_eq!(written[0].text, "秋月冬山。");
            // In any order, and each as if it were alone.
            assert_eq!(write(gen_length, &[], &[1])[0], written[1]);
        }
        let stopped = write(None, &["山", "月冬"], &[0]);
        assert_eq!((&*stopped[0].text, stopped[0].is_right), ("秋", false));
        let error = generations(Some(40), &[]).unwrap_err();
        let expected = "line 1: 45 tokens exceed the context of 24";
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn choices_can_be_scored_without_the_end_of_their_document() {
    let poet = Poet::new(PredictorKind::Diffusion);
    let n_tokens = |with_end| {
        let tasks = read_choices(CHOICES, Some(1), with_end, &poet.subject()).unwrap();
        let chosen = choose(&poet.subject(), &tasks[0], &LikelihoodConfig::default());
        chosen.unwrap().estimates[0].n_tokens
    };
    assert_eq!((n_tokens(true), n_tokens(false)), (6, 5));
}

#[test]
fn a_length_in_characters_is_that_of_the_text_alone() {
    let poet = Poet::new(PredictorKind::Diffusion);
    let line = |choices| format!(r#"{{"prompt": "春风，", "choices": {choices}, "answer": 0}}"#);
    let per_character = |choices| {
        let tasks = read_choices(&line(choices), None, true, &poet.subject()).unwrap();
        let chosen = choose(&poet.subject(), &tasks[0], &LikelihoodConfig::default()).unwrap();
        let value = |at: usize| chosen.estimates[at].log_likelihood;
        (chosen.by_likelihood_per_character, value(0), value(1))
    };
    let (chosen, short, long) = per_character(r#"["雨", "雨雪山天日月"]"#);
    assert_eq!(chosen, usize::from(long / 6.0 > short));
}

#[test]
fn a_limit_takes_the_first() {
    let poet = Poet::new(PredictorKind::Diffusion);
    let some = read_choices(CHOICES, Some(2), true, &poet.subject()).unwrap();
    let all = read_choices(CHOICES, None, true, &poet.subject()).unwrap();
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
    let choices = |line: &str| read_choices(&format!("\n{line}"), None, true, subject);
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
    check(
        read_choices("", None, true, subject),
        "no tasks in the data",
    );

    let generations = |line: &str| read_generations(line, None, subject);
    let no_answer = r#"{"prompt": "春", "answer": ""}"#;
    check(generations(no_answer), "line 1: the answer is empty");
    let no_prompt = r#"{"prompt": "", "answer": "春"}"#;
    check(generations(no_prompt), "line 1: the prompt is empty");
}
