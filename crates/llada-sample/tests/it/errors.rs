//! Requests that can't be run: each one clear error.

use std::cell::Cell;
use std::ops::{ControlFlow, Range};

use llada_diffusion::{
    Candidates, Choice, MaskPredictor, PredictorInfo, Query, Result as DiffusionResult,
    losses_by_logits,
};
use llada_sample::{
    Draws, Output, RecordedDraws, RefreshPolicy, Request, Result, SampleConfig, Task, sample,
};
use llada_testkit::ToyPredictor;

fn config() -> SampleConfig {
    SampleConfig {
        steps: 4,
        gen_length: 4,
        block_length: None,
        ..SampleConfig::default()
    }
}

fn run(predictor: &dyn MaskPredictor, request: Request) -> Result<Vec<Output>> {
    sample(predictor, &[request], &mut |_| ControlFlow::Continue(()))
}

#[track_caller]
fn check(request: Request, message: &str) {
    let toy = ToyPredictor::new(16, 12, 0);
    assert_eq!(run(&toy, request).unwrap_err().to_string(), message);
}

#[test]
fn bad_requests_are_refused() {
    check(
        Request::generate(vec![1; 9], config()),
        "request 0: 13 tokens (prompt and answer) exceed the context of 12",
    );
    check(
        Request::generate(
            vec![1],
            SampleConfig {
                gen_length: usize::MAX,
                ..config()
            },
        ),
        &format!(
            "request 0: {} tokens (prompt and answer) exceed the context of 12",
            usize::MAX
        ),
    );
    let mut constrained = Request::generate(vec![1], config());
    if let Task::Generate { constraints, .. } = &mut constrained.task {
        *constraints = vec![(3, 2), (4, 2)];
    }
    check(
        constrained,
        "request 0: the offset of a constraint must be less than gen_length, got 4",
    );
    check(
        Request::generate(vec![1, 16], config()),
        "request 0: token id 16 at position 1 is outside the vocabulary of 16",
    );
    check(
        Request::generate(
            vec![1],
            SampleConfig {
                gen_length: 0,
                ..config()
            },
        ),
        "request 0: gen_length must be at least 1, got 0",
    );
    check(
        Request::generate(
            vec![1],
            SampleConfig {
                steps: 0,
                ..config()
            },
        ),
        "request 0: steps must be at least 1, got 0",
    );
    check(
        Request::generate(
            vec![],
            SampleConfig {
                steps: 3,
                block_length: Some(1),
                ..config()
            },
        ),
        "request 0: 3 steps are too few for 4 blocks",
    );
    check(
        Request::generate(
            vec![1],
            SampleConfig {
                steps: 1 << 21,
                ..config()
            },
        ),
        "request 0: steps must be at most 1048576, got 2097152",
    );
    let refresh = RefreshPolicy {
        vicinity: 1,
        ..RefreshPolicy::default()
    };
    let uncached = SampleConfig {
        refresh,
        ..config()
    };
    check(
        Request::generate(vec![], uncached),
        "request 0: vicinity needs a cache: prefix, dual or activity",
    );
    check(
        Request::infill(vec![1, 2, 3], config()),
        "request 0: the text to fill in has no mask",
    );
    check(
        Request::infill(vec![], config()),
        "request 0: the text to fill in has no mask",
    );
}

#[test]
fn recordings_that_do_not_cover_the_run_are_refused() {
    let recorded = |draws, temperature| Request {
        draws: Draws::Recorded(draws),
        ..Request::generate(
            vec![1, 2],
            SampleConfig {
                temperature,
                ..config()
            },
        )
    };
    check(
        recorded(RecordedDraws::default(), 1.0),
        "request 0: recorded gumbel draws: expected 256 numbers, got 0",
    );
    let late = RecordedDraws {
        gumbel_start: 3,
        gumbel_len: 3,
        gumbel: vec![0.5; 4 * 3 * 16],
        ..RecordedDraws::default()
    };
    check(
        recorded(late, 1.0),
        "request 0: recorded gumbel draws: expected 256 numbers, got 192",
    );
    let mut request = recorded(RecordedDraws::default(), 0.0);
    request.config.remasking = llada_sample::Remasking::Random;
    check(
        request,
        "request 0: recorded remasking draws: expected 24 numbers, got 0",
    );
}

#[test]
fn an_empty_prompt_is_allowed() {
    let toy = ToyPredictor::new(16, 12, 0);
    let outputs = run(&toy, Request::generate(vec![], config())).unwrap();
    assert_eq!((outputs[0].prompt_len, outputs[0].answer().len()), (0, 4));
}

/// Zeros, but in the second call the logits of some tokens are others.
#[derive(Debug)]
struct Broken {
    calls: Cell<usize>,
    tokens: Range<usize>,
    logit: f32,
}

impl MaskPredictor for Broken {
    fn info(&self) -> PredictorInfo {
        PredictorInfo::new(16, 15, 14, 12)
    }

    fn logits(&self, query: Query<'_>) -> DiffusionResult<Vec<f32>> {
        let mut row = [0.0; 16];
        if self.calls.replace(self.calls.get() + 1) == 1 {
            row[self.tokens.clone()].fill(self.logit);
        }
        Ok(row.repeat(query.positions.len()))
    }

    fn candidates(&self, query: Query<'_>, choice: &Choice<'_>) -> DiffusionResult<Candidates> {
        choice.by_logits(self, query)
    }

    fn token_losses(&self, query: Query<'_>, targets: &[u32]) -> DiffusionResult<Vec<f32>> {
        losses_by_logits(self, query, targets)
    }
}

#[test]
fn a_confidence_that_is_no_number_ends_the_run() {
    #[track_caller]
    fn check(tokens: Range<usize>, logit: f32) {
        let predictor = Broken {
            calls: 0.into(),
            tokens,
            logit,
        };
        let error = run(&predictor, Request::generate(vec![1], config())).unwrap_err();
        assert_eq!(
            error.to_string(),
            "request 0: confidence at position 2 in step 1 is not a number"
        );
    }
    check(0..16, f32::NAN);
    check(0..1, f32::NAN);
    check(15..16, f32::NAN);
    check(0..16, f32::NEG_INFINITY);
    check(3..4, f32::INFINITY);
}
