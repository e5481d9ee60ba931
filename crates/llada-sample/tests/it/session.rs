//! Requests that come and go: each as if it were alone.

use std::ops::ControlFlow;

use llada_diffusion::{
    Candidates, Choice, Error as DiffusionError, MaskPredictor, PredictorInfo, Query, Result,
    losses_by_logits,
};
use llada_sample::{
    Ended, Output, Process, Remasking, Request, SampleConfig, Session, StepEvent, sample,
};
use llada_testkit::ToyPredictor;
use proptest::prelude::*;

const MASK: u32 = 15;
/// A token at which [`Allergic`] fails.
const POISON: u32 = 7;

/// Keeps no request from going on.
fn watch(_: &StepEvent<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn alone(toy: &ToyPredictor, request: &Request) -> Output {
    sample(toy, std::slice::from_ref(request), &mut watch)
        .unwrap()
        .remove(0)
}

/// The canvas after so many steps.
fn canvas_after(toy: &ToyPredictor, request: &Request, steps: usize) -> Vec<u32> {
    let mut session = Session::new(toy);
    let number = session.submit(request.clone()).unwrap();
    for _ in 0..steps {
        session.step(&mut watch);
    }
    session.cancel(number).unwrap().tokens
}

fn requests() -> impl Strategy<Value = Request> {
    let process = prop_oneof![
        3 => Just(Process::Quota),
        1 => Just(Process::BlockQuota),
        1 => Just(Process::Threshold(0.3)),
        1 => Just(Process::Reverse),
        1 => Just(Process::EntropyExit(1.5)),
    ];
    let remasking = proptest::sample::select(Remasking::ALL.to_vec());
    let numbers = (0_u64..4, 1_usize..12, 1_usize..6, 0_u32..3);
    let switches = (any::<bool>(), any::<bool>(), any::<bool>());
    let prompt = proptest::collection::vec(0_u32..14, 0..6);
    (process, remasking, numbers, switches, prompt).prop_map(
        |(process, remasking, (seed, gen_length, block, sequence), switches, prompt)| {
            let (is_warm, is_guided, early_stop) = switches;
            let config = SampleConfig {
                steps: 2 * gen_length,
                gen_length,
                block_length: Some(block),
                temperature: if is_warm { 0.8 } else { 0.0 },
                cfg_scale: if is_guided { 1.5 } else { 0.0 },
                remasking,
                process,
                early_stop,
                seed,
                suppress_mask: true,
                ..SampleConfig::default()
            };
            Request {
                sequence,
                ..Request::generate(prompt, config)
            }
        },
    )
}

proptest! {
    #[test]
    fn a_request_does_not_see_who_comes_and_goes(
        is_autoregressive in any::<bool>(),
        // When each comes, and after how many steps it is cancelled, if it is.
        plan in proptest::collection::vec(
            (requests(), 0_usize..12, proptest::option::of(1_usize..8)), 1..7,
        ),
    ) {
        let mut toy = ToyPredictor::new(16, 32, 5);
        let mut plan = plan;
        if is_autoregressive {
            toy = toy.autoregressive();
            for (request, _, _) in &mut plan {
                let config = SampleConfig {
                    gen_length: request.config.gen_length,
                    temperature: request.config.temperature,
                    early_stop: request.config.early_stop,
                    ..SampleConfig::default()
                };
                *request = Request::generate(vec![1, 2], config);
            }
        }
        let mut session = Session::new(&toy);
        let mut numbers = vec![None; plan.len()];
        let mut started = vec![0; plan.len()];
        let mut ended = 0;
        for time in 0.. {
            for (i, (request, arrival, _)) in plan.iter().enumerate() {
                if *arrival == time {
                    numbers[i] = Some(session.submit(request.clone()).unwrap());
                    started[i] = time;
                }
            }
            for Ended { request: number, result } in session.step(&mut watch) {
                let i = numbers.iter().position(|n| *n == Some(number)).unwrap();
                prop_assert_eq!(&result.unwrap(), &alone(&toy, &plan[i].0));
                ended += 1;
            }
            for (i, (request, _, cancelled)) in plan.iter().enumerate() {
                let Some((number, steps)) = numbers[i].zip(*cancelled) else { continue };
                if time + 1 != started[i] + steps {
                    continue;
                }
                if let Some(output) = session.cancel(number) {
                    prop_assert!(output.stopped);
                    prop_assert_eq!(output.tokens, canvas_after(&toy, request, steps));
                    ended += 1;
                }
            }
            if time > 12 && session.n_requests() == 0 {
                break;
            }
        }
        prop_assert_eq!(ended, plan.len());
    }
}

fn config() -> SampleConfig {
    SampleConfig {
        steps: 4,
        gen_length: 4,
        block_length: None,
        suppress_mask: true,
        ..SampleConfig::default()
    }
}

/// A predictor that fails at every batch with a token in it.
struct Allergic(ToyPredictor);

impl MaskPredictor for Allergic {
    fn info(&self) -> PredictorInfo {
        self.0.info()
    }

    fn logits(&self, query: Query<'_>) -> Result<Vec<f32>> {
        match query.batch.ids().contains(&POISON) {
            true => Err(DiffusionError::Unsupported { what: "antidote" }),
            false => self.0.logits(query),
        }
    }

    fn candidates(&self, query: Query<'_>, choice: &Choice<'_>) -> Result<Candidates> {
        choice.by_logits(self, query)
    }

    fn token_losses(&self, query: Query<'_>, targets: &[u32]) -> Result<Vec<f32>> {
        losses_by_logits(self, query, targets)
    }
}

#[test]
fn a_request_at_which_the_predictor_fails_fails_alone() {
    let toy = ToyPredictor::new(16, 32, 0);
    let config = SampleConfig {
        logits_eos_inf: vec![POISON],
        ..config()
    };
    let request = |prompt: &[u32]| Request::generate(prompt.to_vec(), config.clone());
    let requests = [request(&[1]), request(&[POISON]), request(&[2, 3])];
    let predictor = Allergic(toy);
    let mut session = Session::new(&predictor);
    for request in &requests {
        session.submit(request.clone()).unwrap();
    }
    let first = session.step(&mut watch);
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].request, 1);
    let error = first[0].result.as_ref().unwrap_err();
    assert_eq!(error.to_string(), "mask predictor");
    let mut outputs = Vec::new();
    while session.n_requests() > 0 {
        outputs.extend(session.step(&mut watch));
    }
    for ended in outputs {
        let expected = alone(&toy, &requests[ended.request]);
        assert_eq!(ended.result.unwrap(), expected);
    }
}

#[test]
fn a_bad_request_is_refused_and_leaves_no_trace() {
    let toy = ToyPredictor::new(16, 12, 0);
    let mut session = Session::new(&toy);
    assert_eq!(
        session
            .submit(Request::generate(vec![1], config()))
            .unwrap(),
        0
    );
    let error = session
        .submit(Request::generate(vec![1; 9], config()))
        .unwrap_err();
    let expected = "request 1: 13 tokens (prompt and answer) exceed the context of 12";
    assert_eq!(error.to_string(), expected);
    assert_eq!(
        session
            .submit(Request::generate(vec![2], config()))
            .unwrap(),
        1
    );
    assert_eq!(session.n_requests(), 2);
    assert!(session.cancel(7).is_none());
}

#[test]
fn what_is_settled_grows_and_never_changes() {
    let toy = ToyPredictor::new(16, 32, 2);
    let config = SampleConfig {
        block_length: Some(3),
        steps: 9,
        gen_length: 9,
        ..config()
    };
    let mut settled = Vec::new();
    let output = sample(
        &toy,
        &[Request::generate(vec![1, 2], config)],
        &mut |event| {
            let now = &event.canvas[event.settled.clone()];
            assert_eq!(event.settled.start, 2);
            assert!(now.starts_with(&settled), "{settled:?} became {now:?}");
            assert!(!now.contains(&MASK));
            settled = now.to_vec();
            ControlFlow::Continue(())
        },
    );
    assert_eq!(output.unwrap()[0].answer(), settled);
}
