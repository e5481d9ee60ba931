//! Models of other families: their settings, what they edit, and their reasoning.

use std::path::{Path, PathBuf};

use llada::text::ChatTemplate;
use llada::{Checkpoint, CpuConfig, Device, OpenOptions, Precision, Tokenizer};
use llada_serve::Model;
use serde_json::{Value, json};

use crate::server::{Answer, Server, config};

fn goldens(family: &str) -> PathBuf {
    let folder = "../llada/tests/goldens/families";
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(folder)
        .join(family)
}

fn golden(family: &str, name: &str) -> Value {
    let path = goldens(family).join("generate").join(name);
    let text = std::fs::read_to_string(path.with_extension("json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A model of the goldens; one without a tokenizer writes numbers.
fn model(family: &str, name: &str, template: Option<&str>) -> Model {
    let device = Device::cpu(CpuConfig {
        threads: 1,
        ..CpuConfig::default()
    });
    // The configurations of LLaDA2.x name no mask, and these models have no tokenizer.
    let mask_token_id = family.starts_with("llada2").then_some(283);
    let path = goldens(family).join("models").join(name);
    let checkpoint = Checkpoint::open_with(&path, OpenOptions { mask_token_id }).unwrap();
    let numbers = |_| Tokenizer::of_numbers(checkpoint.config().vocab_size);
    let tokenizer = checkpoint.tokenizer().unwrap_or_else(numbers);
    let llada = checkpoint.frozen_with(tokenizer, &device.unwrap(), Precision::F32);
    let template = template.map(|source| ChatTemplate::new(source, Vec::new(), "a test".as_ref()));
    Model::new(
        family.to_owned(),
        llada.unwrap(),
        template,
        checkpoint.config(),
    )
}

fn serving(family: &str, name: &str, template: Option<&str>) -> Server {
    Server::of(vec![model(family, name, template)], config())
}

fn numbers(tokens: &[Value]) -> String {
    let tokens: Vec<String> = tokens.iter().map(Value::to_string).collect();
    tokens.join(" ")
}

fn text(answer: &Value) -> &str {
    answer["choices"][0]["text"].as_str().unwrap()
}

#[test]
fn the_settings_of_a_family_are_fields() {
    let server = serving("dream", "gqa-f32", None);
    let recorded = golden("dream", "entropy_top_p");
    let prompt = &recorded["prompt"][0];
    let body = json!({
        "prompt": prompt, "max_tokens": 16, "steps": 6, "alg": "entropy", "alg_temp": 0,
        "eps": 0.001, "top_p": 0.9,
    });
    let answer = server.post("/v1/completions", &body).ok();
    let n = prompt.as_array().unwrap().len();
    let output = recorded["output"][0].as_array().unwrap();
    assert_eq!(text(&answer), numbers(&output[n..]));
    let card = &server.get("/v1/models").ok()["data"][0]["llada"];
    assert_eq!(card["protocol"], "dream");

    let server = serving("illada", "gqa-tied-f32", None);
    let recorded = golden("illada", "var_stop_text");
    let mut body = json!({
        "prompt": recorded["prompt"], "max_tokens": 48, "steps": 8, "block_length": 8,
        "stop": "themz", "variable_length": true,
    });
    let answer = server.post("/v1/completions", &body).ok();
    assert_eq!(text(&answer), recorded["answer_text"]);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    body["variable_length"] = json!(false);
    body["steps"] = json!(48);
    let fixed = server.post("/v1/completions", &body).ok();
    assert_ne!(text(&fixed), text(&answer));
}

#[test]
fn a_setting_of_another_loop_is_an_error_that_names_it() {
    let server = serving("llada2", "mini-f32", None);
    let check = |field: &str, value: Value, part: &str| {
        let mut body = json!({"prompt": [70, 71], "max_tokens": 32});
        body[field] = value;
        let answer = server.post("/v1/completions", &body);
        let (status, param, _) = answer.error();
        assert_eq!((status, param), (400, json!(field)), "{answer:?}");
        let message = answer.json()["error"]["message"].to_string();
        assert!(message.contains(part), "{message}");
    };
    check("alg", json!("entropy"), "block_diffusion");
    check("alg", json!("best"), "topk_margin");
    check("eps", json!(0.1), "block_diffusion");
    check("block_length", json!(16), "must be 32");
    check("minimal_topk", json!(0), "at least 1");
    check("remasking", json!("random"), "block diffusion");
    check("variable_length", json!(true), "block_diffusion");
    check("end_think_power", json!(3), "end_think_boost");
    check("end_think_boost", json!(100), "no tokens for </think>");
    check("factor", json!(1), "block_diffusion");
}

/// The canvas at the end of the events of a stream.
fn followed(answer: &Answer, mask: &Value) -> (Vec<Value>, Vec<String>) {
    let place = |edit: &Value| usize::try_from(edit["position"].as_u64().unwrap()).unwrap();
    let (mut canvas, mut kinds) = (Vec::new(), Vec::new());
    for (name, data) in answer.events() {
        let Ok(event) = serde_json::from_str::<Value>(&data) else {
            continue;
        };
        match &*name {
            "canvas" => {
                canvas.clone_from(event["tokens"].as_array().unwrap());
                let masked = event["masked"].as_array().unwrap();
                let first = usize::try_from(masked[0].as_u64().unwrap()).unwrap();
                assert!(canvas[first..].iter().all(|token| token == mask));
            }
            "denoise" => {
                let edits = event["edits"].as_array().cloned().unwrap_or_default();
                if !edits.is_empty() {
                    let bound = |at: usize| usize::try_from(event["window"][at].as_u64().unwrap());
                    let (start, end) = (bound(0).unwrap(), bound(1).unwrap());
                    let mut block = canvas[start..end].to_vec();
                    let places = |kind: &str| {
                        let of_kind = edits.iter().filter(|edit| edit["kind"] == kind);
                        let mut places: Vec<_> = of_kind.map(|edit| place(edit) - start).collect();
                        places.sort_unstable();
                        places
                    };
                    for at in places("deleted").into_iter().rev() {
                        block.remove(at);
                    }
                    for at in places("inserted") {
                        block.insert(at, mask.clone());
                    }
                    block.resize(end - start, mask.clone());
                    canvas.splice(start..end, block);
                }
                for edit in edits {
                    kinds.push(edit["kind"].as_str().unwrap().to_owned());
                    if edit["kind"] == "replaced" {
                        assert_eq!(canvas[place(&edit)], edit["from"], "{edit}");
                        canvas[place(&edit)] = edit["to"].clone();
                    }
                }
                let positions = event["positions"].as_array().unwrap().iter();
                for (position, token) in positions.zip(event["tokens"].as_array().unwrap()) {
                    let at = usize::try_from(position.as_u64().unwrap()).unwrap();
                    assert_eq!(&canvas[at], mask);
                    canvas[at] = token.clone();
                }
            }
            _ => {}
        }
    }
    (canvas, kinds)
}

#[test]
fn a_stream_tells_edits_and_takes_no_settled_text_back() {
    for (family, name, settings, kinds) in [
        (
            "llada2",
            "21_block32",
            json!({"max_tokens": 32, "threshold": 0.7, "editing_threshold": 0.5}),
            &["replaced"][..],
        ),
        (
            "llada22",
            "default",
            json!({"max_tokens": 25, "steps": 8, "early_stop": false}),
            &["replaced", "deleted"],
        ),
        (
            "llada22",
            "few_post_steps",
            json!({
                "max_tokens": 26, "steps": 8, "threshold": 0.4, "max_post_steps": 2,
                "early_stop": false,
            }),
            &["replaced", "inserted"],
        ),
    ] {
        let server = serving(family, "mini-f32", None);
        let recorded = golden(family, name);
        let mut body = settings;
        body["prompt"] = recorded["prompt"].clone();
        let whole = server.post("/v1/completions", &body).ok();
        body["stream"] = json!(true);
        body["stream_mode"] = json!("denoise");
        let answer = server.post("/v1/completions", &body);
        let chunks = answer.chunks();
        let piece = |chunk: &Value| text(chunk).to_owned();
        assert_eq!(chunks.iter().map(piece).collect::<String>(), text(&whole));
        let (canvas, edited) = followed(&answer, &recorded["mask_id"]);
        for kind in kinds {
            assert!(edited.iter().any(|known| known == kind), "{kind}");
        }
        match &recorded["canvas"] {
            Value::Null => {
                let n = recorded["prompt"].as_array().unwrap().len();
                let output = recorded["output"].as_array().unwrap();
                assert_eq!(json!(canvas[n..n + output.len()]), json!(output));
                assert_eq!(json!(edited.len()), recorded["edits"]);
            }
            whole => assert_eq!(&json!(canvas), whole),
        }
        // The whole text was given out as it settled, block by block.
        assert!(chunks.len() > 2, "{chunks:?}");
    }
}

#[test]
fn confidences_are_those_of_the_tokens_that_stay() {
    let server = serving("llada2", "mini-f32", None);
    let recorded = golden("llada2", "21_block32");
    let body = json!({
        "prompt": recorded["prompt"], "max_tokens": 32, "threshold": 0.7,
        "editing_threshold": 0.5, "logprobs": 1,
    });
    let answer = server.post("/v1/completions", &body).ok();
    let logprobs = answer["choices"][0]["logprobs"]["token_logprobs"].clone();
    let logprobs = logprobs.as_array().unwrap();
    assert_eq!(logprobs.len(), 32);
    for log_p in logprobs {
        assert!(log_p.as_f64().is_some_and(|log_p| log_p <= 0.0), "{log_p}");
    }
}

const PLAIN: &str = "{{ messages[-1].content }}";
const THINKING: &str = "{{ messages[-1].content }}<think>\n";

/// A chat whose answer is made to end its reasoning on its way.
fn body() -> Value {
    json!({
        "messages": [{"role": "user", "content": "as as"}], "max_tokens": 32,
        "block_length": 8, "steps": 8, "end_think_boost": 1e6, "end_think_power": 10,
    })
}

#[test]
fn reasoning_is_a_field_of_its_own() {
    let server = serving("illada", "gqa-tied-f32", Some(THINKING));
    let answer = server.post("/v1/chat/completions", &body()).ok();
    let message = &answer["choices"][0]["message"];
    let [reasoning, content] = ["reasoning_content", "content"].map(|key| {
        let text = message[key].as_str().unwrap();
        assert!(!text.is_empty() && !text.contains("think>"), "{text:?}");
        text
    });
    let mut streamed = body();
    streamed["stream"] = json!(true);
    streamed["stream_mode"] = json!("denoise");
    let stream = server.post("/v1/chat/completions", &streamed);
    let mut parts = [String::new(), String::new()];
    for chunk in stream.chunks() {
        let delta = &chunk["choices"][0]["delta"];
        for (part, key) in parts.iter_mut().zip(["reasoning_content", "content"]) {
            part.push_str(delta[key].as_str().unwrap_or_default());
        }
        // Reasoning comes first.
        assert!(delta["reasoning_content"].is_null() || parts[1].is_empty());
    }
    assert_eq!(parts, [reasoning, content]);
    let ends = stream.events().into_iter().find(|(name, _)| name == "end");
    let end: Value = serde_json::from_str(&ends.unwrap().1).unwrap();
    assert_eq!(end["reasoning_content"], reasoning);
    assert_eq!(end["text"], content);
    // Cut short, all of it is reasoning.
    let mut short = body();
    short["end_think_boost"] = Value::Null;
    short["end_think_power"] = Value::Null;
    short["max_tokens"] = json!(16);
    let answer = server.post("/v1/chat/completions", &short).ok();
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["content"], "");
    assert!(message["reasoning_content"].is_string(), "{message}");
}

#[test]
fn a_model_that_begins_no_reasoning_answers_as_before() {
    let server = serving("illada", "gqa-tied-f32", Some(PLAIN));
    let answer = server.post("/v1/chat/completions", &body()).ok();
    let message = answer["choices"][0]["message"].as_object().unwrap();
    assert!(!message.contains_key("reasoning_content"), "{message:?}");
    assert!(message["content"].as_str().unwrap().contains("</think>"));
}
