//! The tokenizer, the chat template, and conversations.

use std::ops::ControlFlow;
use std::path::Path;

use llada::sample::{Request, SampleConfig, sample};
use llada::text::{ChatTemplate, Message};
use llada::{Precision, Tokenizer};
use serde_json::Value;

use crate::files::{Case, cases, device, ids, load, root, rows};

/// The cases with a key.
fn with(key: &str) -> Vec<Case> {
    let found: Vec<Case> = cases("text")
        .into_iter()
        .filter(|case| case.has(key))
        .collect();
    assert!(!found.is_empty(), "no case has {key}");
    found
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn list<'a>(case: &'a Case, key: &str) -> &'a [Value] {
    case.json[key].as_array().unwrap()
}

fn config(case: &Case) -> SampleConfig {
    SampleConfig {
        steps: case.count("steps"),
        gen_length: case.count("gen_length"),
        block_length: Some(case.count("block_length")),
        ..SampleConfig::default()
    }
}

#[test]
fn the_tokenizer_is_the_reference_s() {
    for case in with("encode") {
        let file = root().join(case.text("tokenizer"));
        let tokenizer = Tokenizer::from_file(&file).unwrap();
        for (token, id) in case.json["special_ids"].as_object().unwrap() {
            assert_eq!(
                tokenizer.token_to_id(token).map(u64::from),
                id.as_u64(),
                "{token}"
            );
        }
        for encoded in list(&case, "encode") {
            let expected = ids(&encoded["ids"]);
            assert_eq!(tokenizer.encode(text(&encoded["text"])).unwrap(), expected);
            assert_eq!(
                tokenizer.decode(&expected, false).unwrap(),
                text(&encoded["decoded"])
            );
            let skipped = text(&encoded["decoded_skip_special"]);
            assert_eq!(tokenizer.decode(&expected, true).unwrap(), skipped);
        }
        for decoded in list(&case, "decode") {
            let ids = ids(&decoded["ids"]);
            assert_eq!(
                tokenizer.decode(&ids, false).unwrap(),
                text(&decoded["decoded"])
            );
            let skipped = text(&decoded["decoded_skip_special"]);
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), skipped);
        }
        for pair in list(&case, "encode_pair") {
            let (context, tail) = (text(&pair["context"]), text(&pair["continuation"]));
            let expected = (ids(&pair["context_ids"]), ids(&pair["continuation_ids"]));
            assert_eq!(
                tokenizer.encode_pair(context, tail).unwrap(),
                expected,
                "{context:?}"
            );
        }
        for until in list(&case, "until") {
            let stops: Vec<&str> = until["stops"]
                .as_array()
                .unwrap()
                .iter()
                .map(text)
                .collect();
            let found = tokenizer
                .decode_until(&ids(&until["output_ids"]), &stops)
                .unwrap();
            assert_eq!(found, text(&until["text"]), "{stops:?}");
        }
        let folder = file.parent().unwrap_or(Path::new("."));
        let template = ChatTemplate::from_dir(folder).unwrap();
        for chat in list(&case, "chat") {
            let messages: Vec<Message> = serde_json::from_value(chat["messages"].clone()).unwrap();
            let rendered = template.render(&messages, true).unwrap();
            assert_eq!(rendered, text(&chat["rendered"]));
            assert_eq!(tokenizer.encode(&rendered).unwrap(), ids(&chat["ids"]));
            let closed = text(&chat["rendered_without_generation_prompt"]);
            assert_eq!(template.render(&messages, false).unwrap(), closed);
        }
    }
}

#[test]
fn a_batch_of_questions_is_answered_as_by_the_reference() {
    for case in with("questions") {
        let folder = root().join("models").join(case.text("model"));
        let tokenizer = Tokenizer::from_dir(&folder).unwrap();
        let template = ChatTemplate::from_dir(&folder).unwrap();
        let model = load(case.text("model"), &device(), Precision::F32);
        let (prompts, masks) = (
            rows(&case.json["input_ids"]),
            rows(&case.json["attention_mask"]),
        );
        let mut requests = Vec::new();
        for ((question, prompt), mask) in list(&case, "questions").iter().zip(&prompts).zip(&masks)
        {
            let rendered = template
                .render(&[Message::user(text(question))], true)
                .unwrap();
            let ours = tokenizer.encode(&rendered).unwrap();
            let padding = mask.iter().filter(|&&keep| keep == 0).count();
            assert_eq!(ours, prompt[padding..], "{question}");
            requests.push(Request::generate(ours, config(&case)));
        }
        let outputs = sample(&model, &requests, &mut |_| ControlFlow::Continue(())).unwrap();
        let texts = list(&case, "texts")
            .iter()
            .zip(list(&case, "texts_with_special"));
        let recorded = rows(&case.json["output"]);
        for ((output, recorded), (plain, special)) in outputs.iter().zip(&recorded).zip(texts) {
            let answer = output.answer();
            assert_eq!(answer, &recorded[prompts[0].len()..], "{}", case.name);
            assert_eq!(tokenizer.decode(answer, true).unwrap(), text(plain));
            assert_eq!(tokenizer.decode(answer, false).unwrap(), text(special));
        }
    }
}

/// As in the reference's chat.py: a new turn goes after the ids of the conversation, without its
/// BOS; of an answer all ids but EOS stay.
#[test]
fn a_conversation_goes_on_as_in_the_reference() {
    for case in with("turns") {
        let folder = root().join("models").join(case.text("model"));
        let tokenizer = Tokenizer::from_dir(&folder).unwrap();
        let template = ChatTemplate::from_dir(&folder).unwrap();
        let model = load(case.text("model"), &device(), Precision::F32);
        let eos = model.config().eos_token_id.usual();
        let mut context: Vec<u32> = Vec::new();
        for turn in list(&case, "turns") {
            let rendered = template
                .render(&[Message::user(text(&turn["user"]))], true)
                .unwrap();
            let ids_of_turn = tokenizer.encode(&rendered).unwrap();
            context.extend(&ids_of_turn[usize::from(!context.is_empty())..]);
            assert_eq!(context, ids(&turn["prompt"]), "{}", case.name);
            let request = Request::generate(context.clone(), config(&case));
            let output = sample(&model, &[request], &mut |_| ControlFlow::Continue(()))
                .unwrap()
                .remove(0);
            assert_eq!(output.tokens, ids(&turn["output"]), "{}", case.name);
            let answer = tokenizer.decode(output.answer(), true).unwrap();
            assert_eq!(answer, text(&turn["answer_text"]), "{}", case.name);
            context = output.tokens.into_iter().filter(|&id| id != eos).collect();
            assert_eq!(context, ids(&turn["next_context"]), "{}", case.name);
        }
    }
}
