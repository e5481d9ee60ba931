//! What an observer is told, and what it can stop.

use std::ops::ControlFlow;

use llada_sample::{Request, Revealed, SampleConfig, sample};
use llada_testkit::ToyPredictor;

const MASK: u32 = 15;

fn config(steps: usize, gen_length: usize) -> SampleConfig {
    let suppress_mask = true;
    SampleConfig {
        steps,
        gen_length,
        block_length: None,
        suppress_mask,
        ..SampleConfig::default()
    }
}

#[test]
fn events_tell_every_step() {
    let toy = ToyPredictor::new(16, 32, 0);
    let config = SampleConfig {
        block_length: Some(4),
        ..config(5, 8)
    };
    let request = Request::generate(vec![1, 2, 3], config);
    let mut canvas = vec![1, 2, 3];
    canvas.resize(11, MASK);
    let mut told = Vec::new();
    let outputs = sample(&toy, &[request], &mut |event| {
        for &Revealed {
            position,
            token,
            confidence,
        } in event.revealed
        {
            assert_eq!(std::mem::replace(&mut canvas[position], token), MASK);
            assert!(confidence > 0.0 && confidence <= 1.0);
        }
        assert_eq!(event.canvas, canvas);
        assert_eq!((event.request, event.steps, event.blocks), (0, 5, 2));
        told.push((event.step, event.block, event.masked, event.revealed.len()));
        ControlFlow::Continue(())
    })
    .unwrap();
    // 4 masks in 3 steps, then 4 in 2.
    assert_eq!(
        told,
        [
            (0, 0, 6, 2),
            (1, 0, 5, 1),
            (2, 0, 4, 1),
            (3, 1, 2, 2),
            (4, 1, 0, 2)
        ]
    );
    assert_eq!(outputs[0].tokens, canvas);
    assert_eq!(
        (outputs[0].nfe, outputs[0].steps, outputs[0].stopped),
        (5, 5, false)
    );
}

#[test]
fn one_request_can_be_stopped() {
    let toy = ToyPredictor::new(16, 32, 0);
    let requests = [
        Request::generate(vec![1], config(4, 8)),
        Request::generate(vec![2], config(4, 8)),
    ];
    let stop_second = &mut |event: &llada_sample::StepEvent<'_>| {
        if event.request == 1 && event.step == 1 {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    let outputs = sample(&toy, &requests, stop_second).unwrap();
    assert_eq!((outputs[0].steps, outputs[0].stopped), (4, false));
    assert!(!outputs[0].tokens.contains(&MASK));
    assert_eq!((outputs[1].steps, outputs[1].stopped), (2, true));
    assert_eq!(
        outputs[1].tokens.iter().filter(|&&id| id == MASK).count(),
        4
    );
}

#[test]
fn stopping_at_the_last_step_stops_nothing() {
    let toy = ToyPredictor::new(16, 32, 0);
    let request = Request::generate(vec![1], config(2, 4));
    let outputs = sample(&toy, &[request], &mut |event| {
        if event.step == 1 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .unwrap();
    assert!(!outputs[0].stopped);
}

#[test]
fn steps_that_reveal_nothing_need_no_call() {
    let toy = ToyPredictor::new(16, 32, 0);
    let request = Request::generate(vec![1], config(10, 4));
    let mut steps = 0;
    let outputs = sample(&toy, &[request], &mut |_| {
        steps += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!((outputs[0].nfe, outputs[0].steps, steps), (4, 10, 10));
}
