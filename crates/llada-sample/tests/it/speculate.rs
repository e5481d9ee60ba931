//! Guesses change neither texts nor events, whatever the rule, the cache and the predictor.

use std::cell::Cell;
use std::ops::ControlFlow;

use llada_diffusion::{
    Candidates, Choice, Error, MaskPredictor, PredictorInfo, Query, Result, losses_by_logits,
};
use llada_sample::{
    Alg, CacheMode, Horizon, Output, Process, RefreshPolicy, Remasking, Request, SampleConfig,
    Session, Task, sample,
};
use llada_testkit::{BlockPredictor, CachedPredictor, ChainPredictor, ToyPredictor};
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::{collection, option, prop_assert, prop_assert_eq, proptest};

const VOCAB: usize = 12;
const MASK: u32 = 11;

/// A predictor whose tokens are mostly sure, so that guesses come true: at even positions one token
/// wins by far whatever the canvas, elsewhere logits are those of another predictor.
struct Half<P>(P);

impl<P: MaskPredictor> MaskPredictor for Half<P> {
    fn info(&self) -> PredictorInfo {
        self.0.info()
    }

    fn logits(&self, query: Query<'_>) -> Result<Vec<f32>> {
        let offsets = query.batch.offsets().to_vec();
        let positions = query.positions.to_vec();
        let mut logits = self.0.logits(query)?;
        for (row, &at) in logits.chunks_exact_mut(VOCAB).zip(&positions) {
            let sequence = offsets.partition_point(|&offset| offset <= at) - 1;
            let place = at - offsets[sequence];
            if place % 4 != 3 {
                row[place % 7] += 12.0 + place as f32 * 0.01;
            }
        }
        Ok(logits)
    }

    fn candidates(&self, query: Query<'_>, choice: &Choice<'_>) -> Result<Candidates> {
        choice.by_logits(self, query)
    }

    fn token_losses(&self, query: Query<'_>, targets: &[u32]) -> Result<Vec<f32>> {
        losses_by_logits(self, query, targets)
    }
}

/// All events, as text, and the outputs without what guesses may change.
fn run(predictor: &dyn MaskPredictor, requests: &[Request]) -> (Vec<String>, Vec<Output>) {
    let mut lines = vec![Vec::new(); requests.len()];
    let outputs = sample(predictor, requests, &mut |event| {
        lines[event.request].push(format!("{event:?}"));
        ControlFlow::Continue(())
    });
    (lines.concat(), outputs.unwrap())
}

fn without_counts(output: &Output) -> Output {
    Output {
        nfe: 0,
        rows: 0,
        guesses: 0,
        right_guesses: 0,
        ..output.clone()
    }
}

fn speculating(request: &Request, speculate: usize) -> Request {
    let mut request = request.clone();
    request.config.speculate = speculate;
    request
}

/// The outputs with and without guesses, of equal texts and events.
#[track_caller]
fn check(
    predictor: &dyn MaskPredictor,
    requests: &[Request],
    speculate: usize,
) -> (Vec<Output>, Vec<Output>) {
    let (events, plain) = run(predictor, requests);
    let guessing: Vec<Request> = (requests.iter())
        .map(|request| speculating(request, speculate))
        .collect();
    let (got_events, got) = run(predictor, &guessing);
    assert_eq!(got_events, events);
    for (got, plain) in got.iter().zip(&plain) {
        assert_eq!(without_counts(got), without_counts(plain));
        assert_eq!(got.nfe + got.right_guesses, plain.nfe);
        assert!(got.right_guesses <= got.guesses);
    }
    (plain, got)
}

fn process() -> impl Strategy<Value = Process> {
    proptest::sample::select(vec![
        Process::Quota,
        Process::Quota,
        Process::Quota,
        Process::BlockQuota,
        Process::Reverse,
        Process::Threshold(0.6),
        Process::Factor(1.0),
        Process::EntropyBound(0.2),
        Process::EntropyExit(0.3),
        Process::LocalLeap {
            threshold: 0.8,
            relaxed: 0.4,
            radius: 2,
        },
        Process::Hierarchical {
            high: 0.8,
            low: 0.4,
        },
        Process::FallingThreshold {
            threshold: 0.8,
            fall: 0.5,
        },
    ])
}

fn config() -> impl Strategy<Value = SampleConfig> {
    let numbers = (1..24_usize, option::of(1..9_usize), 0..1000_u64, 0..3_usize);
    let kinds = (
        proptest::sample::select(Remasking::ALL.to_vec()),
        process(),
        proptest::sample::select(CacheMode::ALL.to_vec()),
        prop_oneof![2 => Just(0.0), 1 => Just(0.1)],
        prop_oneof![3 => Just(0.0_f32), 1 => Just(1.5)],
    );
    let refresh = (
        option::of(2..12_usize),
        1..3_usize,
        0..4_usize,
        option::of(1..5_usize),
        0..3_usize,
    );
    let flags = (any::<bool>(), any::<bool>());
    (numbers, kinds, refresh, flags).prop_map(|(numbers, kinds, refresh, flags)| {
        let (gen_length, block_length, seed, fewer) = numbers;
        let (remasking, process, cache, temperature, cfg_scale) = kinds;
        let is_cached = cache != CacheMode::None;
        let uses_plans = is_cached || refresh.0.is_some();
        let usual = RefreshPolicy::default();
        SampleConfig {
            steps: gen_length
                .saturating_sub(fewer)
                .max(1)
                .max(gen_length / 2 + 1),
            gen_length,
            block_length: block_length.map(|length| length.max(2)),
            temperature,
            cfg_scale: if uses_plans { 0.0 } else { cfg_scale },
            remasking,
            process,
            cache,
            refresh: match is_cached {
                true => RefreshPolicy {
                    suffix_window: refresh.0,
                    prompt_interval: refresh.1,
                    vicinity: refresh.2,
                    refresh_interval: refresh.3,
                    keep_active: refresh.4,
                },
                false => RefreshPolicy {
                    suffix_window: refresh.0,
                    ..usual
                },
            },
            seed,
            suppress_mask: flags.0,
            early_stop: flags.1,
            ..SampleConfig::default()
        }
    })
}

/// A prompt, perhaps with masks, with an answer that may hold fixed tokens, or a text with a mask.
fn request() -> impl Strategy<Value = Request> {
    let token = prop_oneof![9 => 0..MASK, 1 => Just(MASK)];
    let generate = (
        collection::vec(token.clone(), 1..10),
        collection::vec(0..MASK, 0..3),
        collection::vec((0..24_usize, token), 0..3),
    );
    let canvas = collection::vec(prop_oneof![1 => 0..MASK, 2 => Just(MASK)], 0..20);
    let task = prop_oneof![
        3 => generate.prop_map(|(prompt, suffix, constraints)| Task::Generate {
            prompt,
            suffix,
            constraints,
        }),
        1 => canvas.prop_map(|mut canvas| {
            canvas.insert(canvas.len() / 3, MASK);
            let suffix = Vec::new();
            Task::Infill { canvas, suffix }
        }),
    ];
    (task, config()).prop_map(|(mut task, config)| {
        if let Task::Generate { constraints, .. } = &mut task {
            constraints.retain(|&(offset, _)| offset < config.gen_length);
        }
        Request::new(task, config)
    })
}

proptest! {
    #[test]
    fn guesses_change_neither_texts_nor_events(
        requests in collection::vec(request(), 1..4),
        speculate in 1..9_usize,
    ) {
        let predictor = Half(CachedPredictor::new(VOCAB, 64, 5));
        // What cannot be run without guesses is refused with them too.
        let may_run = |request: &Request| {
            Session::new(&predictor).submit(request.clone()).is_ok()
        };
        let requests: Vec<Request> = requests.into_iter().filter(may_run).collect();
        let (_, got) = check(&predictor, &requests, speculate);
        // Alone, and beside requests that guess nothing, a request is the same.
        let mut mixed: Vec<Request> =
            requests.iter().map(|request| speculating(request, speculate)).collect();
        mixed.extend(requests.iter().cloned());
        let (_, outputs) = run(&predictor, &mixed);
        prop_assert_eq!(&outputs[..requests.len()], &got[..]);
        prop_assert!(outputs[requests.len()..].iter().all(|output| output.guesses == 0));
    }
}

fn quotas(cache: CacheMode) -> SampleConfig {
    SampleConfig {
        steps: 24,
        gen_length: 24,
        block_length: Some(8),
        suppress_mask: true,
        cache,
        ..SampleConfig::default()
    }
}

#[test]
fn a_step_that_was_guessed_needs_no_call() {
    let predictor = Half(CachedPredictor::new(VOCAB, 64, 1));
    let request = |cache| Request::generate(vec![1, 2, 3], quotas(cache));
    for cache in CacheMode::ALL {
        let (plain, got) = check(&predictor, &[request(cache)], 3);
        assert_eq!(plain[0].nfe, 24);
        assert!(got[0].nfe < 20, "{cache}: {:?}", got[0]);
        assert!(got[0].rows > plain[0].rows);
        // What is guessed in vain costs rows alone.
        let (_, more) = check(&predictor, &[request(cache)], 8);
        assert!(more[0].nfe <= got[0].nfe, "{cache}: {:?}", more[0]);
    }
}

#[test]
fn guesses_are_rows_of_the_call() {
    /// Counts calls and rows.
    struct Counting<'a>(&'a dyn MaskPredictor, Cell<usize>, Cell<usize>);
    impl MaskPredictor for Counting<'_> {
        fn info(&self) -> PredictorInfo {
            self.0.info()
        }
        fn logits(&self, query: Query<'_>) -> Result<Vec<f32>> {
            self.0.logits(query)
        }
        fn candidates(&self, query: Query<'_>, choice: &Choice<'_>) -> Result<Candidates> {
            let plans = query.cached.as_ref().map(|cached| cached.plans);
            let rows = match plans {
                Some(plans) => plans.iter().map(llada_diffusion::RowPlan::n_rows).sum(),
                None => query.batch.n_tokens(),
            };
            self.1.set(self.1.get() + 1);
            self.2.set(self.2.get() + rows);
            self.0.candidates(query, choice)
        }
        fn token_losses(&self, query: Query<'_>, targets: &[u32]) -> Result<Vec<f32>> {
            self.0.token_losses(query, targets)
        }
    }
    let predictor = Half(CachedPredictor::new(VOCAB, 64, 1));
    for cache in CacheMode::ALL {
        let request = speculating(&Request::generate(vec![1, 2, 3], quotas(cache)), 3);
        let counting = Counting(&predictor, Cell::new(0), Cell::new(0));
        let (_, outputs) = run(&counting, &[request]);
        assert_eq!(counting.1.get(), outputs[0].nfe, "{cache}");
        assert_eq!(counting.2.get(), outputs[0].rows, "{cache}");
        assert!(outputs[0].right_guesses > 0, "{cache}");
    }
}

#[test]
fn published_loops_are_guessed_too() {
    let by_blocks = |process| SampleConfig {
        steps: 4,
        gen_length: 24,
        block_length: Some(4),
        horizon: Horizon::AlignedBlock,
        cache: CacheMode::Prefix,
        process,
        ..SampleConfig::default()
    };
    let blocks = Half(BlockPredictor::new(VOCAB, 64, 2, 4));
    let request = |config| Request::generate(vec![1, 2, 3, 4, 5, 6], config);
    let diffusion = by_blocks(Process::BlockDiffusion {
        threshold: 2.0,
        minimal_topk: 1,
    });
    let editing = by_blocks(Process::Editing {
        threshold: 0.9,
        editing_threshold: 0.5,
        max_post_steps: 4,
        num_to_transfer: 1,
    });
    for config in [diffusion, editing] {
        for cache in [CacheMode::None, CacheMode::Prefix] {
            let config = SampleConfig {
                cache,
                ..config.clone()
            };
            let (_, got) = check(&blocks, &[request(config)], 3);
            assert!(got[0].right_guesses > 0, "{:?}", got[0]);
        }
    }
    let toy = Half(ToyPredictor::new(VOCAB, 64, 3));
    for alg in Alg::ALL {
        let config = SampleConfig {
            steps: 12,
            gen_length: 12,
            block_length: None,
            process: Process::Timestep {
                eps: 0.001,
                alg,
                alg_temp: 0.0,
            },
            ..SampleConfig::default()
        };
        check(&toy, &[request(config)], 3);
    }
    let variable = SampleConfig {
        steps: 4,
        horizon: Horizon::Block,
        early_stop: true,
        ..by_blocks(Process::Quota)
    };
    let (_, got) = check(
        &Half(CachedPredictor::new(VOCAB, 64, 3)),
        &[request(variable)],
        3,
    );
    assert!(got[0].right_guesses > 0);
}

#[test]
fn prefixes_that_are_kept_hold_what_they_held() {
    let config = SampleConfig {
        steps: 4,
        gen_length: 16,
        block_length: Some(4),
        horizon: Horizon::AlignedBlock,
        cache: CacheMode::Prefix,
        process: Process::BlockDiffusion {
            threshold: 2.0,
            minimal_topk: 1,
        },
        ..SampleConfig::default()
    };
    let predictor = Half(BlockPredictor::new(VOCAB, 64, 2, 4));
    let answers = |speculate| {
        let mut session = Session::new(&predictor).keeping_prefixes(1 << 20);
        let mut prompt = vec![1, 2, 3, 4, 5, 6];
        let mut answers = Vec::new();
        for _ in 0..2 {
            let request = Request::generate(prompt.clone(), config.clone());
            session.submit(speculating(&request, speculate)).unwrap();
            while session.n_requests() > 0 {
                for ended in session.step(&mut |_| ControlFlow::Continue(())) {
                    answers.push(without_counts(&ended.result.unwrap()));
                }
            }
            prompt.clone_from(&answers[0].tokens);
        }
        answers
    };
    assert_eq!(answers(3), answers(0));
}

#[test]
fn a_guess_that_fails_is_left_out() {
    /// Refuses calls with more than one sequence.
    struct Narrow(ToyPredictor);
    impl MaskPredictor for Narrow {
        fn info(&self) -> PredictorInfo {
            self.0.info()
        }
        fn logits(&self, query: Query<'_>) -> Result<Vec<f32>> {
            match query.batch.n_sequences() {
                1 => self.0.logits(query),
                _ => Err(Error::Unsupported { what: "batches" }),
            }
        }
        fn candidates(&self, query: Query<'_>, choice: &Choice<'_>) -> Result<Candidates> {
            choice.by_logits(self, query)
        }
        fn token_losses(&self, query: Query<'_>, targets: &[u32]) -> Result<Vec<f32>> {
            losses_by_logits(self, query, targets)
        }
    }
    let request = Request::generate(vec![1, 2, 3], quotas(CacheMode::None));
    let (_, got) = check(&Narrow(ToyPredictor::new(VOCAB, 64, 1)), &[request], 3);
    assert_eq!(got[0].guesses, 0);
}

#[test]
fn nothing_is_guessed_where_several_steps_are_taken_at_once() {
    /// Says that it gains from several steps, and takes one.
    struct Eager(ToyPredictor);
    impl MaskPredictor for Eager {
        fn info(&self) -> PredictorInfo {
            PredictorInfo {
                steps_at_once: 8,
                ..self.0.info()
            }
        }
        fn logits(&self, query: Query<'_>) -> Result<Vec<f32>> {
            self.0.logits(query)
        }
        fn candidates(&self, query: Query<'_>, choice: &Choice<'_>) -> Result<Candidates> {
            self.0.candidates(query, choice)
        }
        fn token_losses(&self, query: Query<'_>, targets: &[u32]) -> Result<Vec<f32>> {
            self.0.token_losses(query, targets)
        }
    }
    let request = Request::generate(vec![1, 2, 3], quotas(CacheMode::None));
    let predictor = Eager(ToyPredictor::new(VOCAB, 64, 1));
    let (_, got) = check(&predictor, std::slice::from_ref(&request), 3);
    // The last step of a block is one alone.
    assert!(got[0].guesses <= 3, "{:?}", got[0]);
}

#[test]
fn what_has_no_canvas_to_guess_is_refused() {
    let refusal = |predictor: &dyn MaskPredictor, config: SampleConfig| {
        let request = Request::generate(vec![1, 2, 3], config);
        let mut session = Session::new(predictor);
        session.submit(request).unwrap_err().to_string()
    };
    let config = SampleConfig {
        speculate: 3,
        gen_length: 8,
        steps: 8,
        ..SampleConfig::default()
    };
    let chain = ChainPredictor::new(vec![0.0; 9]);
    assert_eq!(
        refusal(&chain, config.clone()),
        "request 0: speculate cannot be used with an autoregressive model, which continues a \
         prompt token by token"
    );
    let toy = ToyPredictor::new(VOCAB, 64, 1);
    let rewriting = SampleConfig {
        block_length: Some(4),
        horizon: Horizon::AlignedBlock,
        process: Process::Rewriting {
            threshold: 0.5,
            editing_threshold: 0.5,
            max_post_steps: 4,
            delete_token_id: 1,
            split_token_id: 2,
        },
        ..config.clone()
    };
    assert_eq!(
        refusal(&toy, rewriting),
        "request 0: speculate cannot be used with rewriting"
    );
    let many = SampleConfig {
        speculate: 65,
        ..config
    };
    assert_eq!(
        refusal(&toy, many),
        "request 0: speculate must be at most 64, got 65"
    );
}
