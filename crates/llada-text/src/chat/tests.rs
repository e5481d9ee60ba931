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
