//! Couplets, forward and in reversal.

use std::ops::ControlFlow;

use llada_diffusion::PredictorKind;
use llada_eval::{
    Couplet, Figure, Gap, Recall, choose_first_lines, read_couplets, recall, reversal_svg,
};

use crate::all;
use crate::poet::{POEMS, Poet};

fn couplets(poet: &Poet) -> Vec<Couplet> {
    read_couplets(&POEMS.join("\n"), None, &poet.subject()).unwrap()
}

fn recalls(kind: PredictorKind) -> Vec<Recall> {
    let poet = Poet::new(kind);
    recall(&poet.subject(), &couplets(&poet), &mut all).unwrap()
}

#[test]
fn a_diffusion_model_knows_both_lines() {
    for found in recalls(PredictorKind::Diffusion) {
        assert_eq!((found.forward, found.reversal), ((4, 4), (4, 4)));
        assert!(found.is_forward() && found.is_reversal());
    }
}

#[test]
fn an_autoregressive_model_knows_the_second_line() {
    let recalls = recalls(PredictorKind::Autoregressive);
    assert_eq!(recalls.len(), 4);
    for found in &recalls {
        assert_eq!(found.forward, (4, 4));
        assert!(!found.is_reversal(), "{found:?}");
    }
    let of = |is: fn(&Recall) -> bool| recalls.iter().map(is).collect::<Vec<bool>>();
    let gap = Gap::paired(&of(Recall::is_forward), &of(Recall::is_reversal)).unwrap();
    assert_eq!((gap.mean, gap.standard_error), (1.0, 0.0));
}

#[test]
fn what_it_cannot_say_it_can_choose() {
    let poet = Poet::new(PredictorKind::Autoregressive);
    let couplets = couplets(&poet);
    let choose = |n| choose_first_lines(&poet.subject(), &couplets, n, &mut all).unwrap();
    assert_eq!(choose(4), [true; 4]);
    assert_eq!(choose(2), [true; 4]);
    // There are no ten lines of that length.
    assert!(choose(10).is_empty());
}

#[test]
fn a_model_that_knows_nothing_does_not_choose() {
    let poet = Poet::new(PredictorKind::Autoregressive);
    let unknown = "雨雨雪雨，雪花云月。\n风云风花，云雨花风。\n月花月风，花雪云水。";
    let couplets = read_couplets(unknown, None, &poet.subject()).unwrap();
    let right = choose_first_lines(&poet.subject(), &couplets, 3, &mut all).unwrap();
    assert_eq!(right, [false; 3]);
    let found = recall(&poet.subject(), &couplets, &mut all).unwrap();
    assert!(found.iter().all(|x| !x.is_forward() && !x.is_reversal()));
}

#[test]
fn an_observer_ends_it_and_what_was_done_counts() {
    let poet = Poet::new(PredictorKind::Diffusion);
    let couplets: Vec<Couplet> = couplets(&poet).into_iter().cycle().take(100).collect();
    let mut told = Vec::new();
    let found = recall(&poet.subject(), &couplets, &mut |done, all| {
        told.push((done, all));
        match told.len() {
            2 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    });
    assert_eq!(told, [(32, 100), (64, 100)]);
    assert_eq!(found.unwrap().len(), 64);
}

#[test]
fn a_limit_spreads_over_the_file() {
    let poet = Poet::new(PredictorKind::Diffusion);
    let all = couplets(&poet);
    let two = read_couplets(&POEMS.join("\n\n"), Some(2), &poet.subject()).unwrap();
    assert_eq!(two, [all[0].clone(), all[2].clone()]);
    let many = read_couplets(&POEMS.join("\n"), Some(9), &poet.subject()).unwrap();
    assert_eq!(many.len(), 4);
}

#[test]
fn lines_that_are_no_couplets_are_named() {
    let poet = Poet::new(PredictorKind::Diffusion);
    let check = |second: &str, message: &str| {
        let text = format!("{}\n{second}\n", POEMS[0]);
        let error = read_couplets(&text, None, &poet.subject()).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let whole = format!("{error}: {}", source.unwrap_or_default());
        assert!(
            whole.contains("line 2") && whole.contains(message),
            "{whole}"
        );
    };
    for text in [
        "春风夏雨",
        "春风夏雨，秋月冬山",
        "，秋月冬山。",
        "春风，。",
        "春，夏，秋。",
    ] {
        check(text, "expected a couplet such as");
    }
    // A character that the model does not know ends nothing.
    let unknown = read_couplets("春风夏雨，秋月冬龘。", None, &poet.subject()).unwrap();
    assert_eq!(
        unknown[0].second.last(),
        poet.subject().tokenizer.unk_token_id().as_ref()
    );
    let long = "春".repeat(30);
    check(
        &format!("{long}，秋。"),
        "34 tokens exceed the context of 24",
    );
    let empty = read_couplets("\n \n", None, &poet.subject()).unwrap_err();
    assert_eq!(empty.to_string(), "no couplets in the data");
}

#[test]
fn the_picture_has_a_bar_for_each_figure() {
    let figure = |p: f64| Figure {
        mean: p,
        standard_error: 0.02,
        n: 100,
    };
    let models = [
        (PredictorKind::Diffusion, [figure(0.9), figure(0.8)]),
        (PredictorKind::Autoregressive, [figure(0.95), figure(0.01)]),
    ];
    let svg = reversal_svg(&models).unwrap();
    for text in ["LLaDA", "autoregressive twin", "forward", "reversal"] {
        assert!(svg.contains(text), "no {text:?}");
    }
    // Four bars, two in the legend, the background and the legend's frame and ground.
    assert_eq!(svg.matches("<rect").count(), 4 + 2 + 3);
}
