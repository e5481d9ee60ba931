//! Tests of what is typed.

use super::*;

#[track_caller]
fn check(typed: &str, expected: &Entry) {
    assert_eq!(&Entry::parse(typed).expect("a command"), expected);
}

#[track_caller]
fn fails(typed: &str, parts: &[&str]) {
    let error = Entry::parse(typed).expect_err("no command").to_string();
    for part in parts {
        assert!(error.contains(part), "no {part:?} in {error}");
    }
}

#[test]
fn a_line_without_a_slash_is_a_message_as_it_is() {
    check("春夏秋冬", &Entry::Message("春夏秋冬".into()));
    check(" a / b\n c ", &Entry::Message(" a / b\n c ".into()));
    check("//set", &Entry::Message("/set".into()));
}

#[test]
fn commands_are_read_with_what_follows_them() {
    check("/help", &Entry::Help);
    check(" /quit ", &Entry::Quit);
    check("/clear", &Entry::Clear);
    check("/undo", &Entry::Undo);
    check("/retry", &Entry::Retry);
    check("/show", &Entry::Show);
    check("/system", &Entry::System(String::new()));
    let system = "Be brief.\nBe kind.";
    check(&format!("/system {system}"), &Entry::System(system.into()));
    check("/save my talk.jsonl", &Entry::Save("my talk.jsonl".into()));
    check("/load\ta.jsonl", &Entry::Load("a.jsonl".into()));
    check("/watch off", &Entry::Watch(false));
    check("/watch on", &Entry::Watch(true));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    check(
        "/set temperature 0.7",
        &Entry::Set(vec![pair("temperature", "0.7")]),
    );
    check(
        "/set --top-k=5  seed -1",
        &Entry::Set(vec![pair("--top-k", "5"), pair("seed", "-1")]),
    );
}

#[test]
fn wrong_commands_say_what_is_expected() {
    fails("/sett a 1", &["/sett: no such command", "/set?"]);
    fails("/", &["no such command", "/help"]);
    fails("/etc/passwd", &["no such command", "//"]);
    fails("/quit now", &["/quit takes nothing"]);
    fails("/set", &["/set NAME VALUE"]);
    fails("/set temperature", &["/set NAME VALUE"]);
    fails("/set steps 4 seed", &["/set NAME VALUE"]);
    fails("/save", &["/save FILE.jsonl"]);
    fails("/watch maybe", &["/watch on|off"]);
}

#[test]
fn the_help_names_every_command() {
    let help = help();
    for (name, ..) in COMMANDS {
        assert!(help.contains(name), "{name}");
    }
}
