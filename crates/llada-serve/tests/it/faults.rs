//! Clients that do what they should not.

use std::io::Write as _;
use std::time::Duration;

use llada_serve::{Keys, ServeConfig};
use serde_json::{Value, json};

use crate::server::{Server, config, read};

const JSON: &str = "Content-Type: application/json\r\n";

/// The field of the error to a body.
#[track_caller]
fn check(server: &Server, path: &str, body: &Value, status: u16, param: &str) {
    let error = server.post(path, body).error();
    assert_eq!(
        (error.0, &error.1),
        (status, &json!(param)),
        "{path} {body}"
    );
}

#[test]
fn a_field_that_does_not_fit_is_named() {
    let server = Server::start();
    let completion = |body: Value, param: &str| {
        check(&server, "/v1/completions", &body, 400, param);
    };
    completion(json!({"prompt": "床", "steps": 0}), "steps");
    completion(json!({"prompt": "床", "max_tokens": 0}), "max_tokens");
    completion(json!({"prompt": "床", "max_tokens": 1000}), "max_tokens");
    completion(
        json!({"prompt": "床", "max_tokens": 8, "gen_length": 9}),
        "gen_length",
    );
    completion(json!({"prompt": "床", "temperature": -1}), "temperature");
    completion(json!({"prompt": "床", "top_p": 0}), "top_p");
    completion(json!({"prompt": "床", "top_k": 0}), "top_k");
    completion(json!({"prompt": "床", "remasking": "best"}), "remasking");
    completion(json!({"prompt": "床", "cache": "all"}), "cache");
    completion(json!({"prompt": "床", "preset": ""}), "preset");
    completion(json!({"prompt": "床", "preset": "quick"}), "preset");
    completion(
        json!({"prompt": "床", "cache": "dual", "cfg_scale": 1}),
        "cache",
    );
    completion(json!({"prompt": "床", "vicinity": 2}), "vicinity");
    completion(json!({"prompt": "床", "keep_active": 2}), "keep_active");
    completion(json!({"prompt": "床", "speculate": 65}), "speculate");
    completion(json!({"prompt": "床", "threshold": 2}), "threshold");
    completion(
        json!({"prompt": "床", "threshold": 0.5, "factor": 1}),
        "threshold",
    );
    completion(
        json!({"prompt": "床", "low_threshold": 0.5}),
        "low_threshold",
    );
    completion(
        json!({"prompt": "床", "block_length": 1, "steps": 2}),
        "steps",
    );
    completion(json!({"prompt": "床", "timeout": -1}), "timeout");
    completion(json!({"prompt": "床", "n": 0}), "n");
    completion(json!({"prompt": "床", "n": 1000}), "n");
    completion(json!({"prompt": "床", "stop": ""}), "stop");
    completion(json!({"prompt": "床", "logprobs": 5}), "logprobs");
    completion(
        json!({"prompt": "床", "presence_penalty": 0.5}),
        "presence_penalty",
    );
    completion(
        json!({"prompt": "床", "logit_bias": {"5": 1}}),
        "logit_bias",
    );
    completion(json!({"prompt": "床", "best_of": 3}), "best_of");
    completion(json!({"prompt": ""}), "prompt");
    completion(json!({"prompt": []}), "prompt");
    completion(json!({"prompt": ["床", ""]}), "prompt[1]");
    completion(json!({"prompt": [999_999]}), "prompt");
    completion(json!({"prompt": "hello"}), "prompt");
    let unknown = json!({"model": "gpt", "prompt": "床"});
    check(&server, "/v1/completions", &unknown, 404, "model");
    // What asks for nothing is no error.
    let neutral = json!({
        "prompt": "床前明月光，", "presence_penalty": 0.0, "frequency_penalty": 0, "logit_bias": {},
        "best_of": 1, "user": "me", "logprobs": null, "suffix": null,
    });
    server.post("/v1/completions", &neutral).ok();
}

#[test]
fn a_field_of_other_paths_is_named_too() {
    let server = Server::start();
    let chat = |body: Value, param: &str| {
        check(&server, "/v1/chat/completions", &body, 400, param);
    };
    let messages = json!([{"role": "user", "content": "床"}]);
    chat(json!({"messages": messages}), "messages");
    chat(json!({"model": "chat", "messages": []}), "messages");
    chat(
        json!({"model": "chat", "messages": [{"content": "床"}]}),
        "messages[0].role",
    );
    let image = json!([{"role": "user", "content": [{"type": "image_url"}]}]);
    chat(
        json!({"model": "chat", "messages": image}),
        "messages[0].content[0]",
    );
    chat(
        json!({"model": "chat", "messages": messages, "tools": [{}]}),
        "tools",
    );
    check(&server, "/v1/infill", &json!({"text": "床前"}), 400, "text");
    check(&server, "/v1/infill", &json!({}), 400, "text");
    let words = json!({"text": "□□床", "words": [{"at": 1, "text": "明月"}]});
    check(&server, "/v1/infill", &words, 400, "words");
    let targets = json!({"prompt": "床", "targets": ["前", ""]});
    check(&server, "/v1/likelihood", &targets, 400, "targets[1]");
    let estimator = json!({"prompt": "床", "targets": ["前"], "estimator": "x"});
    check(&server, "/v1/likelihood", &estimator, 400, "estimator");
    let draws = json!({"prompt": "床", "targets": ["前明"], "mc_samples": 0});
    check(&server, "/v1/likelihood", &draws, 400, "mc_samples");
    check(
        &server,
        "/detokenize",
        &json!({"tokens": [1_000_000]}),
        400,
        "tokens",
    );
}

#[test]
fn ten_thousand_masks_and_deep_json_are_refused() {
    let server = Server::start();
    let text = "□".repeat(10_000);
    check(&server, "/v1/infill", &json!({"text": text}), 400, "text");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let answer = server.send("POST", "/v1/infill", JSON, deep.as_bytes());
    assert_eq!(answer.error().0, 400);
    let nested = format!(
        "{{\"metadata\": {}1{}}}",
        "{\"a\":".repeat(1000),
        "}".repeat(1000)
    );
    let answer = server.send("POST", "/v1/chat/completions", JSON, nested.as_bytes());
    assert_eq!(answer.error().0, 400);
}

#[test]
fn bodies_that_are_none_are_refused() {
    let server = Server::start();
    let answer = server.send("POST", "/v1/infill", JSON, b"{\"text\": \"\xff\"}");
    assert_eq!(
        answer.error(),
        (400, Value::Null, "invalid_body".to_owned())
    );
    let answer = server.send("POST", "/v1/infill", "Content-Type: text/plain\r\n", b"{}");
    assert_eq!(answer.error().0, 415);
    let answer = server.send("POST", "/v1/infill", JSON, &vec![b' '; 3 << 20]);
    assert_eq!(answer.error().0, 413);
    assert_eq!(server.get("/v1/infill").error().0, 405);
    assert_eq!(server.get("/v2").error().0, 404);
    assert_eq!(server.get("/tokenizer_info?modle=x").error().0, 400);
    server.get("/health").ok();
}

#[test]
fn a_client_that_sends_half_a_body_is_given_up() {
    let server = Server::with(ServeConfig {
        body_timeout: Duration::from_millis(200),
        ..config()
    });
    let mut stream = server.connect();
    let half = format!("POST /v1/infill HTTP/1.0\r\n{JSON}Content-Length: 100\r\n\r\n{{\"te");
    stream.write_all(half.as_bytes()).unwrap();
    let (status, _, code) = read(stream).error();
    assert_eq!((status, code.as_str()), (408, "body_too_slow"));
    // Nor does half a head keep a connection.
    let mut stream = server.connect();
    stream.write_all(b"POST /v1/inf").unwrap();
    let answer = read(stream);
    assert!(answer.status == 0 || answer.status == 408, "{answer:?}");
}

#[test]
fn a_server_with_keys_asks_for_one() {
    // The hash of `secret`.
    let keys = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b me\n";
    let server = Server::with(ServeConfig {
        keys: Some(Keys::parse(keys).unwrap()),
        ..config()
    });
    assert_eq!(server.get("/v1/models").error().0, 401);
    let with = |key: &str| {
        let head = format!("Authorization: Bearer {key}\r\n");
        server.send("GET", "/v1/models", &head, b"").status
    };
    assert_eq!((with("secret"), with("secreT"), with("")), (200, 401, 401));
    // Whether it lives is no secret, and the page asks for the key itself.
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn pages_of_other_origins_have_no_use_of_a_server_on_loopback() {
    let server = Server::with(ServeConfig {
        hosts: vec!["llada.test".to_owned()],
        ..config()
    });
    let status = |host: &str| {
        let head = format!("Host: {host}\r\n");
        server.send("GET", "/v1/models", &head, b"").status
    };
    assert_eq!(
        (
            status("127.0.0.1:80"),
            status("localhost"),
            status("[::1]:80")
        ),
        (200, 200, 200)
    );
    assert_eq!((status("llada.test:80"), status("example.org")), (200, 403));
    let origin = "Origin: https://example.org\r\n";
    let answer = server.send("GET", "/v1/models", origin, b"");
    assert!(
        !answer.head.contains("access-control-allow-origin"),
        "{}",
        answer.head
    );
    let server = Server::with(ServeConfig {
        cors_origins: vec!["https://example.org".to_owned()],
        ..config()
    });
    let answer = server.send("GET", "/v1/models", origin, b"");
    let allowed = "access-control-allow-origin: https://example.org";
    assert!(answer.head.contains(allowed), "{}", answer.head);
}
