//! Requests that can't be run: each one clear error.

use std::cell::Cell;
use std::ops::{ControlFlow, Range};

use llada_diffusion::{
    Candidates, Choice, MaskPredictor, PredictorInfo, Query, Result as DiffusionResult,
    losses_by_logits,
};
use llada_sample::{
    Alg, CacheMode, Draws, EndThink, Horizon, Output, Process, RecordedDraws, RefreshPolicy,
    Remasking, Request, Result, SampleConfig, Task, sample,
};
use llada_testkit::{BlockPredictor, ToyPredictor};

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

#[test]
fn settings_of_other_loops_that_do_not_fit_are_refused() {
    let blocks = BlockPredictor::new(16, 64, 0, 4);
    let process = Process::BlockDiffusion {
        threshold: 0.9,
        minimal_topk: 1,
    };
    let aligned = SampleConfig {
        block_length: Some(4),
        horizon: Horizon::AlignedBlock,
        process,
        ..config()
    };
    let check = |config: SampleConfig, message: &str| {
        let error = run(&blocks, Request::generate(vec![1, 2], config)).unwrap_err();
        assert_eq!(error.to_string(), format!("request 0: {message}"));
    };
    run(&blocks, Request::generate(vec![1, 2], aligned.clone())).unwrap();
    let with = |change: fn(&mut SampleConfig)| {
        let mut config = aligned.clone();
        change(&mut config);
        config
    };
    check(
        with(|config| config.block_length = None),
        "block_length is needed where a step sees nothing after its block",
    );
    check(
        with(|config| config.block_length = Some(0)),
        "block_length must be at least 1, got 0",
    );
    check(
        with(|config| config.block_length = Some(8)),
        "block_length must be 4, as the model's blocks, got 8",
    );
    check(
        with(|config| config.horizon = Horizon::Canvas),
        "block diffusion needs blocks that are counted from the first token, after which a step \
         sees nothing",
    );
    check(
        with(|config| {
            config.cache = CacheMode::Prefix;
            config.cfg_scale = 1.0;
        }),
        "a cache or a suffix window cannot be used with cfg_scale: leave one out",
    );
    check(
        with(|config| config.cache = CacheMode::Dual),
        "this cache cannot be used with a model whose prefix cache is exact",
    );
    check(
        with(|config| {
            config.cache = CacheMode::Prefix;
            config.refresh.vicinity = 2;
        }),
        "vicinity cannot be used with a model whose prefix cache is exact",
    );
    check(
        with(|config| config.refresh.suffix_window = Some(2)),
        "suffix_window cannot be used with blocks that a step sees nothing after",
    );
    check(
        with(|config| config.remasking = Remasking::Margin),
        "remasking cannot be used with block diffusion",
    );
    let mut short = aligned;
    short.horizon = Horizon::Block;
    short.process = Process::Quota;
    short.gen_length = 3;
    check(short, "gen_length must be at least block_length, got 3");
}

#[test]
fn numbers_of_other_loops_out_of_range_are_refused() {
    let blocks = BlockPredictor::new(16, 64, 0, 4);
    let aligned = SampleConfig {
        block_length: Some(4),
        horizon: Horizon::AlignedBlock,
        ..config()
    };
    let check = |config: SampleConfig, message: &str| {
        let error = run(&blocks, Request::generate(vec![1, 2], config)).unwrap_err();
        assert_eq!(error.to_string(), format!("request 0: {message}"));
    };
    let block_diffusion = |threshold, minimal_topk| SampleConfig {
        process: Process::BlockDiffusion {
            threshold,
            minimal_topk,
        },
        ..aligned.clone()
    };
    check(
        block_diffusion(-0.1, 1),
        "threshold must be a number, 0 or more, got -0.10000000149011612",
    );
    check(
        block_diffusion(0.5, 0),
        "minimal_topk must be at least 1, got 0",
    );
    check(
        block_diffusion(0.5, 5),
        "minimal_topk must be at most the length of the answer, got 5",
    );
    // It is a bar that no confidence reaches.
    run(&blocks, Request::generate(vec![1], block_diffusion(2.0, 1))).unwrap();
    let editing = |editing_threshold, num_to_transfer| SampleConfig {
        process: Process::Editing {
            threshold: 0.9,
            editing_threshold,
            max_post_steps: 2,
            num_to_transfer,
        },
        ..aligned.clone()
    };
    check(
        editing(f32::NAN, 1),
        "editing_threshold must be a number, 0 or more, got NaN",
    );
    check(editing(0.5, 0), "num_to_transfer must be at least 1, got 0");
}

#[test]
fn what_rewriting_cannot_do_is_refused() {
    let blocks = BlockPredictor::new(16, 64, 0, 4);
    let config = |delete_token_id| SampleConfig {
        block_length: Some(4),
        horizon: Horizon::AlignedBlock,
        process: Process::Rewriting {
            threshold: 0.9,
            editing_threshold: 0.5,
            max_post_steps: 2,
            delete_token_id,
            split_token_id: 12,
        },
        ..config()
    };
    let check = |request: Request, message: &str| {
        let error = run(&blocks, request).unwrap_err();
        assert_eq!(error.to_string(), format!("request 0: {message}"));
    };
    check(
        Request::generate(vec![1], config(16)),
        "token id 16 cannot be predicted: there are 16",
    );
    check(
        Request::generate(vec![1], config(12)),
        "delete_token_id must be another token than split_token_id, and neither the mask, got 12",
    );
    check(
        Request::infill(vec![1, 15, 2], config(13)),
        "infill cannot be used with rewriting",
    );
    check(
        Request::generate(vec![1, 15], config(13)),
        "masks in the prompt cannot be used with rewriting",
    );
    let mut recorded = Request::generate(vec![1], config(13));
    recorded.draws = Draws::Recorded(RecordedDraws::default());
    check(
        recorded,
        "a recording of draws cannot be used with rewriting",
    );
    let mut fixed = Request::generate(vec![1], config(13));
    if let Task::Generate { suffix, .. } = &mut fixed.task {
        suffix.push(1);
    }
    check(
        fixed.clone(),
        "a suffix cannot be used with blocks that a step sees nothing after",
    );
    if let Task::Generate {
        suffix,
        constraints,
        ..
    } = &mut fixed.task
    {
        suffix.clear();
        constraints.push((1, 3));
    }
    check(fixed, "constraints cannot be used with rewriting");
}

#[test]
fn the_timestep_process_has_no_blocks() {
    let timestep = |eps, alg_temp| SampleConfig {
        process: Process::Timestep {
            eps,
            alg: Alg::Entropy,
            alg_temp,
        },
        ..config()
    };
    check(
        Request::generate(
            vec![1],
            SampleConfig {
                block_length: Some(4),
                ..timestep(1e-3, 0.0)
            },
        ),
        "request 0: block_length cannot be used with the timestep process",
    );
    check(
        Request::generate(vec![1], timestep(1.0, 0.0)),
        "request 0: eps must be above 0 and below 1, got 1",
    );
    check(
        Request::generate(vec![1], timestep(0.5, -1.0)),
        "request 0: alg_temp must be a number, 0 or more, got -1",
    );
    let boosted = |token_ids: &[u32], power| SampleConfig {
        end_think: Some(EndThink {
            token_ids: token_ids.to_vec(),
            logit_boost: 1.0,
            power,
        }),
        ..config()
    };
    check(
        Request::generate(vec![1], boosted(&[], 1.0)),
        "request 0: the tokens of end_think must be at least 1, got 0",
    );
    check(
        Request::generate(vec![1], boosted(&[3], -1.0)),
        "request 0: power must be a number, 0 or more, got -1",
    );
    check(
        Request::generate(vec![1], boosted(&[3, 99], 1.0)),
        "request 0: token id 99 cannot be predicted: there are 16",
    );
}
