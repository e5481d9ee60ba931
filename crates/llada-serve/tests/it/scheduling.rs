//! Requests that come, wait, leave and end.

use std::io::{Read as _, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use llada::Overrides;
use llada_serve::{Limits, ServeConfig};
use serde_json::{Value, json};

use crate::server::{Server, config, poems};

/// A request that takes a while: many passes over a long canvas.
fn long() -> Value {
    json!({"prompt": "床前明月光，", "max_tokens": 160, "steps": 160, "early_stop": false})
}

/// Waits until something holds, which it does soon.
#[track_caller]
fn wait_until(what: impl Fn() -> bool) {
    let since = Instant::now();
    while !what() {
        assert!(since.elapsed() < Duration::from_secs(60), "it never came");
        thread::yield_now();
    }
}

/// Sends a streamed request, and returns the connection once it runs.
fn begin(server: &Server, body: &Value) -> std::net::TcpStream {
    let mut body = body.clone();
    body["stream"] = json!(true);
    body["stream_mode"] = json!("denoise");
    let body = body.to_string();
    let mut stream = server.connect();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    wait_until(|| server.figure("llada_requests_running") > 0.5);
    stream
}

#[test]
fn every_request_of_a_crowd_has_the_answer_of_its_single_run() {
    let (server, llada) = (Server::start(), poems());
    let requests: Vec<(String, Overrides)> = (0..24)
        .map(|i| {
            let prompt = ["床前明月光，", "白日依山尽，", "春眠不觉晓，"][i % 3];
            let overrides = Overrides {
                gen_length: Some(8 + 5 * (i % 4)),
                block_length: [None, Some(4)][i % 2],
                temperature: [0.0, 0.7][i / 12],
                cfg_scale: if i % 5 == 0 { 0.5 } else { 0.0 },
                seed: i as u64,
                early_stop: true,
                ..Overrides::default()
            };
            (prompt.to_owned(), overrides)
        })
        .collect();
    thread::scope(|scope| {
        let ask = |(prompt, overrides): &(String, Overrides)| {
            let body = json!({
                "prompt": prompt, "max_tokens": overrides.gen_length,
                "block_length": overrides.block_length, "temperature": overrides.temperature,
                "cfg_scale": overrides.cfg_scale, "seed": overrides.seed,
            });
            server.post("/v1/completions", &body).ok()["choices"][0]["text"].clone()
        };
        let asked: Vec<_> = requests
            .iter()
            .map(|request| scope.spawn(move || ask(request)))
            .collect();
        for (asked, (prompt, overrides)) in asked.into_iter().zip(&requests) {
            let single = llada.generate(prompt.as_str(), overrides).unwrap();
            assert_eq!(asked.join().unwrap(), single.text, "{prompt} {overrides:?}");
        }
    });
    assert!(server.figure("llada_requests_running") < 0.5);
    assert!(server.figure("llada_held_bytes") < 0.5);
}

#[test]
fn a_full_queue_says_when_to_come_again() {
    let server = Server::with(ServeConfig {
        limits: Limits {
            max_running: 1,
            max_waiting: 1,
            ..config().limits
        },
        ..config()
    });
    let _running = begin(&server, &long());
    thread::scope(|scope| {
        let waiting =
            scope.spawn(|| server.post("/v1/completions", &json!({"prompt": "床前明月光，"})));
        wait_until(|| server.figure("llada_requests_waiting") > 0.5);
        let refused = server.post("/v1/completions", &json!({"prompt": "床前明月光，"}));
        assert_eq!(refused.error().0, 429);
        let after = refused
            .head
            .lines()
            .find_map(|line| line.strip_prefix("retry-after: "));
        let after: u64 = after.unwrap().parse().unwrap();
        assert!((1..=60).contains(&after), "{after}");
        waiting.join().unwrap().ok();
    });
}

#[test]
fn a_client_that_goes_away_frees_its_place() {
    let server = Server::with(ServeConfig {
        limits: Limits {
            max_running: 1,
            ..config().limits
        },
        ..config()
    });
    drop(begin(&server, &long()));
    wait_until(|| server.figure("llada_requests_running") < 0.5);
    // It was cut short: a whole run has 160 passes.
    server
        .post("/v1/completions", &json!({"prompt": "床前明月光，"}))
        .ok();
}

#[test]
fn work_that_is_too_late_is_given_up() {
    let server = Server::start();
    let mut body = long();
    body["timeout"] = json!(0.05);
    body["n"] = json!(16);
    let (status, param, code) = server.post("/v1/completions", &body).error();
    assert_eq!(
        (status, param, code.as_str()),
        (504, json!("timeout"), "deadline_exceeded")
    );
    wait_until(|| server.figure("llada_requests_running") < 0.5);
    let mut body = body;
    body["stream"] = json!(true);
    let events = server.post("/v1/completions", &body).events();
    let last: Value = serde_json::from_str(&events.last().unwrap().1).unwrap();
    assert_eq!(last["error"]["code"], "deadline_exceeded");
}

#[test]
fn what_needs_more_memory_than_there_is_is_refused_before_it_runs() {
    let server = Server::with(ServeConfig {
        limits: Limits {
            memory_bytes: 2_000_000,
            ..config().limits
        },
        ..config()
    });
    let (status, param, _) = server.post("/v1/completions", &long()).error();
    assert_eq!((status, param), (400, json!("max_tokens")));
    server
        .post("/v1/completions", &json!({"prompt": "床前明月光，"}))
        .ok();
}

#[test]
fn a_server_that_stops_answers_what_it_took_in() {
    let mut server = Server::with(ServeConfig {
        drain: Duration::from_millis(500),
        ..config()
    });
    let running = begin(&server, &long());
    server.stop();
    wait_until(|| server.get("/health").status == 503);
    // For a while new requests are still taken, and told that their connection ends.
    let late = server.post("/v1/completions", &json!({"prompt": "床前明月光，"}));
    late.ok();
    assert!(late.head.contains("connection: close"), "{}", late.head);
    let mut text = String::new();
    let mut running = running;
    running.read_to_string(&mut text).unwrap();
    assert!(text.contains("[DONE]"), "{text}");
    server.join();
}

#[test]
fn likelihoods_and_answers_take_turns() {
    let server = Server::start();
    thread::scope(|scope| {
        let scored = scope.spawn(|| {
            let body = json!({
                "prompt": "床前明月光，", "targets": ["疑是地上霜。举头望明月，低头思故乡。"],
                "mc_samples": 2000, "greedy": false,
            });
            server.post("/v1/likelihood", &body).ok();
            Instant::now()
        });
        wait_until(|| server.figure("llada_requests_running") > 0.5);
        server
            .post(
                "/v1/completions",
                &json!({"prompt": "床前明月光，", "max_tokens": 4}),
            )
            .ok();
        let written = Instant::now();
        assert!(
            written < scored.join().unwrap(),
            "an answer waited for a likelihood"
        );
    });
}
