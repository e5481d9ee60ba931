//! The autoregressive baseline on a Transformer with causal attention.

use std::ops::ControlFlow;
use std::path::Path;

use llada::diffusion::{
    Cached, Choice, KvCache, MaskPredictor as _, Query, RowPlan, ScoredSequence, TokenBatch,
    autoregressive_log_likelihood,
};
use llada::sample::{CacheMode, Output, Request, SampleConfig, sample};
use llada::{CpuConfig, CpuLevel, Device, FrozenModel, ModelConfig, Precision};

fn model(level: Option<CpuLevel>, precision: Precision) -> FrozenModel {
    let config = serde_json::json!({
        "d_model": 64, "n_heads": 4, "n_kv_heads": 2, "n_layers": 3, "mlp_hidden_size": 96,
        "vocab_size": 200, "max_sequence_length": 160, "mask_token_id": 199, "eos_token_id": 198,
        "causal": true,
    });
    let config = ModelConfig::from_json(config.to_string().as_bytes(), Path::new("config.json"));
    let device = Device::cpu(CpuConfig { threads: 1, level }).unwrap();
    FrozenModel::random(config.unwrap(), &device, precision, 5).unwrap()
}

fn prompt(length: u32) -> Vec<u32> {
    (0..length).map(|i| i * 37 % 190).collect()
}

/// Outputs and confidences of prompts of several lengths.
fn run(model: &FrozenModel, cache: CacheMode, temperature: f64) -> (Vec<Output>, Vec<f32>) {
    let request = |(sequence, length)| {
        let config = SampleConfig {
            gen_length: 40,
            temperature,
            seed: 11,
            cache,
            ..SampleConfig::default()
        };
        Request {
            sequence,
            ..Request::generate(prompt(length), config)
        }
    };
    let requests: Vec<Request> = [(0, 1), (1, 7), (2, 110)].map(request).to_vec();
    let mut confidences = Vec::new();
    let outputs = sample(model, &requests, &mut |event| {
        confidences.extend(event.revealed.iter().map(|x| x.confidence));
        ControlFlow::Continue(())
    });
    (outputs.unwrap(), confidences)
}

#[test]
fn cached_keys_and_values_change_nothing() {
    for level in CpuLevel::available() {
        for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
            let model = model(Some(level), precision);
            check_cached(&model, 0.0);
            check_cached(&model, 1.0);
        }
    }
}

/// The cached and the uncached run give the same bits.
#[track_caller]
fn check_cached(model: &FrozenModel, temperature: f64) {
    let (plain, of_plain) = run(model, CacheMode::None, temperature);
    let (cached, of_cached) = run(model, CacheMode::Prefix, temperature);
    for (plain, cached) in plain.iter().zip(&cached) {
        assert_eq!(plain.tokens, cached.tokens);
        // The prompt once, then a position for each token but the last.
        assert_eq!(cached.rows, cached.prompt_len + 39);
    }
    for (a, b) in of_plain.iter().zip(&of_cached) {
        assert_eq!(a.to_bits(), b.to_bits(), "{a} and {b}");
    }
}

#[test]
fn a_likelihood_is_that_of_every_prefix_by_itself() {
    let model = model(None, Precision::F32);
    let tokens = prompt(60);
    let scored = ScoredSequence {
        tokens: &tokens,
        prompt_len: 20,
    };
    let values = autoregressive_log_likelihood(&model, &[scored], 4096).unwrap();
    for (i, value) in values[0].iter().enumerate() {
        let at = 20 + i;
        let prefix = TokenBatch::new(&[&tokens[..at]]).unwrap();
        let logits = model.logits(Query::new(&prefix, &[at - 1])).unwrap();
        let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
        let expected = f64::from(logits[tokens[at] as usize]) - sum.ln();
        assert!(
            (value - expected).abs() <= 1e-5,
            "{at}: {value}, {expected}"
        );
    }
}

#[test]
fn plans_that_would_look_ahead_are_refused() {
    let model = model(None, Precision::F32);
    let tokens = prompt(12);
    let batch = TokenBatch::new(&[&tokens]).unwrap();
    let call = |cache: &mut KvCache, plan: RowPlan, position: usize| {
        let (plans, caches, positions) = ([plan], &mut [cache], [position]);
        let cached = Cached {
            plans: &plans,
            caches,
            branches: &mut [],
        };
        let query = Query {
            cached: Some(cached),
            ..Query::new(&batch, &positions)
        };
        model.candidates(query, &Choice::GREEDY)
    };
    let mut cache = KvCache::default();
    call(&mut cache, RowPlan::window(0..12, 12), 11).unwrap();
    // Rows in the middle of their keys.
    for (rows, keys) in [(5..6, 12), (4..8, 12)] {
        let error = call(&mut cache, RowPlan::window(rows.clone(), keys), rows.start);
        let error = format!("{:?}", error.unwrap_err());
        assert!(error.contains("no block_size"), "{error}");
    }
    call(&mut cache, RowPlan::window(5..6, 6), 5).unwrap();
}
