use super::*;

/// Writes the files into a folder and renders a short conversation.
fn render(files: &[(&str, &str)]) -> Result<String> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    ChatTemplate::from_dir(dir.path())?.render(&[Message::user(" hi ")], true)
}

#[test]
fn a_template_comes_from_any_of_the_places_where_models_keep_it() {
    let template = "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m.content.strip() }}\
                    {% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    let expected = "<s><user>hi<assistant>";
    let config = serde_json::json!({ "bos_token": "<s>", "chat_template": template });
    assert_eq!(render(&[(CONFIG, &config.to_string())]).unwrap(), expected);
    let list = serde_json::json!([
        { "name": "tools", "template": "no" },
        { "name": "default", "template": template },
    ]);
    let config = serde_json::json!({ "bos_token": { "content": "<s>" }, "chat_template": list });
    assert_eq!(render(&[(CONFIG, &config.to_string())]).unwrap(), expected);
    let config = r#"{"bos_token": "<s>"}"#;
    let files = [(CONFIG, config), (TEMPLATE, template)];
    assert_eq!(render(&files).unwrap(), expected);
}

#[test]
fn a_saved_template_is_read_as_it_was() {
    let template =
        "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}";
    let special = vec![("bos_token".to_owned(), "<s>".to_owned())];
    let saved = ChatTemplate::new(template, special, Path::new("t.gguf"));
    let dir = tempfile::tempdir().unwrap();
    saved.save(dir.path()).unwrap();
    let read = ChatTemplate::from_dir(dir.path()).unwrap();
    let messages = [Message::user("hi")];
    let text = read.render(&messages, true).unwrap();
    assert_eq!(text, "<s><user>hi");
    assert_eq!(text, saved.render(&messages, true).unwrap());
}

#[test]
fn what_is_wrong_is_an_error_that_names_the_file() {
    #[track_caller]
    fn check(files: &[(&str, &str)], message: &str) {
        let error = render(files).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    check(&[], "has no chat template");
    check(&[(CONFIG, "{}")], "has no chat template");
    check(&[(CONFIG, "{")], "tokenizer_config.json");
    check(&[(TEMPLATE, "{% for %}")], "chat_template.jinja");
    check(
        &[(TEMPLATE, "{{ raise_exception('no') }}")],
        "chat_template.jinja",
    );
}

/// Expressions and what transformers 5.24 (jinja2 3.1.6) makes of them, see
/// `tools/chat_template_goldens.py`.
#[test]
fn expressions_are_written_as_in_transformers() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/expressions.json")).unwrap();
    let environment = environment::environment(&Zoned::now()).unwrap();
    let context = environment::value(&fixture["context"]);
    let mut differ = Vec::new();
    for case in fixture["cases"].as_array().unwrap() {
        let template = case["template"].as_str().unwrap();
        let source = source::prepare(template);
        let ours = environment.render_str(&source, context.clone());
        let same = match (&ours, case["ok"].as_str()) {
            (Ok(text), Some(expected)) => text == expected,
            (Err(_), None) => true,
            _ => false,
        };
        if !same {
            differ.push(format!("{template}\n  {case}\n  {ours:?}"));
        }
    }
    assert!(
        differ.is_empty(),
        "{}\n{} differ",
        differ.join("\n"),
        differ.len()
    );
}

/// Templates and conversations of this project, and what transformers 5.24 makes of them, see
/// `tools/chat_template_goldens.py`.
#[test]
fn conversations_are_rendered_as_in_transformers() {
    replay(include_str!("fixtures/conversations.json"));
}

/// Replays another set of the same layout, such as one of all templates that a package ships.
#[test]
fn recorded_templates_are_rendered_as_in_transformers() {
    if let Ok(path) = std::env::var("LLADA_CHAT_TEMPLATES") {
        replay(&fs::read_to_string(path).unwrap());
    }
}

#[track_caller]
fn replay(recorded: &str) {
    let recorded: Value = serde_json::from_str(recorded).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let special = recorded["special"].as_object().unwrap();
    let special: Vec<_> = special
        .iter()
        .map(|(name, token)| (name.clone(), text(token)))
        .collect();
    let mut differ = Vec::new();
    for case in recorded["cases"].as_array().unwrap() {
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        let list = |name: &str| case.get(name).and_then(Value::as_array).cloned();
        let known = ["name", "template", "case", "messages", "ok", "err"];
        let mut variables = case.as_object().unwrap().clone();
        variables.retain(|name, _| !known.contains(&&**name));
        let inputs = ChatInputs {
            add_generation_prompt: case["add_generation_prompt"] == true,
            tools: list("tools"),
            documents: list("documents"),
            variables,
            now: Some("2026-11-03T14:05:09Z".parse::<Timestamp>().unwrap().into()),
        };
        let name = text(&case["name"]);
        let template =
            ChatTemplate::new(&text(&case["template"]), special.clone(), Path::new(&name));
        let ours = template.render_with(&messages, &inputs);
        match (&ours, case["ok"].as_str()) {
            (Ok(text), Some(expected)) if text == expected => {}
            // What Jinja2 refuses, such as a loop over none, may be rendered.
            (_, None) => {}
            (Ok(text), Some(expected)) => {
                let same = text
                    .bytes()
                    .zip(expected.bytes())
                    .take_while(|(a, b)| a == b)
                    .count();
                let near = |text: &str| {
                    let part: Vec<u8> = text
                        .bytes()
                        .skip(same.saturating_sub(30))
                        .take(90)
                        .collect();
                    String::from_utf8_lossy(&part).into_owned()
                };
                differ.push(format!(
                    "{name} {}\n  {:?}\n  {:?}",
                    case["case"],
                    near(expected),
                    near(text)
                ));
            }
            (Err(error), Some(_)) => {
                let source = std::error::Error::source(error);
                differ.push(format!("{name} {}: {}", case["case"], source.unwrap()));
            }
        }
    }
    assert!(
        differ.is_empty(),
        "{}\n{} differ",
        differ.join("\n"),
        differ.len()
    );
}
