//! Every recorded generation again with guesses of coming steps: the same events, to the bit.

use std::ops::ControlFlow;

use llada::diffusion::MaskPredictor;
use llada::sample::{CacheMode, Output, Process, Request, sample};
use llada::{LladaModel, Precision};

use crate::files::{cases, device, load};
use crate::{demo, families_generate, fastdllm, generate};

const GUESSES: usize = 3;

/// Steps, and those of them that were guessed.
#[derive(Debug, Default)]
struct Counts {
    steps: usize,
    guessed: usize,
}

fn run(model: &dyn MaskPredictor, requests: &[Request]) -> (Vec<String>, Vec<Output>) {
    let mut events = Vec::new();
    let outputs = sample(model, requests, &mut |event| {
        events.push(format!("{event:?}"));
        ControlFlow::Continue(())
    });
    (events, outputs.unwrap())
}

fn check(counts: &mut Counts, name: &str, model: &dyn MaskPredictor, requests: &[Request]) {
    let (events, plain) = run(model, requests);
    let mut guessing = requests.to_vec();
    for request in &mut guessing {
        request.config.speculate = GUESSES;
    }
    let (got, outputs) = run(model, &guessing);
    assert_eq!(got, events, "{name}");
    for (output, plain) in outputs.iter().zip(&plain) {
        assert_eq!(output.tokens, plain.tokens, "{name}");
        assert_eq!(output.nfe + output.right_guesses, plain.nfe, "{name}");
        counts.steps += plain.nfe;
        counts.guessed += output.right_guesses;
    }
}

/// With each cache that goes with the requests, too.
fn check_caches(counts: &mut Counts, name: &str, model: &LladaModel, requests: &[Request]) {
    check(counts, name, model, requests);
    for cache in [CacheMode::Prefix, CacheMode::Dual, CacheMode::Activity] {
        let mut cached = requests.to_vec();
        cached.iter_mut().for_each(|r| r.config.cache = cache);
        if cached.iter().all(|request| request.config.cfg_scale <= 0.0) {
            check(counts, &format!("{name}, {cache}"), model, &cached);
        }
    }
}

#[test]
fn guesses_change_no_recorded_generation() {
    let mut counts = Counts::default();
    for case in cases("fastdllm") {
        let model = load(case.text("model"), &device(), Precision::F32);
        let request = fastdllm::request(&case);
        let is_cached = request.config.cache == CacheMode::Dual;
        if !is_slow() || is_cached {
            check(&mut counts, &case.name, &model, &[request]);
        }
        if is_slow() && counts.guessed > 0 {
            return;
        }
    }
    for case in cases("generate") {
        let model = load(case.text("model"), &device(), Precision::F32);
        check_caches(&mut counts, &case.name, &model, &generate::requests(&case));
    }
    for case in cases("demo") {
        let model = load(case.text("model"), &device(), Precision::F32);
        check_caches(&mut counts, &case.name, &model, &[demo::request(&case)]);
    }
    for (name, model, requests) in families_generate::requests() {
        let rewrites = |r: &Request| matches!(r.config.process, Process::Rewriting { .. });
        if !requests.iter().any(rewrites) {
            check(&mut counts, &name, &model, &requests);
        }
    }
    assert!(counts.guessed > 0, "{counts:?}");
}

/// Whether a device in software computes, on which one generation has to do.
fn is_slow() -> bool {
    std::env::var_os("LLADA_DEVICE").is_some()
}
