//! Tokenizers and chat templates of the families.

use llada::Tokenizer;
use llada::text::{ChatTemplate, Message};

use crate::families::families;
use crate::files::ids;

#[test]
fn tokenizers_and_templates_are_the_reference_s() {
    let mut n = 0;
    for family in families() {
        let path = family.path("text.json");
        if !path.is_file() {
            continue;
        }
        let case: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let file = family.path(case["tokenizer"].as_str().unwrap());
        let tokenizer = Tokenizer::from_file(&file).unwrap();
        for encoded in case["encode"].as_array().unwrap() {
            let text = encoded["text"].as_str().unwrap();
            assert_eq!(
                tokenizer.encode(text).unwrap(),
                ids(&encoded["ids"]),
                "{text:?}"
            );
        }
        let token = case["mask_added_token"].as_str().unwrap();
        let mask = tokenizer.token_to_id(token).map(u64::from);
        assert_eq!(mask, case["mask_id"].as_u64());
        // It is found without being told.
        let dir = file.parent().unwrap();
        let source = llada::ModelSource::open(dir).unwrap();
        assert_eq!(Some(u64::from(source.config().mask_token_id)), mask);
        let template = ChatTemplate::from_dir(dir).unwrap();
        for chat in case["chat"].as_array().unwrap() {
            let messages = chat["messages"].as_array().unwrap().iter();
            let text =
                |message: &serde_json::Value, key: &str| message[key].as_str().unwrap().to_owned();
            let messages: Vec<Message> = messages
                .map(|message| Message::new(&text(message, "role"), text(message, "content")))
                .collect();
            let rendered = template.render(&messages, true).unwrap();
            assert_eq!(rendered, chat["rendered"].as_str().unwrap());
        }
        n += 1;
    }
    assert!(n > 0, "no tokenizer is recorded");
}
