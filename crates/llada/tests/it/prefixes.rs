//! Keys and values of a causal model that one request takes over from another.

use std::ops::ControlFlow;
use std::path::Path;

use llada::diffusion::{Cached, KvCache, MaskPredictor as _, Query, RowPlan, TokenBatch};
use llada::sample::{CacheMode, Output, Request, SampleConfig, Session};
use llada::{CpuConfig, Device, FrozenModel, ModelConfig, Precision};

fn model(threads: usize, precision: Precision) -> FrozenModel {
    let config = serde_json::json!({
        "d_model": 64, "n_heads": 4, "n_kv_heads": 2, "n_layers": 3, "mlp_hidden_size": 96,
        "vocab_size": 200, "max_sequence_length": 160, "mask_token_id": 199, "eos_token_id": 198,
        "causal": true,
    });
    let config = ModelConfig::from_json(config.to_string().as_bytes(), Path::new("config.json"));
    let level = None;
    let device = Device::cpu(CpuConfig { threads, level }).unwrap();
    FrozenModel::random(config.unwrap(), &device, precision, 5).unwrap()
}

fn request(prompt: &[u32], gen_length: usize, seed: u64) -> Request {
    let config = SampleConfig {
        gen_length,
        temperature: if seed > 0 { 1.0 } else { 0.0 },
        seed,
        cache: CacheMode::Prefix,
        ..SampleConfig::default()
    };
    Request::generate(prompt.to_vec(), config)
}

/// Output, and the bits of all confidences.
fn run(session: &mut Session<'_>, requests: &[Request]) -> Vec<(Output, Vec<u32>)> {
    let numbers: Vec<usize> = (requests.iter())
        .map(|request| session.submit(request.clone()).unwrap())
        .collect();
    let (mut outputs, mut bits) = (Vec::new(), vec![Vec::new(); requests.len()]);
    while session.n_requests() > 0 {
        let ended = session.step(&mut |event| {
            let of_step = event.revealed.iter().map(|x| x.confidence.to_bits());
            bits[event.request - numbers[0]].extend(of_step);
            ControlFlow::Continue(())
        });
        outputs.extend(
            ended
                .into_iter()
                .map(|end| (end.request, end.result.unwrap())),
        );
    }
    outputs.sort_by_key(|(number, _)| *number);
    let outputs = outputs.into_iter().map(|(_, output)| output);
    outputs.zip(bits).collect()
}

const ENDLESS: usize = usize::MAX;

#[test]
fn a_conversation_computes_what_is_new_and_nothing_changes() {
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        for threads in [1, 2] {
            let model = model(threads, precision);
            let mut session = Session::new(&model).keeping_prefixes(ENDLESS);
            let mut history: Vec<u32> = (0..20).map(|i| i * 37 % 190).collect();
            let mut known = 0;
            for turn in 0..4 {
                let request = request(&history, 9, turn);
                let found = run(&mut session, std::slice::from_ref(&request)).remove(0);
                let alone = run(&mut Session::new(&model), &[request]).remove(0);
                assert_eq!(found.0.tokens, alone.0.tokens);
                assert_eq!(
                    found.1, alone.1,
                    "{precision:?}, {threads} threads, turn {turn}"
                );
                assert_eq!(alone.0.rows, history.len() + 8);
                assert_eq!(found.0.rows, history.len() + 8 - known, "turn {turn}");
                assert_eq!(found.0.nfe, alone.0.nfe);
                // The last token was written and not computed.
                known = history.len() + 8;
                history = found.0.tokens;
                history.extend([5, 6, 7, turn as u32]);
            }
        }
    }
}

#[test]
fn a_prompt_takes_over_the_longest_beginning() {
    let model = model(1, Precision::F32);
    let mut session = Session::new(&model).keeping_prefixes(ENDLESS);
    let base: Vec<u32> = (0..30).collect();
    let with = |n: usize, rest: &[u32]| [&base[..n], rest].concat();
    let rows = |session: &mut Session<'_>, prompt: &[u32]| {
        let request = request(prompt, 2, 0);
        let alone = run(&mut Session::new(&model), std::slice::from_ref(&request)).remove(0);
        let found = run(session, &[request]).remove(0);
        assert_eq!((&found.0.tokens, &found.1), (&alone.0.tokens, &alone.1));
        alone.0.rows - found.0.rows
    };
    assert_eq!(rows(&mut session, &with(10, &[])), 0);
    assert_eq!(rows(&mut session, &with(30, &[])), 10);
    // The last token of a prompt is always computed.
    assert_eq!(rows(&mut session, &with(30, &[])), 29);
    assert_eq!(rows(&mut session, &with(17, &[99, 98])), 17);
    assert_eq!(rows(&mut session, &with(17, &[99, 98, 3])), 18 + 1);
    assert_eq!(rows(&mut session, &[77, 1, 2]), 0);
    assert_eq!(rows(&mut session, &[50]), 0);
    // Together with others, and as they end.
    let prompts = [
        with(30, &[]),
        with(5, &[88]),
        vec![3],
        with(29, &[1, 2, 3, 4]),
    ];
    let requests = prompts.map(|prompt| request(&prompt, 5, 3));
    let found = run(&mut session, &requests);
    let saved = [29, 5, 0, 29];
    for ((request, found), saved) in requests.into_iter().zip(found).zip(saved) {
        let alone = run(&mut Session::new(&model), &[request]).remove(0);
        assert_eq!((&found.0.tokens, &found.1), (&alone.0.tokens, &alone.1));
        assert_eq!(alone.0.rows - found.0.rows, saved);
    }
}

#[test]
fn what_was_used_least_recently_leaves_first() {
    let model = model(1, Precision::F32);
    let per_token = model.info().kv_cache_bytes;
    assert!(per_token > 0);
    let prompt = |first: u32| -> Vec<u32> { (first..first + 10).collect() };
    let rows = |session: &mut Session<'_>, first: u32| {
        run(session, &[request(&prompt(first), 2, 0)])[0].0.rows
    };
    // Two sequences of 12 tokens, and not three.
    let mut session = Session::new(&model).keeping_prefixes(25 * per_token);
    assert_eq!(
        [0, 50, 0].map(|first| rows(&mut session, first)),
        [11, 11, 2]
    );
    assert_eq!(rows(&mut session, 100), 11);
    assert_eq!([0, 50].map(|first| rows(&mut session, first)), [2, 11]);
    assert_eq!(rows(&mut session, 100), 11);
    // Nothing fits, and nothing is kept unless it is asked for.
    for mut session in [
        Session::new(&model).keeping_prefixes(11 * per_token),
        Session::new(&model),
    ] {
        assert_eq!([0, 0].map(|first| rows(&mut session, first)), [11, 11]);
    }
}

#[test]
fn rows_after_a_prefix_are_those_of_the_whole() {
    let model = model(1, Precision::F32);
    let tokens: Vec<u32> = (0..24).map(|i| i * 31 % 190).collect();
    let batch = TokenBatch::new(&[&tokens]).unwrap();
    let positions: Vec<usize> = (9..24).collect();
    let whole = model.logits(Query::new(&batch, &positions)).unwrap();
    let call = |cache: &mut KvCache, plan: RowPlan, positions: &[usize]| {
        let (plans, caches) = ([plan], &mut [cache]);
        let cached = Cached {
            plans: &plans,
            caches,
            branches: &mut [],
        };
        let query = Query {
            cached: Some(cached),
            ..Query::new(&batch, positions)
        };
        model.logits(query).unwrap()
    };
    let mut first = KvCache::default();
    call(&mut first, RowPlan::window(0..14, 14), &[13]);
    let mut cache = first.beginning(9, 24).unwrap();
    assert_eq!((cache.n_known(), cache.known.len()), (9, 24));
    let rest = call(&mut cache, RowPlan::window(9..24, 24), &positions);
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&rest), bits(&whole));
    assert_eq!(cache.bytes(), 24 * model.info().kv_cache_bytes);
    assert!(first.beginning(25, 30).is_err());
}
