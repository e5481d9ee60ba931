//! Tests of passes with caches.

use std::slice::{from_mut, from_ref};

use llada_diffusion::{Guidance, MaskPredictor as _, Query};
use serde_json::json;

use llada_diffusion::Cached;

use super::*;
use crate::LladaModel;
use crate::tests::{bits, logit_bits, model};

const IDS: [u32; 5] = [5, 0, 3, 10, 0];
const ALL: [usize; 5] = [0, 1, 2, 3, 4];

fn run(
    model: &LladaModel,
    ids: &[u32],
    plan: &RowPlan,
    cache: &mut KvCache,
    positions: &[usize],
) -> DiffusionResult<Vec<f32>> {
    let batch = TokenBatch::new(&[ids]).expect("not empty");
    let cached = Some(Cached {
        plans: from_ref(plan),
        caches: &mut [cache],
        branches: &mut [],
    });
    model.logits(Query {
        cached,
        ..Query::new(&batch, positions)
    })
}

/// A plan of ranges by their starts and ends.
fn plan(rows: &[(usize, usize)], keys: &[(usize, usize)]) -> RowPlan {
    let [rows, keys] = [rows, keys].map(|ranges| {
        let ranges = ranges.iter().map(|&(start, end)| start..end);
        ranges.collect()
    });
    RowPlan { rows, keys }
}

/// A cache after a pass over all of [`IDS`].
fn filled(model: &LladaModel) -> KvCache {
    let mut cache = KvCache::default();
    let whole = RowPlan::window(0..5, 5);
    run(model, &IDS, &whole, &mut cache, &ALL).expect("fits");
    cache
}

/// What a cache holds of known positions.
fn contents(cache: &KvCache) -> (Vec<bool>, Vec<Vec<u32>>) {
    let tables = cache.layers.iter().flatten();
    let tables = tables.map(|x| bits(&x.to_vec_f32().expect("f32")));
    (cache.known.clone(), tables.collect())
}

#[test]
fn a_plan_of_everything_gives_the_bits_of_a_pass_without_caches() {
    for fields in [
        json!({}),
        json!({"causal": true}),
        json!({"include_bias": true}),
    ] {
        let model = model(&fields);
        let other = [4, 0, 9];
        let batch = TokenBatch::new(&[&IDS[..], &other]).expect("not empty");
        let plans = [5, 3].map(|length| RowPlan::window(0..length, length));
        let (mut first, mut second) = (KvCache::default(), KvCache::default());
        let cached = Some(Cached {
            plans: &plans,
            caches: &mut [&mut first, &mut second],
            branches: &mut [],
        });
        let positions: Vec<usize> = (0..8).collect();
        let query = Query {
            cached,
            ..Query::new(&batch, &positions)
        };
        let logits = model.logits(query).expect("fits");
        assert_eq!(bits(&logits), logit_bits(&model, &[&IDS, &other]));
        assert_eq!(first.known, [true; 5]);
        assert_eq!(second.known, [true; 3]);
    }
}

#[test]
fn rows_over_cached_keys_of_the_same_tokens_give_the_same_bits() {
    let model = model(&json!({}));
    let whole = logit_bits(&model, &[&IDS]);
    let v = whole.len() / IDS.len();
    for rows in [&[(1, 3)][..], &[(0, 1), (3, 5)]] {
        let (mut cache, plan) = (filled(&model), plan(rows, &[(0, 5)]));
        let asked: Vec<usize> = plan.positions().collect();
        let expected: Vec<u32> = asked
            .iter()
            .flat_map(|at| whole[at * v..][..v].to_vec())
            .collect();
        let logits = run(&model, &IDS, &plan, &mut cache, &asked).expect("fits");
        assert_eq!(bits(&logits), expected, "{rows:?}");
    }
}

#[test]
fn keys_that_are_not_rows_are_taken_as_they_were() {
    let model = model(&json!({}));
    let (mut cache, mut ids) = (filled(&model), IDS);
    // A new token is not seen before its row is computed.
    ids[4] = 7;
    let window = plan(&[(1, 3)], &[(0, 5)]);
    let old = run(&model, &IDS, &window, &mut cache, &[1, 2]).expect("fits");
    let new = run(&model, &ids, &window, &mut cache, &[1, 2]).expect("fits");
    assert_eq!(bits(&old), bits(&new));
    let with_it = plan(&[(1, 3), (4, 5)], &[(0, 5)]);
    let seen = run(&model, &ids, &with_it, &mut cache, &[1, 2]).expect("fits");
    assert_ne!(bits(&old), bits(&seen));
}

#[test]
fn keys_that_are_left_out_are_not_seen() {
    let model = model(&json!({}));
    let (mut cache, plan) = (KvCache::default(), plan(&[(0, 3)], &[(0, 3)]));
    let logits = run(&model, &IDS, &plan, &mut cache, &[0, 1, 2]).expect("fits");
    assert_eq!(bits(&logits), logit_bits(&model, &[&IDS[..3]]));
    assert_eq!(cache.known, [true, true, true, false, false]);
}

#[test]
fn a_cached_position_takes_the_bytes_that_the_predictor_names() {
    for fields in [json!({}), json!({"n_kv_heads": null, "n_layers": 3})] {
        let model = model(&fields);
        let cache = filled(&model);
        let bytes = |x: &Tensor| x.numel() * x.dtype().size_bytes();
        let taken: usize = cache.layers.iter().flatten().map(bytes).sum();
        assert_eq!(taken, IDS.len() * model.info().kv_cache_bytes);
    }
}

/// A plan that is refused, over a cache that knows the first three positions.
#[track_caller]
fn check(ids: &[u32], plan: &RowPlan, positions: &[usize], expected: &str) {
    let model = model(&json!({}));
    let mut cache = KvCache::default();
    let prefix = self::plan(&[(0, 3)], &[(0, 3)]);
    run(&model, &IDS, &prefix, &mut cache, &[]).expect("fits");
    let before = contents(&cache);
    let error = run(&model, ids, plan, &mut cache, positions).expect_err(expected);
    let source = std::error::Error::source(&error).map(ToString::to_string);
    assert_eq!(source.unwrap_or(error.to_string()), expected);
    assert_eq!(contents(&cache), before);
}

#[test]
fn a_plan_that_is_refused_leaves_the_cache_as_it_was() {
    check(
        &IDS,
        &plan(&[(1, 2)], &[(0, 5)]),
        &[1],
        "a key that no call has computed: expected 5, got 3",
    );
    check(
        &IDS,
        &plan(&[(0, 2), (3, 4)], &[(0, 3)]),
        &[0],
        "a row that is no key: expected 5, got 3",
    );
    check(
        &IDS[..4],
        &RowPlan::window(0..4, 4),
        &[0],
        "a cache of another length: expected 4, got 5",
    );
    check(
        &IDS,
        &plan(&[(3, 5), (0, 1)], &[(0, 5)]),
        &[0],
        "rows that do not ascend within a sequence: expected 5, got 1",
    );
    check(
        &IDS,
        &plan(&[(0, 3)], &[(0, 6)]),
        &[0],
        "keys that do not ascend within a sequence: expected 5, got 6",
    );
    check(
        &IDS,
        &plan(&[(0, 2)], &[(0, 3)]),
        &[0, 2],
        "positions (ascending, among the rows): index 2 is out of range, limit is 5",
    );
}

#[test]
fn guidance_with_caches_is_refused() {
    let model = model(&json!({}));
    let batch = TokenBatch::new(&[IDS]).expect("not empty");
    let (mut cache, plan) = (filled(&model), RowPlan::window(0..5, 5));
    let query = Query {
        guidance: Some(Guidance {
            unconditional: &batch,
            cfg_scale: 1.0,
        }),
        cached: Some(Cached {
            plans: from_ref(&plan),
            caches: &mut [&mut cache],
            branches: &mut [],
        }),
        ..Query::new(&batch, &ALL)
    };
    let error = model.logits(query).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "this predictor has no guidance with caches"
    );
}

/// A call that computes rows of a sequence, and beside them rows of another that reads its cache.
fn branched(
    model: &LladaModel,
    [ids, others]: [&[u32]; 2],
    plans: &[RowPlan; 2],
    cache: &mut KvCache,
    branch: &mut Branch,
) -> DiffusionResult<Vec<f32>> {
    let batch = TokenBatch::new(&[ids, others]).expect("not empty");
    let positions: Vec<usize> = (plans[0].positions())
        .chain(plans[1].positions().map(|at| ids.len() + at))
        .collect();
    let cached = Some(Cached {
        plans,
        caches: &mut [cache],
        branches: from_mut(branch),
    });
    model.logits(Query {
        cached,
        ..Query::new(&batch, &positions)
    })
}

#[test]
fn a_branch_is_a_call_of_its_own_that_leaves_the_cache_as_it_was() {
    let other = [5, 7, 1, 10, 2];
    let models = [
        model(&json!({})),
        model(&json!({"include_bias": true, "n_layers": 3})),
        (model(&json!({})).block_causal(NonZeroUsize::new(2).expect("2"))).expect("blocks"),
    ];
    let within = [plan(&[(2, 4)], &[(0, 5)]), plan(&[(2, 4)], &[(0, 5)])];
    // The first call sees all anew, and the branch a part of that.
    let after_all = [
        plan(&[(0, 5)], &[(0, 5)]),
        plan(&[(1, 2), (4, 5)], &[(0, 5)]),
    ];
    let at_the_end = [plan(&[(2, 5)], &[(0, 5)]), plan(&[(2, 5)], &[(0, 5)])];
    for (model, plans) in [
        (&models[0], &within),
        (&models[0], &after_all),
        (&models[1], &within),
        (&models[1], &after_all),
        (&models[2], &at_the_end),
    ] {
        let rows = |plan: &RowPlan| plan.positions().collect::<Vec<_>>();
        let mut one_by_one = filled(model);
        let cache = &mut one_by_one;
        let first = run(model, &IDS, &plans[0], cache, &rows(&plans[0])).expect("fits");
        let between = contents(cache);
        let second = run(model, &other, &plans[1], cache, &rows(&plans[1])).expect("fits");

        let (mut cache, mut branch) = (filled(model), Branch::of(0));
        let both = branched(model, [&IDS, &other], plans, &mut cache, &mut branch).expect("fits");
        assert_eq!(bits(&both), bits(&[first, second].concat()));
        assert_eq!(contents(&cache), between);
        cache.adopt(&branch).expect("its own");
        assert_eq!(contents(&cache), contents(&one_by_one));
    }
}

#[test]
fn a_branch_of_no_cache_is_refused() {
    let model = model(&json!({}));
    let plans = [0, 1].map(|_| plan(&[(2, 4)], &[(0, 5)]));
    let (mut cache, mut branch) = (filled(&model), Branch::of(1));
    let error = branched(&model, [&IDS, &IDS], &plans, &mut cache, &mut branch).expect_err("one");
    let expected = "a branch of none of the caches: expected 1, got 1";
    assert_eq!(error.to_string(), expected);
}
