//! Rules and caches of a model, measured.
#![expect(clippy::float_cmp, reason = "shares of small numbers are exact")]

use std::ops::ControlFlow;

use llada_diffusion::PredictorKind;
use llada_eval::{Bars, Measured, Setting, Tried, Tuner, combinations, recommend, settings};
use llada_sample::{Overrides, Request, SampleConfig};

use crate::poet::{POEMS, Poet};

const BARS: Bars = Bars {
    agreement: 0.95,
    nats: 0.05,
};

/// The second lines of all poems, asked for by the first.
fn requests(poet: &Poet, setting: &Setting) -> Vec<Request> {
    let subject = poet.subject();
    let overrides = setting.overrides(&Overrides {
        gen_length: Some(5),
        ..Overrides::default()
    });
    let request = |poem: &str| {
        let mut prompt = poet.tokenizer.encode(poem).unwrap();
        prompt.truncate(5);
        let task = Request::generate(prompt, SampleConfig::default()).task;
        subject.policy.request(task, true, &overrides).unwrap()
    };
    POEMS.map(request).into()
}

/// All settings of a poet that are measured, and the flags of those that are not.
fn measured(poet: &Poet) -> (Vec<Measured>, Vec<String>) {
    let subject = poet.subject();
    let mut tuner = Tuner::new(&subject, 4);
    let (mut measured, mut skipped) = (Vec::new(), Vec::new());
    for setting in settings(&subject, &Overrides::default()) {
        let flags = setting.flags();
        // The poet takes no caches.
        if flags.contains("cache") || flags.contains("window") {
            continue;
        }
        let requests = requests(poet, &setting);
        let tried = tuner.measure(setting, &requests, &mut |_, _| ControlFlow::Continue(()));
        match tried.unwrap() {
            Tried::Measured(row) => measured.push(*row),
            Tried::Skipped(_) => skipped.push(flags),
            Tried::Interrupted => panic!("nobody has interrupted it"),
        }
    }
    (measured, skipped)
}

#[test]
fn settings_are_compared_with_one_token_a_step() {
    let poet = Poet::new(PredictorKind::Diffusion);
    let (measured, skipped) = measured(&poet);
    assert_eq!(skipped, [""; 0]);
    let of = |flags: &str| {
        let found = measured.iter().find(|row| row.setting.flags() == flags);
        found.unwrap_or_else(|| panic!("{flags} is measured"))
    };
    // A prompt, an answer of five tokens, and the end, which the model is shown.
    let base = of("");
    assert_eq!((base.forwards, base.rows), (5.0, 5.0 * 11.0));
    assert_eq!(base.agreement.texts.mean, 1.0);
    assert_eq!(base.agreement.tokens, 1.0);
    assert_eq!(base.agreement.first_difference, None);
    // The poet is sure of all that it knows: exp(8) / (exp(8) + 25) > 0.99.
    let sure = of("--threshold 0.9");
    assert_eq!((sure.forwards, sure.rows), (1.0, 11.0));
    assert_eq!(sure.agreement.texts.mean, 1.0);
    assert_eq!(sure.nats_per_token, base.nats_per_token);
    assert!(base.nats_per_token.unwrap() > -0.02);
}

#[test]
fn answers_that_differ_are_counted_by_text_and_by_token() {
    let poet = Poet::new(PredictorKind::Diffusion);
    let subject = poet.subject();
    let [mut ours, base] = [0, 0].map(|_| {
        let setting = settings(&subject, &Overrides::default()).remove(0);
        let requests = requests(&poet, &setting);
        let all = &mut |_, _| ControlFlow::Continue(());
        llada_eval::answer(&subject, &requests, all).unwrap()
    });
    let eos = subject.policy.info.eos_token_id;
    // The third token of one, and an end before the fourth of another.
    ours.outputs[1].tokens[5 + 2] = base.outputs[1].tokens[5];
    ours.outputs[2].tokens[5 + 3] = eos;
    let agreement = ours.agreement(&base, &subject).unwrap();
    assert_eq!(agreement.texts.mean, 0.5);
    assert_eq!(agreement.tokens, (5.0 + 4.0 + 3.0 + 5.0) / 20.0);
    assert_eq!(agreement.first_difference, Some((2.0 + 3.0) / 2.0));
}

#[test]
fn the_fastest_setting_that_keeps_enough_is_recommended() {
    let poet = Poet::new(PredictorKind::Diffusion);
    let (all, _) = measured(&poet);
    let mut rows = vec![all[0].clone(), all[1].clone(), all[2].clone()];
    for (row, (seconds, same, nats)) in
        rows.iter_mut()
            .zip([(3.0, 1.0, -1.0), (2.0, 0.95, -1.06), (1.0, 0.94, -1.04)])
    {
        row.seconds = seconds;
        row.agreement.texts.mean = same;
        row.nats_per_token = Some(nats);
    }
    let best = recommend(&rows, BARS);
    assert_eq!(best.by_agreement, Some(&rows[1]));
    assert_eq!(best.by_nats, Some(&rows[2]));
    // Nothing is as good as the first setting but itself.
    let strict = Bars {
        agreement: 1.0,
        nats: 0.0,
    };
    let best = recommend(&rows, strict);
    assert_eq!(best.by_agreement, Some(&rows[0]));
    assert_eq!(best.by_nats, Some(&rows[0]));
    // Without a likelihood it is not recommended by it.
    rows[2].nats_per_token = None;
    assert_eq!(recommend(&rows, BARS).by_nats, Some(&rows[0]));
    // No cache was measured that a rule could have.
    assert_eq!(combinations(&rows, BARS, 2), []);
}

#[test]
fn an_autoregressive_model_has_nothing_to_choose() {
    let poet = Poet::new(PredictorKind::Autoregressive);
    let subject = poet.subject();
    let all = settings(&subject, &Overrides::default());
    let task = Request::generate(vec![5], SampleConfig::default()).task;
    let is_refused = |setting: &Setting| {
        let overrides = setting.overrides(&Overrides::default());
        let request = subject.policy.request(task.clone(), true, &overrides);
        matches!(request, Err(llada_sample::Error::NotAutoregressive { .. }))
    };
    let refused: Vec<bool> = all.iter().map(is_refused).collect();
    assert!(!refused[0]);
    assert!(refused[1..].iter().all(|&is_refused| is_refused));
}
