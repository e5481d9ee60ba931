//! Bounds of predictors whose likelihoods are known.

use std::ops::ControlFlow;

use llada_diffusion::PredictorKind;
use llada_eval::{Bound, BoundConfig, ScalingPoint, held_out_bound, read_documents, scaling_svg};

use crate::all;
use crate::poet::{POEMS, Poet, SURE};

const CONFIG: BoundConfig = BoundConfig {
    mc_samples: 10,
    seed: 1,
};

fn bound(poet: &Poet, text: &str) -> Bound {
    let documents = read_documents(text, None, &poet.subject()).unwrap();
    let bound = held_out_bound(&poet.subject(), &documents, CONFIG, &mut all);
    bound.unwrap().unwrap()
}

#[test]
fn both_kinds_are_scored_on_the_same_tokens() {
    for kind in [PredictorKind::Diffusion, PredictorKind::Autoregressive] {
        let poet = Poet::new(kind);
        let vocab_size = poet.tokenizer.vocab_size() as f64;
        // Of texts that it knows, each token has the probability e^8 / (e^8 + V - 1): the first
        // token of one says which it is.
        let bound = bound(&poet, &POEMS.join("\n"));
        let expected = (f64::from(-SURE).exp() * (vocab_size - 1.0)).ln_1p();
        let error = (bound.nats_per_token - expected).abs();
        assert!(error <= 1e-5, "{kind:?}: {bound:?}, expected {expected}");
        assert!(bound.standard_error <= 1e-5, "{kind:?}: {bound:?}");
        // Ten characters and the end, but for the first.
        assert_eq!((bound.n_sequences, bound.n_tokens), (4, 40));
    }
    for kind in [PredictorKind::Diffusion, PredictorKind::Autoregressive] {
        let poet = Poet::new(kind);
        let unknown = bound(&poet, "月雨雨雨，雪雪\n风风");
        let expected = (poet.tokenizer.vocab_size() as f64).ln();
        let error = (unknown.nats_per_token - expected).abs();
        assert!(error <= 1e-5, "{kind:?}: {unknown:?}, expected {expected}");
    }
}

#[test]
fn documents_are_cut_limited_and_never_empty() {
    let poet = Poet::new(PredictorKind::Diffusion);
    let subject = poet.subject();
    let text = format!("{}\n\n春风\n{}", POEMS[0], "春".repeat(50));
    let documents = read_documents(&text, None, &subject).unwrap();
    let lengths: Vec<usize> = documents.iter().map(Vec::len).collect();
    assert_eq!(lengths, [11, 3, 24]);
    let one = read_documents(&text, Some(1), &subject).unwrap();
    assert_eq!(one, documents[..1]);
    let empty = read_documents(" \n", None, &subject).unwrap_err();
    assert_eq!(empty.to_string(), "no documents in the data");
}

#[test]
fn an_observer_ends_it_and_what_was_done_counts() {
    let poet = Poet::new(PredictorKind::Autoregressive);
    let text = POEMS.join("\n").repeat(20).replace('。', "。\n");
    let documents = read_documents(&text, None, &poet.subject()).unwrap();
    let stop = &mut |_, _| ControlFlow::Break(());
    let bound = held_out_bound(&poet.subject(), &documents, CONFIG, stop);
    let n = bound.unwrap().unwrap().n_sequences;
    assert!(
        n == 32 && documents.len() > 32,
        "{n} of {}",
        documents.len()
    );
}

#[test]
fn the_picture_has_a_line_for_each_kind() {
    let point = |kind, parameters: usize, nats| ScalingPoint {
        name: format!("{parameters}"),
        kind,
        non_embedding_parameters: parameters,
        n_tokens: 1_500_000,
        bound: Bound {
            nats_per_token: nats,
            standard_error: 0.01,
            n_sequences: 100,
            n_tokens: 5000,
        },
    };
    let points = [
        point(PredictorKind::Diffusion, 100_000, 6.2),
        point(PredictorKind::Diffusion, 4_000_000, 5.9),
        point(PredictorKind::Autoregressive, 100_000, 5.8),
    ];
    assert!((points[0].flops() - 9e11).abs() < 1.0);
    let svg = scaling_svg(&points).unwrap();
    for text in ["LLaDA", "autoregressive twin", "6 N D", "nats per token"] {
        assert!(svg.contains(text), "no {text:?}");
    }
    assert_eq!(svg.matches("<circle").count(), 3);
    assert!(!svg.contains("NaN"), "{svg}");
    assert!(scaling_svg(&[]).is_err());
    // A single run has no range of compute.
    assert!(!scaling_svg(&points[..1]).unwrap().contains("NaN"));
}
