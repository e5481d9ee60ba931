//! Tests of conversations.

use super::*;

fn two_turns() -> Conversation {
    let mut talk = Conversation {
        system: Some("s".to_owned()),
        ..Conversation::default()
    };
    for (asked, answer) in [("a", "b"), ("c", "d")] {
        talk.turns.push(Message::user(asked));
        let parts = Parts {
            content: answer.to_owned(),
            ..Parts::default()
        };
        talk.add_answer(&parts, answer == "d");
    }
    talk
}

fn contents(messages: &[Message]) -> String {
    messages.iter().filter_map(Message::content).collect()
}

#[test]
fn the_last_exchange_is_taken_back() {
    let mut talk = two_turns();
    assert_eq!(contents(&talk.messages()), "sabcd");
    assert_eq!(contents(&talk.reopen().expect("a message")), "d");
    assert_eq!(contents(&talk.messages()), "sabc");
    let asked = talk.undo().expect("a message");
    assert_eq!(asked.content(), Some("c"));
    assert!(talk.undo().is_some() && talk.turns.is_empty());
    assert!(talk.undo().is_none() && talk.reopen().is_none());
}

#[test]
fn what_is_saved_is_loaded() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("talk.jsonl");
    let talk = two_turns();
    assert_eq!(talk.save(&path).expect("a line"), 1);
    let mut longer = talk.clone();
    longer.turns.push(Message::user("e\n龘"));
    assert_eq!(longer.save(&path).expect("a line"), 2);
    let (loaded, place) = Conversation::load(&path).expect("a conversation");
    assert_eq!(loaded, longer);
    assert!(place.ends_with("line 2"), "{place}");
    let text = std::fs::read_to_string(&path).expect("a file");
    let stopped = r#"{"role":"assistant","content":"d","weight":0}"#;
    assert!(text.lines().all(|line| line.contains(stopped)), "{text}");
}

#[test]
fn files_without_messages_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("talk.jsonl");
    let error = Conversation::default().save(&path).expect_err("empty");
    assert!(error.to_string().contains("nothing was said"), "{error}");
    std::fs::write(&path, "{\"prompt\": \"a\"}\n").expect("a file");
    let error = Conversation::load(&path).expect_err("a prompt").to_string();
    assert!(
        error.contains("line 1") && error.contains("messages"),
        "{error}"
    );
}
