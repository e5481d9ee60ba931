//! What is answered, beside what the library says of the same.

use llada::diffusion::{Estimator, LikelihoodConfig};
use llada::{Overrides, Task};
use serde_json::{Value, json};

use crate::server::{Server, poems};

const FIRST: &str = "床前明月光，";
const REST: &str = "疑是地上霜。举头望明月，低头思故乡。";

fn texts(value: &Value) -> Vec<String> {
    let choices = value["choices"].as_array().unwrap();
    let text = |choice: &Value| choice["text"].as_str().unwrap().to_owned();
    choices.iter().map(text).collect()
}

#[test]
fn a_completion_is_that_of_the_library() {
    let server = Server::start();
    let answer = server
        .post("/v1/completions", &json!({"prompt": FIRST}))
        .ok();
    assert_eq!(texts(&answer), [REST]);
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["model"], "poems");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(
        answer["usage"],
        json!({"prompt_tokens": 6, "completion_tokens": 18, "total_tokens": 24})
    );
    // Ids are used as they are: no end of a document is shown.
    let llada = poems();
    let ids = llada.tokenizer.encode(FIRST).unwrap();
    let single = llada.generate(&ids[..], &Overrides::default()).unwrap();
    let answer = server.post("/v1/completions", &json!({"prompt": ids})).ok();
    assert_eq!(texts(&answer), [single.text]);
}

#[test]
fn several_prompts_and_samples_come_in_their_order() {
    let (server, llada) = (Server::start(), poems());
    let prompts = [FIRST, "白日依山尽，"];
    let body = json!({
        "prompt": prompts, "n": 2, "seed": 7, "temperature": 0.8, "top_p": 0.9, "steps": 9,
    });
    let answer = server.post("/v1/completions", &body).ok();
    let single = |(prompt, seed): (&str, u64)| {
        let overrides = Overrides {
            seed,
            temperature: 0.8,
            top_p: Some(0.9),
            steps: Some(9),
            ..Overrides::default()
        };
        llada.generate(prompt, &overrides).unwrap().text
    };
    let expected = [
        (prompts[0], 7),
        (prompts[0], 8),
        (prompts[1], 7),
        (prompts[1], 8),
    ];
    assert_eq!(texts(&answer), expected.map(single));
    for (at, choice) in answer["choices"].as_array().unwrap().iter().enumerate() {
        assert_eq!(choice["index"], at);
    }
}

#[test]
fn a_text_is_written_to_fit_before_its_suffix() {
    let server = Server::start();
    let body = json!({"prompt": FIRST, "suffix": "举头望明月，低头思故乡。", "max_tokens": 6});
    assert_eq!(
        texts(&server.post("/v1/completions", &body).ok()),
        ["疑是地上霜。"]
    );
}

#[test]
fn a_stream_never_takes_back_what_it_gave() {
    let server = Server::start();
    let body = json!({
        "prompt": FIRST, "stream": true, "block_length": 6, "echo": true,
        "stream_options": {"include_usage": true},
    });
    let chunks = server.post("/v1/completions", &body).chunks();
    let (last, chunks) = chunks.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 18);
    let mut whole = String::new();
    for chunk in chunks {
        assert!(chunk["usage"].is_null());
        whole += chunk["choices"][0]["text"].as_str().unwrap();
    }
    assert_eq!(whole, format!("{FIRST}{REST}"));
    // Blocks settle from the left: their text comes before the end.
    assert!(chunks.len() > 4, "{chunks:?}");
    assert_eq!(
        chunks.last().unwrap()["choices"][0]["finish_reason"],
        "length"
    );
}

#[test]
fn the_denoising_beside_a_stream_leads_from_masks_to_the_text() {
    let server = Server::start();
    let body = json!({
        "text": "□□□□□，低头思故乡。", "stream": true, "stream_mode": "denoise",
    });
    let answer = server.post("/v1/infill", &body);
    let events = answer.events();
    let data = |at: usize| serde_json::from_str::<Value>(&events[at].1).unwrap();
    assert_eq!(events[0].0, "canvas");
    let canvas = data(0);
    assert_eq!(canvas["masked"], json!([0, 1, 2, 3, 4]));
    assert_eq!(canvas["texts"][0], "□");
    let mut tokens = canvas["tokens"].as_array().unwrap().clone();
    let denoise = events.iter().filter(|(name, _)| name == "denoise");
    let mut steps = 0;
    for (_, text) in denoise {
        let event: Value = serde_json::from_str(text).unwrap();
        assert_eq!(event["step"], steps);
        steps += 1;
        let revealed = event["positions"].as_array().unwrap().iter();
        for (at, position) in revealed.enumerate() {
            let confidence = event["confidences"][at].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&confidence));
            tokens[usize::try_from(position.as_u64().unwrap()).unwrap()] =
                event["tokens"][at].clone();
        }
    }
    assert_eq!(steps, 5);
    let ends: Vec<_> = events.iter().filter(|(name, _)| name == "end").collect();
    let end: Value = serde_json::from_str(&ends[0].1).unwrap();
    let document = end["tokens"].as_array().unwrap();
    assert_eq!(
        tokens,
        document[..],
        "the end of the document is shown and no mask is left"
    );
    assert_eq!(end["text"], "举头望明月，低头思故乡。");
    // The result itself comes as it does without a stream.
    let result = &answer.chunks()[0];
    let whole = server
        .post("/v1/infill", &json!({"text": "□□□□□，低头思故乡。"}))
        .ok();
    for field in ["text", "tokens", "usage", "nfe", "steps"] {
        assert_eq!(result[field], whole[field], "{field}");
    }
    assert_eq!(whole["usage"]["prompt_tokens"], 7);
    assert_eq!(whole["usage"]["completion_tokens"], 5);
}

#[test]
fn an_answer_ends_before_a_stop() {
    let server = Server::start();
    let body = json!({"prompt": FIRST, "stop": ["举头", "思"], "block_length": 1});
    let answer = server.post("/v1/completions", &body).ok();
    assert_eq!(texts(&answer), ["疑是地上霜。"]);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    // What comes after it is not written.
    assert!(answer["llada"]["steps"].as_u64().unwrap() < 18, "{answer}");
    let mut body = body;
    body["stream"] = json!(true);
    let chunks = server.post("/v1/completions", &body).chunks();
    let text = |chunk: &Value| chunk["choices"][0]["text"].as_str().unwrap().to_owned();
    assert_eq!(chunks.iter().map(text).collect::<String>(), "疑是地上霜。");
}

#[test]
fn likelihoods_are_those_of_the_library() {
    let (server, llada) = (Server::start(), poems());
    for (name, estimator) in [
        ("l", Estimator::Count),
        ("t", Estimator::Ratio),
        ("chain", Estimator::Chain),
        ("confidence", Estimator::Confidence),
    ] {
        let config = LikelihoodConfig {
            mc_samples: 16,
            seed: 3,
            estimator,
            ..LikelihoodConfig::default()
        };
        let body = json!({
            "prompt": FIRST, "targets": ["疑是地上霜。", "疑是地上春。"], "estimator": name,
            "mc_samples": 16, "seed": 3,
        });
        let answer = server.post("/v1/likelihood", &body).ok();
        let single = llada.score(FIRST, "疑是地上霜。", &config).unwrap();
        let first = &answer["results"][0];
        assert_eq!(
            first["log_likelihood"], single.estimate.log_likelihood,
            "{name}"
        );
        assert_eq!(
            first["standard_error"], single.estimate.standard_error,
            "{name}"
        );
        assert_eq!(first["greedy_match"], true);
        assert_eq!(first["tokens"], 7);
        assert_eq!(answer["results"][1]["greedy_match"], false);
    }
}

#[test]
fn an_echoed_prompt_is_scored_by_the_chain_rule() {
    let (server, llada) = (Server::start(), poems());
    let ids = llada.tokenizer.encode("床前明月光，疑").unwrap();
    let body = json!({
        "prompt": [ids], "echo": true, "logprobs": 1, "max_tokens": 1, "temperature": 0,
        "seed": 1234,
    });
    let answer = server.post("/v1/completions", &body).ok();
    let logprobs = &answer["choices"][0]["logprobs"];
    let values = logprobs["token_logprobs"].as_array().unwrap();
    // lm-evaluation-harness leaves out the last one, which is generated.
    assert_eq!(values.len(), ids.len() + 1);
    assert!(values[0].is_null());
    let config = LikelihoodConfig {
        estimator: Estimator::Chain,
        ..LikelihoodConfig::default()
    };
    let single = llada.score(&ids[..1], &ids[1..], &config).unwrap();
    let sum: f64 = values[1..ids.len()]
        .iter()
        .map(|value| value.as_f64().unwrap())
        .sum();
    let difference = (sum - single.estimate.log_likelihood).abs();
    assert!(difference < 1e-4 * ids.len() as f64, "{sum} {single:?}");
    // Where the token is the likeliest one, the two values are one.
    for (value, top) in values
        .iter()
        .zip(logprobs["top_logprobs"].as_array().unwrap())
        .skip(1)
    {
        let best = top.as_object().unwrap().values().next().unwrap();
        assert!(best.as_f64() >= value.as_f64(), "{best} {value}");
    }
    assert_eq!(
        logprobs["text_offset"].as_array().unwrap().len(),
        values.len()
    );
}

#[test]
fn a_chat_is_the_completion_of_its_template() {
    let server = Server::start();
    let messages = json!([{"role": "user", "content": [{"type": "text", "text": FIRST}]}]);
    let body = json!({"model": "chat", "messages": messages, "max_completion_tokens": 18});
    let answer = server.post("/v1/chat/completions", &body).ok();
    assert_eq!(
        answer["choices"][0]["message"],
        json!({
            "role": "assistant", "content": REST, "refusal": null,
        })
    );
    let mut body = body;
    body["stream"] = json!(true);
    let chunks = server.post("/v1/chat/completions", &body).chunks();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let text = |chunk: &Value| {
        chunk["choices"][0]["delta"]["content"]
            .as_str()
            .map(str::to_owned)
    };
    assert_eq!(chunks.iter().filter_map(text).collect::<String>(), REST);
    assert_eq!(
        chunks.last().unwrap()["choices"][0]["finish_reason"],
        "length"
    );
}

#[test]
fn words_and_samples_of_an_infill() {
    let server = Server::start();
    let body = json!({
        "text": "□□□□□，低头思故乡。", "words": [{"at": 3, "text": "明月"}], "n": 2,
        "temperature": 0.7,
    });
    let answer = server.post("/v1/infill", &body).ok();
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 2);
    for choice in choices {
        let text: Vec<char> = choice["text"].as_str().unwrap().chars().collect();
        assert_eq!(text[3..5], ['明', '月'], "{answer}");
    }
    let answer = server
        .post("/v1/infill", &json!({"text": "a*b*", "mask": "*"}))
        .ok();
    let unknown = answer["unknown"].as_array().unwrap();
    assert_eq!(unknown, &[json!("a"), json!("b")]);
    let text = answer["text"].as_str().unwrap();
    assert!(text.starts_with('a') && text.contains('b'), "{text}");
}

#[test]
fn texts_and_tokens_are_those_of_the_tokenizer() {
    let (server, llada) = (Server::start(), poems());
    let ids = llada.encode(&Task::generate(FIRST)).unwrap().ids;
    let answer = server.post("/tokenize", &json!({"prompt": FIRST})).ok();
    assert_eq!(answer["tokens"], json!(ids));
    assert_eq!(answer["max_model_len"], 256);
    let answer = server.post("/detokenize", &json!({"tokens": ids})).ok();
    assert_eq!(answer["prompt"], FIRST);
    let info = server.get("/tokenizer_info?model=chat").ok();
    assert_eq!(info["eos_token"], "[EOS]");
    assert_eq!(info["mask_token"], "[MASK]");
    assert_eq!(info["chat_template"], "{{ messages[-1].content }}");
    // A mask token that is written out is text, which this vocabulary does not know.
    let answer = server
        .post("/v1/completions", &json!({"prompt": "[MASK]床前"}))
        .ok();
    assert!(
        answer["llada"]["unknown"]
            .as_array()
            .is_some_and(|all| !all.is_empty()),
        "{answer}"
    );
}

#[test]
fn the_document_has_every_path_and_the_models_their_facts() {
    let server = Server::start();
    let document = server.get("/openapi.json").ok();
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    for path in [
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/infill",
        "/v1/likelihood",
        "/v1/models",
        "/tokenize",
        "/detokenize",
        "/tokenizer_info",
        "/health",
        "/metrics",
    ] {
        assert!(paths.iter().any(|known| *known == path), "{path} {paths:?}");
    }
    let models = server.get("/v1/models").ok();
    assert_eq!(models["data"][1]["id"], "chat");
    assert_eq!(models["data"][1]["llada"]["has_chat_template"], true);
    assert_eq!(models["data"][0]["llada"]["max_sequence_length"], 256);
    assert_eq!(server.get("/v1/models/poems").ok()["id"], "poems");
    assert_eq!(server.get("/health").ok()["status"], "ok");
    let page = server.get("/");
    assert_eq!(page.status, 200);
    assert!(
        page.head
            .contains("content-security-policy: default-src 'self'"),
        "{}",
        page.head
    );
}
