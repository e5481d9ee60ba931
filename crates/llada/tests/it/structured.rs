//! JSON that satisfies its schema, whatever the model prefers.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use llada::diffusion::{
    Candidates, Choice, LikelihoodConfig, MaskPredictor, PredictorInfo, Query, TokenBatch,
    losses_by_logits,
};
use llada::sample::{AnswerLength, Ended, Process, Remasking, Session};
use llada::tensor::{Philox, Stream};
use llada::{
    CpuConfig, Device, Llada, Overrides, Precision, Prompt, Stage, StageResult, Structured,
    Tokenizer, likeliest,
};
use serde_json::{Value, json};

/// Logits that are drawn anew for every canvas and place, but for tokens that it likes best.
#[derive(Debug, Clone)]
struct Whim {
    info: PredictorInfo,
    seed: u64,
    likes: Vec<u32>,
}

impl Whim {
    fn rows(&self, batch: &TokenBatch, positions: &[usize]) -> Vec<f32> {
        let mut logits = Vec::new();
        for &position in positions {
            let row = batch.offsets().partition_point(|&start| start <= position) - 1;
            let seen = batch.sequence(row).iter().fold(self.seed, |hash, &id| {
                (hash ^ u64::from(id)).wrapping_mul(0x0000_0100_0000_01B3)
            });
            let at = (position - batch.offsets()[row]) as u32;
            let philox = Philox::new(seen, Stream::Test);
            logits.extend((0..self.info.vocab_size as u32).map(|id| {
                let liked = if self.likes.contains(&id) { 50.0 } else { 0.0 };
                liked + 8.0 * philox.uniform_f32([at, id, 0])
            }));
        }
        logits
    }
}

impl MaskPredictor for Whim {
    fn info(&self) -> PredictorInfo {
        self.info
    }

    fn logits(&self, query: Query<'_>) -> llada::diffusion::Result<Vec<f32>> {
        query.by_logits(|batch, positions| Ok(self.rows(batch, positions)))
    }

    fn candidates(
        &self,
        query: Query<'_>,
        choice: &Choice<'_>,
    ) -> llada::diffusion::Result<Candidates> {
        choice.by_logits(self, query)
    }

    fn token_losses(
        &self,
        query: Query<'_>,
        targets: &[u32],
    ) -> llada::diffusion::Result<Vec<f32>> {
        losses_by_logits(self, query, targets)
    }
}

fn model_dir() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/models/mha-f32")
}

/// With the byte-level tokenizer of a golden model: 448 tokens and special ones.
fn of_bytes(seed: u64, likes: &[&str]) -> Llada<Whim> {
    let tokenizer = Tokenizer::from_dir(&model_dir()).unwrap();
    let id = |token: &str| tokenizer.token_to_id(token).unwrap();
    let mask = id("<|mdm_mask|>");
    let likes = likes.iter().map(|token| id(token)).collect();
    let info = PredictorInfo::new(512, mask, id("<|endoftext|>"), 512);
    Llada {
        model: Whim { info, seed, likes },
        tokenizer,
        further_eos_token_ids: Vec::new(),
        protocol: llada::Protocol::default(),
        answer_length: AnswerLength::Tokens(100),
        whole_documents: false,
    }
}

/// With a character vocabulary that has all of JSON.
fn of_characters(seed: u64) -> Llada<Whim> {
    let text = "{}[]\":, \\\n-.0123456789abcdefghijklmnopqrstuvwxyz明月光é";
    let tokenizer = Tokenizer::character_level([text].into_iter(), 1).unwrap();
    let mask = tokenizer.mask_token_id().unwrap();
    let eos = tokenizer.eos_token_id().unwrap();
    let info = PredictorInfo::new(tokenizer.vocab_size(), mask, eos, 512);
    let likes = Vec::new();
    Llada {
        model: Whim { info, seed, likes },
        tokenizer,
        further_eos_token_ids: Vec::new(),
        protocol: llada::Protocol::default(),
        answer_length: AnswerLength::Tokens(150),
        whole_documents: true,
    }
}

fn schemas() -> Vec<Value> {
    vec![
        json!({"type": "string"}),
        json!({"type": "integer"}),
        json!({"type": "number", "minimum": -0.5, "exclusiveMaximum": 12.25}),
        json!({"type": "object"}),
        json!({"enum": ["a", "ab", 3, null, {"x": [true]}]}),
        json!({"type": "object", "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 12},
            "age": {"type": "integer", "minimum": 17, "maximum": 143},
            "is a": {"type": "boolean"},
            "kind": {"enum": ["red", "green", "blue"], "type": "string"},
            "nothing": {"type": "null"},
        }, "required": ["age", "name"], "additionalProperties": false}),
        json!({"type": "object", "title": "t", "properties": {
            "z": {"$ref": "#/$defs/point"},
            "a": {"type": "array", "items": {"$ref": "#/$defs/point"}, "minItems": 2, "maxItems": 2},
            "m": {"type": "array", "prefixItems": [{"type": "string", "maxLength": 0}, {"const": "é"}]},
        }, "$defs": {"point": {"type": "object", "description": "d", "properties": {
            "x": {"type": "number", "minimum": 0, "maximum": 1},
            "y": {"type": "integer", "exclusiveMinimum": -20, "exclusiveMaximum": 3}
        }}}}),
        json!({"type": "array", "minItems": 0, "maxItems": 0}),
        json!({"properties": {"exact": {"type": "string", "minLength": 5, "maxLength": 5}}}),
    ]
}

#[track_caller]
fn check(schema: &Value, json: &Structured, max_tokens: usize) {
    let text = json.text();
    let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
    if let Err(error) = jsonschema::validate(schema, &value) {
        panic!("{text:?}: {error}");
    }
    assert!(json.tokens().len() <= max_tokens, "{text}");
    if let (Some(properties), Value::Object(object)) = (schema.get("properties"), &value) {
        let properties = properties.as_object().unwrap();
        assert!(object.keys().eq(properties.keys()), "{text:?}");
    }
}

#[test]
fn what_is_written_satisfies_the_schema() {
    let settings = [
        Overrides::default(),
        Overrides {
            temperature: 1.5,
            seed: 7,
            steps: Some(30),
            block_length: Some(4),
            ..Overrides::default()
        },
        Overrides {
            cfg_scale: 1.0,
            remasking: Remasking::Random,
            process: Some(Process::Threshold(0.1)),
            steps: Some(1),
            logits_eos_inf: true,
            early_stop: true,
            ..Overrides::default()
        },
        Overrides {
            temperature: 0.5,
            top_k: Some(3),
            suppress_mask: Some(false),
            confidence_eos_eot_inf: true,
            remasking: Remasking::Entropy,
            gen_length: Some(170),
            process: Some(Process::Reverse),
            ..Overrides::default()
        },
    ];
    for schema in schemas() {
        for (at, overrides) in settings.iter().enumerate() {
            for seed in 0..6 {
                let seed = 10 * at as u64 + seed;
                let llada = of_bytes(seed, &[]);
                let json = llada.json("The boy", &schema, overrides).unwrap();
                check(&schema, &json, overrides.gen_length.unwrap_or(100));
                let llada = of_characters(seed);
                let json = llada.json("abc", &schema, overrides).unwrap();
                check(&schema, &json, overrides.gen_length.unwrap_or(150));
            }
        }
    }
}

#[test]
fn what_a_model_likes_best_changes_nothing() {
    let liked = [
        "<|mdm_mask|>",
        "<|endoftext|>",
        "\"",
        "\\",
        "{",
        "Ċ",
        ".Ċ",
        "ä¸",
        "-",
        ".",
        "9",
        "0",
        "Ġ",
        "<|reserved_token_0|>",
    ];
    for token in liked {
        for schema in schemas() {
            let llada = of_bytes(3, &[token]);
            let json = llada.json("", &schema, &Overrides::default()).unwrap();
            check(&schema, &json, 100);
        }
    }
    // A model that ends at once writes what is shortest.
    let open = json!({"properties": {"s": {"type": "string"}, "n": {"type": "integer"}}});
    let at_end = |token| {
        let json = of_bytes(3, &[token]).json("", &open, &Overrides::default());
        json.unwrap().text().to_owned()
    };
    assert!(at_end("<|endoftext|>").starts_with("{\"s\": \"\", \"n\": "));
    assert!(at_end("\"").starts_with("{\"s\": \"\", \"n\": "));
    let strict = json!({"type": "string", "minLength": 7});
    let llada = of_bytes(3, &["<|endoftext|>"]);
    let json = llada.json("", &strict, &Overrides::default()).unwrap();
    let value: String = serde_json::from_str(json.text()).unwrap();
    assert!(value.chars().count() >= 7, "{value:?}");
}

#[test]
fn a_model_with_weights_writes_it_too() {
    let device = Device::cpu(CpuConfig::default()).unwrap();
    let llada = llada::load(&model_dir(), &device, Precision::F32).unwrap();
    for schema in schemas() {
        let overrides = Overrides {
            gen_length: Some(100),
            ..Overrides::default()
        };
        let json = llada.json("The boy", &schema, &overrides).unwrap();
        check(&schema, &json, 100);
        // No string was cut, so that the tokens are the text.
        if !schema.to_string().contains("maxLength") {
            assert_eq!(
                llada.tokenizer.decode(json.tokens(), true).unwrap(),
                json.text()
            );
        }
        assert!(json.nfe() >= json.steps());
    }
}

/// `ln p` of the tokens of a choice from left to right, with the rest of the text behind it.
fn chain(model: &Whim, before: &[u32], choice: &[u32], after: &[u32]) -> f64 {
    let mask = model.info.mask_token_id;
    let mut sum = 0.0;
    for (at, &token) in choice.iter().enumerate() {
        let hidden = vec![mask; choice.len() - at];
        let canvas = [before, &choice[..at], &hidden, after].concat();
        let batch = TokenBatch::new(&[canvas]).unwrap();
        let positions = [before.len() + at];
        let query = Query::new(&batch, &positions);
        sum -= f64::from(model.token_losses(query, &[token]).unwrap()[0]);
    }
    sum
}

#[test]
fn choices_are_the_likeliest_between_what_is_written_and_what_is_fixed() {
    let schema = json!({"properties": {
        "a": {"type": "boolean"}, "b": {"enum": ["b", "c", "d"]}, "c": {"type": "integer"}
    }});
    let mut found = Vec::new();
    for seed in 0..12 {
        let llada = of_bytes(seed, &[]);
        let ids = |text: &str| llada.tokenizer.encode(text).unwrap();
        let prompt = ids("The boy");
        let mask = llada.model.info.mask_token_id;
        let longest = [" \"b\"", " \"c\"", " \"d\""].map(|text| ids(text).len());
        let number = vec![mask; 7];
        let best = |before: &[u32], choices: &[&str], after: &[u32]| {
            let of = |text: &str| chain(&llada.model, before, &ids(text), after);
            let values = choices.iter().map(|choice| of(choice));
            let values: Vec<f64> = values.collect();
            let best = (0..values.len()).reduce(|a, b| if values[b] > values[a] { b } else { a });
            choices[best.unwrap()].to_owned()
        };
        let before = [prompt, ids("{\"a\":")].concat();
        let hidden = vec![mask; *longest.iter().max().unwrap()];
        let rest = [ids(", \"c\": "), number, ids("}")].concat();
        let after = [ids(", \"b\":"), hidden, rest.clone()].concat();
        let a = best(&before, &[" true", " false"], &after);
        let before = [before, ids(&a), ids(", \"b\":")].concat();
        let b = best(&before, &[" \"b\"", " \"c\"", " \"d\""], &rest);
        let json = llada.json("The boy", &schema, &Overrides::default());
        let text = json.unwrap().text().to_owned();
        assert!(
            text.starts_with(&format!("{{\"a\":{a}, \"b\":{b}, \"c\": ")),
            "{text}"
        );
        found.push(b);
    }
    found.sort_unstable();
    found.dedup();
    // Choices of the same length are all taken by one model or another.
    assert_eq!(found, [" \"b\"", " \"c\"", " \"d\""]);
}

#[test]
fn texts_are_written_side_by_side() {
    // Stage by stage in one session, each text as if it were alone.
    let schema = &schemas()[5];
    let llada = of_bytes(5, &[]);
    let vocabulary = Arc::new(llada.json_vocabulary().unwrap());
    let overrides = |seed| Overrides {
        temperature: 1.0,
        seed,
        ..Overrides::default()
    };
    let prompt = llada.tokenizer.encode("The boy").unwrap();
    let begin = |seed| {
        llada
            .structured(&vocabulary, prompt.clone(), schema, &overrides(seed))
            .unwrap()
    };
    let mut texts: Vec<Structured> = (0..3).map(begin).collect();
    let mut session = Session::new(&llada.model);
    let mut waiting: Vec<(usize, usize)> = Vec::new();
    let mut open = [true; 3];
    while open.contains(&true) {
        for (at, json) in texts.iter_mut().enumerate() {
            if waiting.iter().any(|(_, of)| *of == at) || !open[at] {
                continue;
            }
            let before = json.text().to_owned();
            match json.stage().unwrap() {
                None => open[at] = false,
                Some(Stage::Write(request)) => {
                    waiting.push((session.submit(*request).unwrap(), at));
                }
                Some(Stage::Score(mut scoring)) => {
                    let estimates = loop {
                        if let Some(estimates) = scoring.step(&llada.model).unwrap() {
                            break estimates;
                        }
                    };
                    json.take(StageResult::Scores(estimates));
                }
            }
            assert!(json.text().starts_with(&before));
        }
        for Ended { request, result } in session.step(&mut |_| ControlFlow::Continue(())) {
            let place = waiting.iter().position(|(number, _)| *number == request);
            let (_, at) = waiting.remove(place.unwrap());
            texts[at].take(StageResult::Written(result.unwrap()));
        }
    }
    for (seed, json) in (0..).zip(&texts) {
        check(schema, json, 100);
        let alone = llada.json("The boy", schema, &overrides(seed)).unwrap();
        assert_eq!(alone.text(), json.text());
        assert_eq!((alone.nfe(), alone.steps()), (json.nfe(), json.steps()));
    }
}

#[test]
fn a_choice_among_texts_is_by_likelihood() {
    let device = Device::cpu(CpuConfig::default()).unwrap();
    let llada = llada::Checkpoint::embedded().unwrap();
    let llada = llada.frozen(&device, Precision::F32).unwrap();
    let prompt = Prompt::from("床前明月光，");
    let choices = ["低头思故乡。", "疑是地上霜。", "春眠不觉晓。"].map(Prompt::from);
    let config = LikelihoodConfig {
        estimator: llada::diffusion::Estimator::Chain,
        ..LikelihoodConfig::default()
    };
    let mut scoring = llada.scoring(&prompt, &choices, &config).unwrap();
    let estimates = loop {
        if let Some(estimates) = scoring.step(&llada.model).unwrap() {
            break estimates;
        }
    };
    assert_eq!(likeliest(&estimates), 1);
    for (choice, estimate) in choices.into_iter().zip(&estimates) {
        let score = llada.score(prompt.clone(), choice, &config).unwrap();
        assert_eq!(score.estimate, *estimate);
    }
}

#[test]
fn what_cannot_be_guaranteed_is_refused() {
    #[track_caller]
    fn check(schema: &Value, message: &str) {
        let error = of_bytes(1, &[]).json("", schema, &Overrides::default());
        assert_eq!(error.unwrap_err().to_string(), message);
    }
    let of = |part: Value| json!({"type": "object", "properties": {"a/b": part}});
    let at = |what: &str| format!("the JSON schema at /properties/a~1b{what}");
    check(
        &json!(true),
        "the JSON schema at its root: a schema must be an object",
    );
    for (keyword, value) in [
        ("pattern", json!("a+")),
        ("format", json!("email")),
        ("minLengh", json!(3)),
        ("anyOf", json!([])),
    ] {
        let part = json!({"type": "string", keyword: value});
        check(
            &of(part),
            &at(&format!(": `{keyword}` is not supported here")),
        );
    }
    for (part, what) in [
        (json!({}), ": a schema needs a type, an enum or a const"),
        (json!({"oneOf": []}), ": `oneOf` is not supported here"),
        (json!({"type": "text"}), "/type: there is no type \"text\""),
        (
            json!({"type": ["string", "null"]}),
            "/type: it must be one name of a type",
        ),
        (
            json!({"type": "integer", "multipleOf": 5}),
            ": `multipleOf` is not supported here",
        ),
        (
            json!({"type": "integer", "minimum": 0.2, "maximum": 0.8}),
            ": between these bounds there is no number of at most 15 digits, and 3 after the point",
        ),
        (
            json!({"type": "number", "minimum": "1"}),
            "/minimum: it must be a number",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            ": the length of an array must be known: give minItems and maxItems of the same \
             number, or prefixItems",
        ),
        (
            json!({"type": "array", "minItems": 1, "maxItems": 1}),
            ": an array needs `items`, the schema of its elements",
        ),
        (
            json!({"type": "array", "prefixItems": [{"type": "string", "pattern": "x"}]}),
            "/prefixItems/0: `pattern` is not supported here",
        ),
        (
            json!({"type": "string", "minLength": 3, "maxLength": 2}),
            "/maxLength: it is less than minLength",
        ),
        (
            json!({"type": "string", "maxLength": -2}),
            "/maxLength: it must be a whole number, 0 or more",
        ),
        (json!({"enum": []}), ": there is no value that satisfies it"),
        (
            json!({"enum": ["a"], "type": "integer"}),
            ": there is no value that satisfies it",
        ),
        (
            json!({"enum": ["a"], "minLength": 3}),
            ": `minLength` is not supported here",
        ),
        (
            json!({"$ref": "#/$defs/none"}),
            "/$ref: it must be # and the JSON pointer of a part of this schema",
        ),
        (
            json!({"$ref": "#/properties/a~1b"}),
            "/$ref: a schema that contains itself has no end",
        ),
        (
            json!({"type": "object", "required": ["c"]}),
            "/required: the property \"c\" has no schema in `properties`",
        ),
        (
            json!({"type": "object", "minProperties": 1}),
            ": `minProperties` is not supported here",
        ),
    ] {
        check(&of(part), &at(what));
    }
    check(
        &json!({"$ref": "#"}),
        "the JSON schema at /$ref: a schema that contains itself has no end",
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let llada = of_bytes(1, &[]);
    let with = |schema: &Value, gen_length| {
        let overrides = Overrides {
            gen_length: Some(gen_length),
            ..Overrides::default()
        };
        llada
            .json("The boy", schema, &overrides)
            .map(|json| json.text().to_owned())
    };
    let schema = json!({"type": "string", "minLength": 4});
    let message = with(&schema, 5).unwrap_err().to_string();
    assert_eq!(
        message,
        "JSON of this schema takes at least 6 tokens, and the answer has 5"
    );
    assert!(with(&schema, 6).is_ok());
    let message = with(&schema, 600).unwrap_err().to_string();
    assert!(message.contains("exceed the context of 512"), "{message}");
    // A schema that would grow beyond all bounds.
    let mut schema = json!({"type": "boolean"});
    for _ in 0..30 {
        let length = 10;
        schema = json!({"type": "array", "items": schema, "minItems": length, "maxItems": length});
    }
    let message = with(&schema, 60).unwrap_err().to_string();
    assert_eq!(
        message,
        "the JSON schema has more values than the 60 tokens of the answer"
    );
    let masked = vec![3, llada.model.info.mask_token_id];
    let error = llada.json(masked, &json!({"type": "null"}), &Overrides::default());
    assert!(
        error
            .unwrap_err()
            .to_string()
            .starts_with("the prompt holds the mask token")
    );
    let mut causal = of_bytes(1, &[]);
    causal.model.info = causal.model.info.autoregressive();
    let error = causal.json("The boy", &json!({"type": "null"}), &Overrides::default());
    let message = error.unwrap_err().to_string();
    assert!(message.contains("a JSON schema cannot be used with an autoregressive model"));
}

#[test]
fn a_vocabulary_without_json_is_named() {
    let device = Device::cpu(CpuConfig::default()).unwrap();
    let llada = llada::Checkpoint::embedded().unwrap();
    let llada = llada.frozen(&device, Precision::F32).unwrap();
    let error = llada.json("明月", &json!({"type": "string"}), &Overrides::default());
    assert_eq!(
        error.unwrap_err().to_string(),
        "the model's vocabulary lacks the characters \"\\\"\", so that it can't write this JSON"
    );
    let llada = of_characters(1);
    let schema = json!({"properties": {"ÄB": {"type": "null"}}});
    let error = llada.json("a", &schema, &Overrides::default());
    assert_eq!(
        error.unwrap_err().to_string(),
        "the model's vocabulary lacks the characters \"BÄ\", so that it can't write this JSON"
    );
}
