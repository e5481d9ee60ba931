use std::fs;

use super::*;

const TEMPLATE: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}\
                        {% if add_generation_prompt %}<a>{% endif %}";

fn message(role: &str, content: &str) -> Message {
    Message {
        role: role.to_owned(),
        content: content.to_owned(),
    }
}

#[track_caller]
fn parsed(text: &str) -> Vec<Pair> {
    pairs(Path::new("a.jsonl"), 3, text).unwrap()
}

#[track_caller]
fn check_error(text: &str, expected: &str) {
    let error = pairs(Path::new("a.jsonl"), 3, text)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("data: a.jsonl line 3"), "{error}");
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_prompt_and_its_completion_are_a_pair() {
    let found = parsed(r#"{"id": 7, "prompt": "ab", "completion": "c"}"#);
    let expected = Pair {
        prompt: vec![message("user", "ab")],
        answer: "c".to_owned(),
        is_conversation: false,
    };
    assert_eq!(found, [expected]);
}

#[test]
fn every_answer_of_a_conversation_is_a_pair_with_all_before_it() {
    let messages = [
        message("system", "s"),
        message("user", "a"),
        message("assistant", "b"),
        message("user", "c"),
        message("assistant", "d"),
    ];
    let pair = |at: usize, answer: &str| Pair {
        prompt: messages[..at].to_vec(),
        answer: answer.to_owned(),
        is_conversation: true,
    };
    let expected = [pair(2, "b"), pair(4, "d")];
    let openai = r#"{"messages": [{"role": "system", "content": "s"},
        {"role": "user", "content": "a", "name": "x"}, {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}"#;
    assert_eq!(parsed(openai), expected);
    let sharegpt = r#"{"conversations": [{"from": "system", "value": "s"},
        {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"},
        {"from": "human", "value": "c"}, {"from": "gpt", "value": "d"}]}"#;
    assert_eq!(parsed(sharegpt), expected);
}

#[test]
fn other_lines_are_errors_that_say_where() {
    check_error("{", "no pair for fine-tuning");
    check_error(r#"{"text": "abc"}"#, "no pair for fine-tuning");
    check_error(r#"{"prompt": "abc"}"#, "no pair for fine-tuning");
    check_error(
        r#"{"prompt": ["a"], "completion": "b"}"#,
        "no pair for fine-tuning",
    );
    check_error(
        r#"{"prompt": "abc", "completion": " "}"#,
        "an answer is empty",
    );
    check_error(
        r#"{"messages": [{"role": "user", "content": "a"}]}"#,
        "no message of the assistant",
    );
    check_error(
        r#"{"conversations": [{"from": "tool", "value": "a"}]}"#,
        "a turn is from \"tool\"; expected human, gpt or system",
    );
}

/// The sequences and prompt lengths of a file with these lines, over a vocabulary of characters.
fn load(name: &str, lines: &str, toml: &str, template: Option<&str>) -> Result<Data> {
    let length = if template.is_some() { 32 } else { 8 };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), lines).unwrap();
    let text = format!(
        "[data]\ntrain = [\"{name}\"]\nsequence_length = {length}\n[train]\nsteps = 1\n{toml}"
    );
    let config = TrainConfig::sft_from_toml(&text, &folder.path().join("c.toml"))?;
    let tokenizer = Tokenizer::character_level(["abcdefghij<>user"].into_iter(), 1)?;
    let template = template.map(|source| ChatTemplate::new(source, Vec::new(), Path::new("t")));
    Data::load_pairs(
        &config,
        &tokenizer,
        template.as_ref(),
        SpecialIds::of(&tokenizer)?,
    )
}

/// Prompt and answer of each sequence, as text; `$` is the EOS.
fn texts(data: &Data) -> Vec<(String, String)> {
    let tokenizer = Tokenizer::from_bytes(&data.tokenizer_json).unwrap();
    let source = &data.train[0];
    let text = |ids: &[u32]| {
        let text = tokenizer.decode(ids, false).unwrap();
        text.replace("[EOS]", "$")
    };
    let of = |at| {
        let sequence = source.sequence(at).unwrap();
        let (prompt, answer) = sequence.split_at(source.prompt_len(at).unwrap());
        (text(prompt), text(answer))
    };
    (0..source.n_sequences()).map(of).collect()
}

#[track_caller]
fn check(lines: &str, toml: &str, template: Option<&str>, expected: &[(&str, &str)]) -> Source {
    let mut data = load("a.jsonl", lines, toml, template).unwrap();
    let found = texts(&data);
    let found: Vec<(&str, &str)> = found.iter().map(|(p, a)| (&**p, &**a)).collect();
    assert_eq!(found, expected);
    data.train.remove(0)
}

const PAIR: &str = r#"{"prompt": "ab", "completion": "cd"}"#;
const CHAT: &str =
    r#"{"messages": [{"role": "s", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;

#[test]
fn the_template_is_for_conversations_unless_the_configuration_says_otherwise() {
    let lines = format!("{PAIR}\n{CHAT}\n");
    let template = Some(TEMPLATE);
    let as_they_are = [("ab", "cd$"), ("a", "b$")];
    check(&lines, "", None, &as_they_are);
    check(&lines, "[sft]\nchat = \"never\"", template, &as_they_are);
    let auto = [("ab", "cd$"), ("<s>a<a>", "b$")];
    check(&lines, "", template, &auto);
    let always = [("<user>ab<a>", "cd$"), ("<s>a<a>", "b$")];
    check(&lines, "[sft]\nchat = \"always\"", template, &always);
}

#[test]
fn too_long_pairs_are_dropped_or_cut_and_counted() {
    let lines = [
        PAIR,
        r#"{"prompt": "abcd", "completion": "efghij"}"#,
        r#"{"prompt": "abcdefgh", "completion": "ab"}"#,
    ]
    .join("\n");
    let source = check(&lines, "", None, &[("ab", "cd$")]);
    assert_eq!((source.n_cut, source.n_dropped), (0, 2));
    let cut = "[sft]\ntoo_long = \"cut\"";
    let source = check(&lines, cut, None, &[("ab", "cd$"), ("abcd", "efgh")]);
    assert_eq!((source.n_cut, source.n_dropped), (1, 1));
}

#[test]
fn what_cannot_be_trained_on_is_an_error() {
    let check = |name: &str, lines: &str, toml: &str, expected: &str| {
        let error = load(name, lines, toml, None).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check("a.txt", PAIR, "", "expected .jsonl");
    check("a.jsonl", "\n", "", "has no documents");
    check(
        "a.jsonl",
        PAIR,
        "[sft]\nchat = \"always\"",
        "the model has no chat template",
    );
    let long = r#"{"prompt": "abcdefgh", "completion": "ab"}"#;
    check("a.jsonl", long, "", "longer than data.sequence_length = 8");
    let mask = r#"{"prompt": "a", "completion": "b[MASK]"}"#;
    check("a.jsonl", mask, "", "line 1 holds the mask token");
}
