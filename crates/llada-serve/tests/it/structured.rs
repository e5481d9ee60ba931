//! Answers of a guaranteed form.

use serde_json::{Value, json};

use crate::server::Server;

#[test]
fn a_choice_is_the_likeliest_of_its_texts() {
    let server = Server::start();
    let choices = ["春眠不觉晓。", "疑是地上霜。", "更上一层楼。"];
    let mut body = json!({"prompt": "床前明月光，", "guided_choice": choices});
    let answer = server.post("/v1/completions", &body).ok();
    assert_eq!(answer["choices"][0]["text"], choices[1]);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let values = answer["llada"]["choice_log_likelihoods"]
        .as_array()
        .unwrap();
    let scored = json!({
        "prompt": "床前明月光，", "targets": choices, "estimator": "chain", "greedy": false,
    });
    let scored = server.post("/v1/likelihood", &scored).ok();
    for (value, result) in values.iter().zip(scored["results"].as_array().unwrap()) {
        assert_eq!(value, &result["log_likelihood"]);
    }
    body["stream"] = json!(true);
    let chunks = server.post("/v1/completions", &body).chunks();
    assert_eq!(chunks[0]["choices"][0]["text"], choices[1]);
    assert_eq!(chunks[1]["choices"][0]["finish_reason"], "stop");
}

#[test]
fn what_can_not_be_guaranteed_is_refused() {
    let server = Server::start();
    let refused = |response_format: Value| {
        let body = json!({"prompt": "床前", "response_format": response_format});
        server.post("/v1/completions", &body).error()
    };
    let (status, param, _) = refused(json!({"type": "json_object"}));
    assert_eq!((status, param), (400, json!("response_format.type")));
    let (status, param, _) = refused(json!({"type": "json_schema"}));
    assert_eq!(
        (status, param),
        (400, json!("response_format.json_schema.schema"))
    );
    // This vocabulary has no brace.
    let schema = json!({"type": "object", "properties": {"a": {"type": "boolean"}}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    let (status, param, _) = refused(format);
    assert_eq!((status, param), (400, json!("response_format")));
    let body = json!({"prompt": "床前", "guided_choice": ["明月"], "n": 2});
    let (status, param, _) = server.post("/v1/completions", &body).error();
    assert_eq!((status, param), (400, json!("n")));
}
