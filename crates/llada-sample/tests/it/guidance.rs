//! What the predictor is shown, with and without guidance.

use std::cell::RefCell;
use std::ops::ControlFlow;

use llada_diffusion::{
    Candidates, Choice, MaskPredictor, PredictorInfo, Query, Result, losses_by_logits,
};
use llada_sample::{Output, Request, SampleConfig, sample};
use llada_testkit::ToyPredictor;

const MASK: u32 = 15;

/// Keeps every canvas it is shown.
struct Spy {
    toy: ToyPredictor,
    seen: RefCell<Vec<Vec<u32>>>,
}

impl Spy {
    fn new() -> Self {
        Self {
            toy: ToyPredictor::new(16, 32, 4),
            seen: RefCell::default(),
        }
    }

    fn run(&self, requests: &[Request]) -> Vec<Output> {
        sample(self, requests, &mut |_| ControlFlow::Continue(())).unwrap()
    }
}

impl MaskPredictor for Spy {
    fn info(&self) -> PredictorInfo {
        self.toy.info()
    }

    fn logits(&self, query: Query<'_>) -> Result<Vec<f32>> {
        query.by_logits(|batch, positions| {
            let canvases = batch.sequences().map(<[u32]>::to_vec);
            self.seen.borrow_mut().extend(canvases);
            self.toy.rows(batch, positions)
        })
    }

    fn candidates(&self, query: Query<'_>, choice: &Choice<'_>) -> Result<Candidates> {
        choice.by_logits(self, query)
    }

    fn token_losses(&self, query: Query<'_>, targets: &[u32]) -> Result<Vec<f32>> {
        losses_by_logits(self, query, targets)
    }
}

fn config(cfg_scale: f32) -> SampleConfig {
    SampleConfig {
        steps: 4,
        gen_length: 8,
        block_length: None,
        cfg_scale,
        suppress_mask: true,
        ..SampleConfig::default()
    }
}

#[test]
fn guidance_hides_what_was_given_and_keeps_what_was_generated() {
    let given = vec![1, MASK, 2, MASK, MASK, 3, MASK, MASK];
    for request in [
        Request::infill(given.clone(), config(1.5)),
        Request::generate(vec![4, 5], config(1.5)),
    ] {
        let spy = Spy::new();
        let mut canvases = Vec::new();
        sample(&spy, &[request], &mut |event| {
            canvases.push(event.canvas.to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
        let seen = spy.seen.borrow();
        let first = &seen[0];
        for (step, pair) in seen.chunks(2).enumerate() {
            if step > 0 {
                assert_eq!(pair[0], canvases[step - 1]);
            }
            for (at, &id) in pair[0].iter().enumerate() {
                let expected = if first[at] == MASK { id } else { MASK };
                assert_eq!(pair[1][at], expected, "step {step}, position {at}");
            }
        }
        assert_eq!(seen.len(), 8);
    }
}

#[test]
fn later_blocks_are_seen_as_masks() {
    let spy = Spy::new();
    let config = SampleConfig {
        block_length: Some(2),
        ..config(0.0)
    };
    spy.run(&[Request::generate(vec![1, 2], config)]);
    let masks = |canvas: &Vec<u32>| canvas.iter().filter(|&&id| id == MASK).count();
    assert_eq!(
        spy.seen.borrow().iter().map(masks).collect::<Vec<_>>(),
        [8, 6, 4, 2]
    );
}

#[test]
fn a_request_that_is_done_leaves_the_batch() {
    let spy = Spy::new();
    let short = SampleConfig {
        steps: 1,
        ..config(0.0)
    };
    let outputs = spy.run(&[
        Request::generate(vec![1], short),
        Request::generate(vec![2], config(0.0)),
    ]);
    let starts: Vec<u32> = spy.seen.borrow().iter().map(|canvas| canvas[0]).collect();
    assert_eq!(starts, [1, 2, 2, 2, 2]);
    assert_eq!([outputs[0].nfe, outputs[1].nfe], [1, 4]);
}
