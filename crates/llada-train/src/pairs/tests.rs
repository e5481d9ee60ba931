use std::fs;

use super::*;

const TEMPLATE: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}\
                        {% if add_generation_prompt %}<a>{% endif %}";

/// The turns of a line, `role:content` each, with a `!` before those that are learned.
#[track_caller]
fn parsed(text: &str) -> String {
    let place = Place {
        path: Path::new("a.jsonl"),
        line: 3,
    };
    let turn = |turn: &conversation::Turn| {
        let mark = if turn.is_learned { "!" } else { "" };
        format!("{mark}{}:{}", role(&turn.message), content(&turn.message))
    };
    match conversation_of(place, text) {
        Ok((found, _)) => found.turns.iter().map(turn).collect::<Vec<_>>().join("|"),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn check_error(text: &str, expected: &str) {
    let error = parsed(text);
    assert!(error.starts_with("data: a.jsonl line 3"), "{error}");
    assert!(error.contains(expected), "{error}");
}

#[test]
fn every_format_is_the_same_conversation() {
    let same = "system:s|user:a|!assistant:b|user:c|!assistant:d";
    let check = |text: &str| assert_eq!(parsed(text), same, "{text}");
    check(
        r#"{"messages": [{"role": "system", "content": "s"},
        {"role": "user", "content": "a", "name": "x"}, {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}"#,
    );
    // ShareGPT, its system prompt among the turns or beside them, or both.
    let turns = r#"{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"},
        {"from": "human", "value": "c"}, {"from": "gpt", "value": "d"}"#;
    let among = r#"{"from": "system", "value": "s"},"#;
    check(&format!(r#"{{"conversations": [{among}{turns}]}}"#));
    check(&format!(r#"{{"conversations": [{turns}], "system": "s"}}"#));
    check(&format!(
        r#"{{"conversations": [{among}{turns}], "system": "s"}}"#
    ));
    // Names of the other format in either column.
    check(
        r#"{"conversations": [{"role": "user", "content": "a"}, {"role": "assistant",
        "content": "b"}, {"role": "user", "content": "c"}, {"from": "gpt", "value": "d"}],
        "system": "s"}"#,
    );
    // Alpaca as LLaMA-Factory has it.
    check(
        r#"{"instruction": "c", "input": "", "output": "d", "system": "s",
        "history": [["a", "b"]]}"#,
    );
    // Contents as parts.
    check(
        r#"{"messages": [{"role": "system", "content": [{"type": "text", "text": "s"}]},
        {"role": "user", "content": ["a"]}, {"role": "assistant", "content": [{"text": "b"}]},
        {"role": "user", "content": [{"type": "text", "text": "c"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "d"},
        {"type": "text", "text": ""}]}]}"#,
    );
}

#[test]
fn a_prompt_and_its_completion_are_texts_or_messages() {
    assert_eq!(
        parsed(r#"{"id": 7, "prompt": "ab", "completion": "c"}"#),
        "user:ab|!assistant:c"
    );
    // Of a prompt nothing is learned.
    let text = r#"{"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"}], "completion": [{"role": "assistant", "content": "d"}]}"#;
    assert_eq!(parsed(text), "user:a|assistant:b|user:c|!assistant:d");
}

#[test]
fn the_columns_of_alpaca_are_joined_as_llama_factory_does_it() {
    let with = r#"{"instruction": "Add.", "input": "1 2", "output": "3"}"#;
    assert_eq!(parsed(with), "user:Add.\n1 2|!assistant:3");
    let without = r#"{"instruction": "Add.", "input": null, "output": "3"}"#;
    assert_eq!(parsed(without), "user:Add.|!assistant:3");
}

#[test]
fn marked_messages_are_not_learned() {
    for flag in [
        r#""weight": 0"#,
        r#""train": false"#,
        r#""training": false"#,
        r#""loss": false"#,
    ] {
        let text = format!(
            r#"{{"messages": [{{"role": "user", "content": "a", "weight": 1}},
            {{"role": "assistant", "content": "b", {flag}}}, {{"role": "user", "content": "c",
            "train": false}}, {{"role": "assistant", "content": "d", "weight": 1.0}}]}}"#
        );
        assert_eq!(parsed(&text), "user:a|assistant:b|user:c|!assistant:d");
    }
    let one = |message: &str| format!(r#"{{"messages": [{message}]}}"#);
    let half = r#"{"role": "assistant", "content": "b", "weight": 0.5}"#;
    check_error(&one(half), "weight of a message is 0.5; expected 0 or 1");
    let user = r#"{"role": "user", "content": "b", "train": true}"#;
    check_error(&one(user), "train is true in a message of \"user\"");
}

#[test]
fn the_roles_of_tools_are_understood() {
    let text = r#"{"conversations": [{"from": "human", "value": "a"},
        {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"},
        {"from": "observation", "value": "21"}, {"from": "gpt", "value": "b"}]}"#;
    assert_eq!(parsed(text), "user:a|!assistant:|tool:21|!assistant:b");
    let text = r#"{"conversations": [{"from": "function_call", "value": "f()"}]}"#;
    check_error(
        text,
        "expected the JSON of an object with name and arguments",
    );
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
        r#"{"messages": [{"role": "user", "content": "a"}]}"#,
        "no message of the assistant",
    );
    check_error(
        r#"{"conversations": [{"from": "narrator", "value": "a"}]}"#,
        "a turn is from \"narrator\"; expected human, gpt, system, function_call or observation",
    );
    check_error(
        r#"{"conversations": [{"from": "system", "value": "s"}], "system": "t"}"#,
        "two system prompts differ",
    );
    let message =
        |content: &str| format!(r#"{{"messages": [{{"role": "user", "content": {content}}}]}}"#);
    check_error(
        &message("3"),
        "content is 3; expected a text or a list of parts",
    );
    check_error(
        &message(r#"[{"type": "image_url", "image_url": {}}]"#),
        "the type \"image_url\"; only \"text\"",
    );
    check_error(
        &message(r#"[{"type": "text", "text": "a", "weight": 0}]"#),
        "a part of a content has \"weight\"",
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

/// Lines of two answers, of which the second is not learned in the second line.
const TURNS: &str = r#"{"messages": [{"role": "u", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "u", "content": "c"}, {"role": "assistant", "content": "d"}]}
{"messages": [{"role": "u", "content": "e"}, {"role": "assistant", "content": "f"}, {"role": "u", "content": "g"}, {"role": "assistant", "content": "h", "weight": 0}]}"#;

#[test]
fn all_answers_are_learned_or_the_last() {
    let all = [("a", "b$"), ("abc", "d$"), ("e", "f$")];
    assert_eq!(check(TURNS, "", None, &all).n_unlearned, 0);
    let last = "[sft]\nanswers = \"last\"";
    // A line with nothing to learn is counted.
    assert_eq!(check(TURNS, last, None, &[("abc", "d$")]).n_unlearned, 1);
    let none = TURNS.lines().last().unwrap();
    let error = load("a.jsonl", none, last, None).unwrap_err().to_string();
    assert!(error.contains("no answer is learned"), "{error}");
}

#[test]
fn fields_that_are_not_used_are_counted() {
    let lines = format!(
        "{PAIR}\n{}\n{}\n",
        r#"{"id": 7, "prompt": "ab", "completion": "cd", "tools": "[]"}"#,
        r#"{"id": 8, "url": "x", "messages": [{"role": "u", "name": "n", "content": "a"}, {"role": "u", "name": "n", "content": "a"}, {"role": "assistant", "content": "b", "reasoning_content": "r"}]}"#,
    );
    let pairs = [("ab", "cd$"), ("ab", "cd$"), ("aa", "b$")];
    let source = check(&lines, "", None, &pairs);
    let unused: Vec<(&str, usize)> = source.unused.iter().map(|(k, n)| (&**k, *n)).collect();
    let expected = [
        ("id", 2),
        ("name of messages of the u", 1),
        ("reasoning_content of answers", 1),
        ("url", 1),
    ];
    assert_eq!(unused, expected);
}

#[test]
fn a_byte_order_mark_and_cr_lf_are_no_text() {
    let lines = format!("\u{feff}{PAIR}\r\n{CHAT}\r\n");
    check(&lines, "", None, &[("ab", "cd$"), ("a", "b$")]);
}

#[test]
fn an_answer_that_calls_a_tool_is_learned_as_written_or_refused() {
    let line = r#"{"messages": [{"role": "u", "content": "a"}, {"role": "assistant", "content": null, "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}]}]}"#;
    for template in [None, Some(TEMPLATE)] {
        let error = load("a.jsonl", line, "", template).unwrap_err().to_string();
        assert!(
            error.contains("line 1: an answer calls the tool \"f\""),
            "{error}"
        );
        assert!(
            error.contains("no chat template that writes tool calls"),
            "{error}"
        );
    }
    let template = "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}\
                    {% for c in m.tool_calls %}<{{ c.function.name }}>{% endfor %}>{% endfor %}\
                    {% if add_generation_prompt %}<a>{% endif %}";
    check(line, "", Some(template), &[("<u>a><a>", "<f>$")]);
    // Not learned, it is no matter.
    let line = line.replace("\"content\": null,", "\"weight\": 0,");
    let lines = format!("{line}\n{PAIR}\n");
    assert_eq!(check(&lines, "", None, &[("ab", "cd$")]).n_unlearned, 1);
}

#[test]
fn fields_and_columns_that_the_template_writes_are_used() {
    let line = r#"{"tools": [{"name": "f"}], "chat_template_kwargs": {"end": "e"}, "id": 1,
        "messages": [{"role": "u", "name": "b", "mood": "i", "content": "a"},
        {"role": "assistant", "content": "c", "reasoning_content": "d"}]}"#;
    let line = line.replace('\n', "");
    let template = "{% for t in tools or [] %}<{{ t.name }}>{% endfor %}\
                    {% for m in messages %}{{ m.name }}{% if m.reasoning_content %}\
                    <{{ m.reasoning_content }}>{% endif %}{{ m.content }}{{ end }}{% endfor %}";
    let source = check(&line, "", Some(template), &[("<f>bae", "<d>c$")]);
    let unused: Vec<&str> = source.unused.keys().map(String::as_str).collect();
    assert_eq!(unused, ["id", "mood of messages of the u"]);
    // LLaMA-Factory's data have tools as a text.
    let text = line.replace(r#"[{"name": "f"}]"#, r#""[{\"name\": \"f\"}]""#);
    check(&text, "", Some(template), &[("<f>bae", "<d>c$")]);
    // Without a template nothing of them is used.
    let source = check(&line, "", None, &[("a", "c$")]);
    assert_eq!(source.unused.len(), 6);
    let wrong = line.replace(r#"[{"name": "f"}]"#, "3");
    let error = load("a.jsonl", &wrong, "", Some(template)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("line 1: tools is 3; expected a list"),
        "{error}"
    );
}

#[test]
fn a_mask_written_out_is_text() {
    // Of `[MASK]` the tokenizer knows no character.
    let line = r#"{"prompt": "abcdefghijabcdef", "completion": "b[MASK]"}"#;
    let data = load("a.jsonl", line, "", Some(TEMPLATE)).unwrap();
    let ids = data.train[0].sequence(0).unwrap();
    assert_eq!(ids.iter().filter(|&&id| id == 0).count(), 0);
    assert_eq!(data.train[0].n_unknown, 6);
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
    let empty = r#"{"prompt": "abc", "completion": " "}"#;
    check("a.jsonl", empty, "", "line 1: an answer is empty");
    check("a.json", PAIR, "", "expected .jsonl; of a JSON array: `jq");
    check(
        "a.jsonl",
        &format!("[{PAIR}]"),
        "",
        "one JSON array; one object a line",
    );
    let foreign = r#"{"prompt": "ab", "completion": "xyzXY"}"#;
    check(
        "a.jsonl",
        foreign,
        "",
        "5 of 8 tokens are unknown to the tokenizer",
    );
}
