//! Runs of Fast-dLLM's samplers: caches and parallel decoding, with what every call saw.

use std::cell::RefCell;
use std::ops::ControlFlow;

use llada::diffusion::{
    Cached, Candidates, Choice, KvCache, MaskPredictor, PredictorInfo, Query, Result, RowPlan,
    TokenBatch,
};
use llada::sample::{CacheMode, Process, Request, SampleConfig, sample};
use llada::{LladaModel, Precision};

use crate::files::{Case, Tensors, cases, device, load, max_difference, rows};

/// Notes the tokens that every call computed.
struct Recorder {
    model: LladaModel,
    calls: RefCell<Vec<Vec<u32>>>,
}

impl MaskPredictor for Recorder {
    fn info(&self) -> PredictorInfo {
        // Every call is counted: none for several steps.
        PredictorInfo {
            steps_at_once: 1,
            ..self.model.info()
        }
    }
    fn logits(&self, query: Query<'_>) -> Result<Vec<f32>> {
        self.model.logits(query)
    }
    fn candidates(&self, query: Query<'_>, choice: &Choice<'_>) -> Result<Candidates> {
        let ids = query.batch.ids();
        let computed = match &query.cached {
            Some(cached) => cached.plans[0].positions().map(|at| ids[at]).collect(),
            None => ids.to_vec(),
        };
        self.calls.borrow_mut().push(computed);
        self.model.candidates(query, choice)
    }
    fn token_losses(&self, query: Query<'_>, targets: &[u32]) -> Result<Vec<f32>> {
        self.model.token_losses(query, targets)
    }
}

fn config(case: &Case) -> SampleConfig {
    let process = if case.has("threshold") {
        Process::Threshold(case.number("threshold") as f32)
    } else if case.has("factor") {
        Process::Factor(case.number("factor") as f32)
    } else {
        Process::Quota
    };
    SampleConfig {
        steps: case.count("steps"),
        gen_length: case.count("gen_length"),
        block_length: Some(case.count("block_length")),
        cache: case.text("cache").parse::<CacheMode>().unwrap(),
        process,
        ..SampleConfig::default()
    }
}

/// The request of a case.
pub(crate) fn request(case: &Case) -> Request {
    let prompt = rows(&case.json["prompt"]).remove(0);
    Request::generate(prompt, config(case))
}

#[test]
fn caches_and_parallel_decoding_are_fast_dllm_s() {
    for case in cases("fastdllm") {
        let name = &case.name;
        let model = load(case.text("model"), &device(), Precision::F32);
        let recorder = Recorder {
            model,
            calls: RefCell::default(),
        };
        let request = request(&case);
        let output = &sample(&recorder, &[request], &mut |_| ControlFlow::Continue(())).unwrap()[0];
        assert_eq!(output.tokens, rows(&case.json["output"])[0], "{name}");
        assert_eq!(output.nfe, case.count("nfe"), "{name}: calls");
        let lengths: Vec<usize> = case.json["call_lengths"]
            .as_array()
            .unwrap()
            .iter()
            .map(|length| length.as_u64().unwrap() as usize)
            .collect();
        let before = case.json["x_before_call"].as_array().unwrap();
        let calls = recorder.calls.into_inner();
        assert_eq!(calls.len(), before.len(), "{name}: calls");
        for (call, (computed, before)) in calls.iter().zip(before).enumerate() {
            assert_eq!(computed, &rows(before)[0], "{name}: call {call}");
            assert_eq!(computed.len(), lengths[call], "{name}: call {call}");
        }
    }
}

/// Confidences and tokens of a cached call against recorded logits.
#[test]
fn a_cached_call_gives_the_recorded_logits() {
    let tensors = Tensors::open("fastdllm/cache_step.safetensors");
    let model = load(
        cases("fastdllm")[0].text("model"),
        &device(),
        Precision::F32,
    );
    let batch = |name: &str| TokenBatch::new(&tensors.rows(name)).unwrap();
    let (before, after) = (batch("x_full"), batch("x_next"));
    let (length, width) = (before.n_tokens(), model.info().vocab_size);
    let block = tensors.counts("block");
    for (name, window) in [("prefix", block[0]..length), ("dual", block[0]..block[1])] {
        let mut cache = KvCache::default();
        let mut call = |batch: &TokenBatch, window: std::ops::Range<usize>| {
            let positions: Vec<usize> = window.clone().collect();
            let cached = Cached {
                plans: &[RowPlan::window(window, length)],
                caches: &mut [&mut cache],
                branches: &mut [],
            };
            let query = Query {
                cached: Some(cached),
                ..Query::new(batch, &positions)
            };
            model.candidates(query, &Choice::GREEDY).unwrap().now
        };
        call(&before, 0..length);
        let candidates = call(&after, window);
        let logits = tensors.f64s(&format!("{name}.logits"));
        for (candidate, logits) in candidates.iter().zip(logits.chunks(width)) {
            let best = (0..width)
                .max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
                .unwrap();
            let sum: f64 = logits.iter().map(|x| (x - logits[best]).exp()).sum();
            assert_eq!(candidate.token as usize, best, "{name}");
            let error = max_difference(&[candidate.confidence], &[1.0 / sum]);
            assert!(error <= 1e-4, "{name}: {error:e}");
        }
    }
}
