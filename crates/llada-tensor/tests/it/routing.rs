//! The choice of experts.

use llada_tensor::ops::moe::{Router, RouterRule};
use llada_tensor::{Device, Error, Precision, Tape, Var};

use crate::reference;
use crate::support::{devices, max_error, normal, of, scalar, tensor, widen};

pub(crate) const SOFTMAX: RouterRule = RouterRule::Softmax;

pub(crate) fn router(n_experts: usize, k: usize, rule: RouterRule) -> Router {
    Router { n_experts, k, rule }
}

pub(crate) fn route(
    device: &Device,
    router: Router,
    logits: &[f32],
    bias: Option<&[f32]>,
    runs: &[usize],
) -> (Vec<u32>, Vec<f32>) {
    let e = router.n_experts;
    let logits = Var::constant(of(device, &[logits.len() / e, e], logits));
    let bias = bias.map(|bias| of(device, &[e], bias));
    let mut tape = Tape::inference(device, Precision::F32);
    let routes = tape.route(&logits, bias.as_ref(), &router, runs);
    let routes = routes.expect("fits");
    let weights = routes.weights().value().to_vec_f32().unwrap();
    (routes.ids().unwrap(), weights)
}

/// Ids and weights by sorting, in `f64`.
fn check_route(router: Router, tokens: usize, runs: &[usize]) {
    let (e, k) = (router.n_experts, router.k);
    let (logits, bias) = (normal(1, tokens * e), normal(2, e));
    for bias in [None, Some(&bias[..])] {
        let scores = reference::router_scores(router, &widen(&logits), bias);
        let (ids, weights) = reference::route(router, &scores, runs);
        for (name, device) in devices() {
            let (got, got_weights) = route(device, router, &logits, bias, runs);
            assert_eq!(got, ids, "{name} {router:?}");
            let error = max_error(&got_weights, &weights);
            let bound = 16.0 * f64::from(f32::EPSILON);
            assert!(error <= bound, "{name} {router:?}: {error:e}");
        }
        assert_eq!(ids.len(), tokens * k);
    }
}

#[test]
fn every_rule_agrees_with_sorting() {
    let scale = 2.5;
    for tokens in [0, 1, 5, 33, 70] {
        for (e, k) in [(3, 1), (8, 8), (17, 4)] {
            check_route(router(e, k, SOFTMAX), tokens, &[]);
        }
        for (e, k, n_group, topk_group) in
            [(16, 3, 4, 2), (12, 1, 6, 1), (5, 2, 5, 3), (9, 4, 1, 1)]
        {
            let rule = RouterRule::Groups {
                n_group,
                topk_group,
                scale,
            };
            check_route(router(e, k, rule), tokens, &[]);
        }
        for (capacity, k) in [(3, 3), (6, 2), (40, 1)] {
            let rule = RouterRule::Capacity { capacity, scale };
            let middle = tokens / 3;
            check_route(router(17, k, rule), tokens, &[0, middle, middle, tokens]);
        }
    }
}

#[test]
fn of_equal_scores_the_lower_index_wins() {
    let (n_group, topk_group, scale) = (3, 2, 1.0);
    let groups = RouterRule::Groups {
        n_group,
        topk_group,
        scale,
    };
    let capacity = RouterRule::Capacity { capacity: 4, scale };
    for rule in [SOFTMAX, groups, capacity] {
        let (ids, _) = route(scalar(), router(6, 3, rule), &[0.5; 12], None, &[0, 2]);
        assert_eq!(ids, [0, 1, 2, 0, 1, 2], "{rule:?}");
    }
}

#[test]
fn nan_is_smaller_than_every_number() {
    let (n_group, topk_group, scale) = (2, 1, 1.0);
    let groups = RouterRule::Groups {
        n_group,
        topk_group,
        scale,
    };
    let capacity = RouterRule::Capacity { capacity: 2, scale };
    let logits = [f32::NAN, 9.0, -3.0, f32::NEG_INFINITY];
    let (ids, weights) = route(scalar(), router(4, 2, groups), &logits, None, &[]);
    assert_eq!(ids, [2, 3]);
    assert!(weights.iter().all(|x| x.is_finite()), "{weights:?}");
    let (ids, _) = route(scalar(), router(4, 2, capacity), &logits, None, &[0, 1]);
    assert_eq!(ids, [1, 2]);
    // With a NaN every probability is one.
    let (ids, weights) = route(scalar(), router(4, 2, SOFTMAX), &logits, None, &[]);
    assert_eq!(ids, [0, 1]);
    assert!(weights.iter().all(|x| x.is_nan()), "{weights:?}");
}

#[test]
fn sizes_of_a_router_must_fit() {
    let groups = |n_group, topk_group| RouterRule::Groups {
        n_group,
        topk_group,
        scale: 1.0,
    };
    let capacity = |capacity| RouterRule::Capacity {
        capacity,
        scale: 1.0,
    };
    for (e, k, rule) in [
        (4, 0, SOFTMAX),
        (4, 5, SOFTMAX),
        (0, 1, SOFTMAX),
        (8, 2, groups(3, 1)),
        (8, 2, groups(0, 0)),
        (8, 2, groups(4, 5)),
        (8, 2, groups(4, 0)),
        (8, 3, groups(4, 1)),
        (8, 3, capacity(2)),
        (8, 1, capacity(0)),
    ] {
        let error = router(e, k, rule).check().unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
    }
    assert_eq!(router(8, 8, groups(4, 4)).check(), Ok(()));
    assert_eq!(router(8, 8, capacity(48)).check(), Ok(()));
}

#[test]
fn routes_need_logits_of_their_experts_and_runs_of_their_tokens() {
    let mut tape = Tape::inference(scalar(), Precision::F32);
    let logits = Var::constant(tensor(scalar(), &[3, 4], 1));
    let bias = tensor(scalar(), &[3], 2);
    let wrong = tape.route(&logits, None, &router(5, 1, SOFTMAX), &[]);
    assert!(matches!(wrong, Err(Error::ShapeMismatch { .. })));
    let wrong = tape.route(&logits, Some(&bias), &router(4, 1, SOFTMAX), &[]);
    assert!(matches!(wrong, Err(Error::ShapeMismatch { .. })));
    let (capacity, scale) = (2, 1.0);
    let rule = RouterRule::Capacity { capacity, scale };
    for runs in [&[][..], &[0], &[0, 2], &[1, 3], &[0, 4], &[0, 2, 1, 3]] {
        let wrong = tape.route(&logits, None, &router(4, 1, rule), runs);
        assert!(
            matches!(wrong, Err(Error::InvalidArgument { .. })),
            "{runs:?}"
        );
    }
}
