//! The loops of other families against the published ones, step by step, and their exact caches.

use std::ops::ControlFlow;

use llada_diffusion::{MaskPredictor, Nucleus};
use llada_sample::{
    Alg, CacheMode, Draws, Edit, EndThink, Horizon, Output, Process, RecordedDraws, Request,
    SampleConfig, Session, sample,
};
use llada_testkit::{BlockPredictor, ToyPredictor};

use crate::published::{
    DELETE, Diffusion, EOS, MASK, SPLIT, Settings, Trail, VOCAB, block_diffusion,
    diffusion_generate, editing, rewriting,
};

const BLOCK: usize = 4;

/// What a request writes, and the canvas up to the end of the block after each step. On the way all
/// that an observer is told is held against the canvas.
fn run(predictor: &dyn MaskPredictor, request: Request) -> (Output, Vec<Vec<u32>>) {
    let mask = predictor.info().mask_token_id;
    let mut states: Vec<Vec<u32>> = Vec::new();
    let (mut copy, mut settled) = (Vec::new(), Vec::new());
    let mut outputs = sample(predictor, &[request], &mut |event| {
        if copy.is_empty() {
            copy = event.canvas.to_vec();
        }
        let window = event.window.clone();
        copy[window.clone()].copy_from_slice(&event.canvas[window.clone()]);
        for revealed in event.revealed {
            copy[revealed.position] = revealed.token;
            assert_eq!(event.canvas[revealed.position], revealed.token);
            assert!(revealed.token != mask && revealed.confidence > 0.0);
        }
        assert_eq!(copy, event.canvas);
        for edit in event.edits {
            match *edit {
                Edit::Replaced {
                    position, old, new, ..
                } => {
                    assert!(old != new && old != mask && window.contains(&position));
                    assert_eq!(event.canvas[position], new);
                }
                Edit::Inserted { position } => assert_eq!(event.canvas[position], mask),
                Edit::Deleted { position, .. } => assert!(window.contains(&position)),
            }
        }
        let known = &event.canvas[event.settled.clone()];
        assert!(!known.contains(&mask) && known.starts_with(&settled));
        settled = known.to_vec();
        states.push(event.canvas[..window.end].to_vec());
        ControlFlow::Continue(())
    })
    .unwrap();
    (outputs.remove(0), states)
}

fn prompt(length: usize, seed: u64) -> Vec<u32> {
    let token = |at: usize| ((at as u64 * 7 + seed * 5) % 12) as u32;
    (0..length).map(token).collect()
}

/// Settings that meet in many ways.
fn settings(case: usize) -> (Vec<u32>, Settings) {
    let settings = Settings {
        gen_length: [5, 8, 13, 16][case % 4],
        block: BLOCK,
        steps: [1, 2, 3, 4, 9][case % 5],
        threshold: [0.2, 0.5, 0.8, 2.0][case / 3 % 4],
        editing_threshold: [0.0, 0.3, 0.6, 2.0][case / 2 % 4],
        minimal_topk: [1, 2, 5][case % 3],
        max_post_steps: [0, 1, 2, 6][case / 4 % 4],
        num_to_transfer: [1, 2, 7][case / 5 % 3],
        eos_early_stop: case.is_multiple_of(2),
        seed: case as u64,
    };
    let mut prompt = prompt(case % 9, case as u64);
    if case % 7 == 3 {
        // It may end an answer of LLaDA2.0 before its first token.
        prompt.iter_mut().take(1).for_each(|id| *id = EOS);
    }
    (prompt, settings)
}

fn aligned(s: &Settings, process: Process, cache: CacheMode) -> SampleConfig {
    SampleConfig {
        steps: s.steps,
        gen_length: s.gen_length,
        block_length: Some(s.block),
        horizon: Horizon::AlignedBlock,
        process,
        cache,
        early_stop: s.eos_early_stop,
        seed: s.seed,
        ..SampleConfig::default()
    }
}

/// The sampler against a published loop, without a cache and with one, whose calls compute less.
#[track_caller]
fn check(
    published: fn(&BlockPredictor, &[u32], &Settings) -> Trail,
    process: fn(&Settings) -> Process,
    seen_of: impl Fn(&Trail) -> usize,
) {
    let (mut n_seen, mut saved) = (0, 0);
    for case in 0..120 {
        let (prompt, s) = settings(case);
        let model = BlockPredictor::new(VOCAB, 64, case as u64, BLOCK);
        let expected = published(&model, &prompt, &s);
        n_seen += seen_of(&expected);
        let request = |cache| Request::generate(prompt.clone(), aligned(&s, process(&s), cache));
        let (output, states) = run(&model, request(CacheMode::None));
        assert_eq!(states, expected.states, "case {case}: {s:?}");
        assert_eq!(output.answer(), expected.answer, "case {case}: {s:?}");
        assert_eq!(output.nfe, expected.states.len());
        let (cached, cached_states) = run(&model, request(CacheMode::Prefix));
        assert_eq!(cached_states, states, "case {case}: {s:?}");
        assert_eq!(cached.tokens, output.tokens);
        // A call has the rows of its block, the first of a block those of the block before, too.
        let mut rows = 0;
        let mut begin = 0;
        for state in &states {
            rows += state.len() - begin;
            begin = state.len() - BLOCK;
        }
        assert_eq!(cached.rows, rows);
        assert_eq!(output.rows, states.iter().map(Vec::len).sum::<usize>());
        saved += output.rows - cached.rows;
    }
    assert!(n_seen > 0, "the cases show what is special about the loop");
    assert!(saved > 0);
}

#[test]
fn block_diffusion_is_the_published_loop() {
    let process = |s: &Settings| Process::BlockDiffusion {
        threshold: s.threshold,
        minimal_topk: s.minimal_topk,
    };
    let has_eos = |trail: &Trail| usize::from(trail.answer.contains(&EOS));
    check(block_diffusion, process, has_eos);
}

#[test]
fn editing_is_the_published_loop() {
    let process = |s: &Settings| Process::Editing {
        threshold: s.threshold,
        editing_threshold: s.editing_threshold,
        max_post_steps: s.max_post_steps,
        num_to_transfer: s.num_to_transfer,
    };
    let replaced = |trail: &Trail| {
        let pairs = trail.states.windows(2);
        let differ = |pair: &[Vec<u32>]| {
            let mut ids = pair[0].iter().zip(&pair[1]);
            ids.any(|(old, new)| *old != MASK && old != new)
        };
        pairs.filter(|pair| differ(pair)).count()
    };
    check(editing, process, replaced);
}

#[test]
fn rewriting_is_the_loop_that_is_described() {
    let process = |s: &Settings| Process::Rewriting {
        threshold: s.threshold,
        editing_threshold: s.editing_threshold,
        max_post_steps: s.max_post_steps,
        delete_token_id: DELETE,
        split_token_id: SPLIT,
    };
    // A mask behind a token that was there before: a deletion or a split.
    let moved = |trail: &Trail| {
        let pairs = trail.states.windows(2);
        let is_new = |(old, new): (&u32, &u32)| *old != MASK && *new == MASK;
        pairs
            .filter(|pair| pair[0].iter().zip(&pair[1]).any(is_new))
            .count()
    };
    check(rewriting, process, moved);
}

#[test]
fn events_tell_deletions_and_insertions() {
    let mut told = [0; 3];
    for seed in 0..40 {
        let model = BlockPredictor::new(VOCAB, 64, seed, BLOCK);
        let (prompt, s) = settings(seed as usize);
        let process = Process::Rewriting {
            threshold: 0.3,
            editing_threshold: 0.1,
            max_post_steps: 4,
            delete_token_id: DELETE,
            split_token_id: SPLIT,
        };
        let config = aligned(&s, process, CacheMode::None);
        let mut before = prompt.clone();
        before.resize((prompt.len() + s.gen_length).div_ceil(BLOCK) * BLOCK, MASK);
        sample(&model, &[Request::generate(prompt, config)], &mut |event| {
            for edit in event.edits {
                match *edit {
                    Edit::Replaced { .. } => told[0] += 1,
                    Edit::Deleted { position, old } => {
                        assert_eq!(before[position], old);
                        told[1] += 1;
                    }
                    Edit::Inserted { .. } => told[2] += 1,
                }
            }
            // Tokens that ask for edits are never left in the text.
            let text = &event.canvas[event.settled.start..];
            assert!(!text.contains(&DELETE) && !text.contains(&SPLIT));
            before = event.canvas.to_vec();
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    assert!(told.iter().all(|&n| n > 0), "{told:?}");
}

#[test]
fn a_request_does_not_see_the_others() {
    let model = BlockPredictor::new(VOCAB, 64, 3, BLOCK);
    let requests: Vec<Request> = (0..24)
        .map(|case| {
            let (prompt, s) = settings(case);
            let process = match case % 3 {
                0 => Process::BlockDiffusion {
                    threshold: s.threshold,
                    minimal_topk: s.minimal_topk,
                },
                1 => Process::Editing {
                    threshold: s.threshold,
                    editing_threshold: s.editing_threshold,
                    max_post_steps: s.max_post_steps,
                    num_to_transfer: s.num_to_transfer,
                },
                _ => Process::Rewriting {
                    threshold: s.threshold,
                    editing_threshold: s.editing_threshold,
                    max_post_steps: s.max_post_steps,
                    delete_token_id: DELETE,
                    split_token_id: SPLIT,
                },
            };
            let cache = [CacheMode::None, CacheMode::Prefix][case % 2];
            Request::generate(prompt, aligned(&s, process, cache))
        })
        .collect();
    let nothing = &mut |_: &llada_sample::StepEvent<'_>| ControlFlow::Continue(());
    let together = sample(&model, &requests, nothing).unwrap();
    for (request, output) in requests.into_iter().zip(together) {
        assert_eq!(run(&model, request).0, output);
    }
}

#[test]
fn prompts_that_begin_alike_share_whole_blocks() {
    let model = BlockPredictor::new(VOCAB, 64, 5, BLOCK);
    let mut session = Session::new(&model).keeping_prefixes(1 << 20);
    let request = |prompt: &[u32]| {
        let (_, s) = settings(7);
        let process = Process::Threshold(0.4);
        Request::generate(prompt.to_vec(), aligned(&s, process, CacheMode::Prefix))
    };
    let mut shared = |prompt: &[u32]| {
        session.submit(request(prompt)).unwrap();
        loop {
            let nothing = &mut |_: &llada_sample::StepEvent<'_>| ControlFlow::Continue(());
            if let Some(ended) = session.step(nothing).pop() {
                return ended.result.unwrap();
            }
        }
    };
    let first = prompt(11, 1);
    assert_eq!(shared(&first), run(&model, request(&first)).0);
    // Of what was written before, the prompt's two whole blocks can be used, and the answer's.
    let mut longer = shared(&first).tokens;
    longer.extend([1, 2]);
    for (prompt, whole) in [
        (first.clone(), 8),
        (first[..9].to_vec(), 8),
        (first[..7].to_vec(), 4),
    ] {
        let (alone, output) = (run(&model, request(&prompt)).0, shared(&prompt));
        assert_eq!(alone.tokens, output.tokens);
        assert_eq!(alone.rows - output.rows, whole, "{} tokens", prompt.len());
    }
    let (alone, output) = (run(&model, request(&longer)).0, shared(&longer));
    assert_eq!(alone.tokens, output.tokens);
    assert!(alone.rows - output.rows > 8);
}

fn variable(steps: usize, gen_length: usize, early_stop: bool) -> SampleConfig {
    SampleConfig {
        steps,
        gen_length,
        block_length: Some(BLOCK),
        horizon: Horizon::Block,
        early_stop,
        ..SampleConfig::default()
    }
}

#[test]
fn variable_length_is_the_fixed_loop_on_one_block_after_the_other() {
    let mut ends = 0;
    for seed in 0..30 {
        let toy = ToyPredictor::new(VOCAB, 64, seed);
        let prompt = prompt(1 + seed as usize % 5, seed);
        // Whole blocks: 13 is 12.
        let (steps, gen_length) = (1 + seed as usize % 6, 13);
        let mut canvas = prompt.clone();
        let mut states = Vec::new();
        for _ in 0..gen_length / BLOCK {
            let config = SampleConfig {
                steps,
                gen_length: BLOCK,
                block_length: Some(BLOCK),
                ..SampleConfig::default()
            };
            let (output, of_block) = run(&toy, Request::generate(canvas, config));
            states.extend(of_block);
            canvas = output.tokens;
            if canvas[prompt.len()..].contains(&EOS) {
                break;
            }
        }
        let request = Request::generate(prompt.clone(), variable(steps, gen_length, true));
        let (output, found) = run(&toy, request);
        assert_eq!((&output.tokens, found), (&canvas, states));
        ends += usize::from(output.answer().len() < 12);
        // Without a stop there are all blocks, and those that were there already are the same, but
        // for masks, which compete in the steps of later blocks.
        let request = Request::generate(prompt, variable(steps, gen_length, false));
        let (whole, _) = run(&toy, request);
        assert_eq!(whole.answer().len(), 12);
        let mut pairs = canvas.iter().zip(&whole.tokens);
        assert!(pairs.all(|(&stopped, &id)| stopped == id || stopped == MASK));
    }
    assert!(ends > 0 && ends < 30, "{ends}");
}

#[test]
fn a_caller_can_stop_at_the_end_of_a_block() {
    let toy = ToyPredictor::new(VOCAB, 64, 2);
    let mut n_blocks = 0;
    let request = Request::generate(vec![1, 2, 3], variable(4, 16, false));
    let outputs = sample(&toy, &[request], &mut |event| {
        n_blocks += usize::from(event.ends_block);
        match n_blocks {
            2 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    })
    .unwrap();
    assert_eq!((outputs[0].steps, outputs[0].stopped), (8, true));
    assert_eq!(outputs[0].tokens.len(), 3 + 2 * BLOCK);
}

#[test]
fn a_boost_brings_the_end_of_the_reasoning() {
    let toy = ToyPredictor::new(VOCAB, 64, 4);
    let ids = [3, 9, 7];
    let answer = |logit_boost| {
        let config = SampleConfig {
            end_think: Some(EndThink {
                token_ids: ids.to_vec(),
                logit_boost,
                power: 1.0,
            }),
            ..variable(4, 16, false)
        };
        let (output, _) = run(&toy, Request::generate(vec![1, 2], config));
        output.answer().to_vec()
    };
    let (plain, _) = run(&toy, Request::generate(vec![1, 2], variable(4, 16, false)));
    assert_eq!(answer(0.0), plain.answer());
    let boosted = answer(1000.0);
    // The first mask is the surest while it is boosted: the sequence comes first, and once.
    assert_eq!(boosted[..3], ids);
    assert_eq!(
        boosted.windows(3).filter(|window| *window == ids).count(),
        1
    );
}

fn timestep(s: &Diffusion<'_>, alg: Alg) -> SampleConfig {
    SampleConfig {
        steps: s.steps,
        gen_length: 6,
        block_length: None,
        nucleus: Nucleus {
            top_k: s.top_k,
            top_p: s.top_p,
        },
        process: Process::Timestep {
            eps: s.eps,
            alg,
            alg_temp: 0.0,
        },
        ..SampleConfig::default()
    }
}

#[test]
fn the_timestep_process_is_dream_s() {
    for case in 0..96 {
        let toy = ToyPredictor::new(VOCAB, 64, case);
        let alg = Alg::ALL[case as usize % 4];
        let s = Diffusion {
            steps: [1, 3, 6, 11][case as usize / 4 % 4],
            eps: [1e-3, 0.1][case as usize % 2],
            alg: alg.name(),
            top_p: [None, Some(0.5), Some(0.9)][case as usize / 8 % 3],
            top_k: [None, Some(3)][case as usize / 3 % 2],
        };
        // Masks of the prompt are filled, too.
        let mut prompt = prompt(5, case);
        prompt[case as usize % 5] = MASK;
        let mut canvas = prompt.clone();
        canvas.resize(11, MASK);
        let uniform: Vec<f32> = (0..s.steps * canvas.len())
            .map(|i| (i as f32 * 0.618 + case as f32 * 0.1).fract())
            .collect();
        let expected = diffusion_generate(&toy, &canvas, &s, &uniform);
        let request = Request {
            draws: match alg {
                Alg::Origin => Draws::Recorded(RecordedDraws {
                    remask: uniform,
                    ..RecordedDraws::default()
                }),
                _ => Draws::Philox,
            },
            ..Request::generate(prompt, timestep(&s, alg))
        };
        let (output, states) = run(&toy, request);
        assert_eq!(states, expected, "{s:?}");
        assert_eq!(output.steps, s.steps);
    }
}

/// Shares of the tokens at the first place in 4,000 samples of a request with one mask.
fn shares(toy: &ToyPredictor, config: &SampleConfig) -> Vec<f64> {
    const N: u32 = 4000;
    let request = |sequence| Request {
        sequence,
        ..Request::generate(vec![1, 2], config.clone())
    };
    let requests: Vec<Request> = (0..N).map(request).collect();
    let nothing = &mut |_: &llada_sample::StepEvent<'_>| ControlFlow::Continue(());
    let mut counts = vec![0.0; VOCAB];
    for output in sample(toy, &requests, nothing).unwrap() {
        counts[output.tokens[2] as usize] += 1.0 / f64::from(N);
    }
    counts
}

#[test]
fn a_temperature_divides_the_logits() {
    let toy = ToyPredictor::new(VOCAB, 64, 1);
    let s = Diffusion {
        steps: 1,
        eps: 1e-3,
        alg: "maskgit_plus",
        top_p: None,
        top_k: Some(4),
    };
    let config = SampleConfig {
        gen_length: 1,
        temperature: 2.5,
        ..timestep(&s, Alg::MaskgitPlus)
    };
    let logits = toy.row(&[1, 2, MASK], 2);
    let mut order: Vec<usize> = (0..VOCAB).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let weight = |id: usize| (f64::from(logits[id]) / 2.5).exp();
    let sum: f64 = order[..4].iter().map(|&id| weight(id)).sum();
    let found = shares(&toy, &config);
    for &id in &order[..4] {
        let p = weight(id) / sum;
        let error = (p * (1.0 - p) / 4000.0).sqrt();
        assert!(
            (found[id] - p).abs() < 4.0 * error,
            "{id}: {} for {p}",
            found[id]
        );
    }
    assert!(order[4..].iter().all(|&id| found[id] == 0.0));
    // The confidence is the drawn token's probability among them.
    let request = Request::generate(vec![1, 2], config);
    sample(&toy, &[request], &mut |event| {
        let revealed = event.revealed[0];
        let p = weight(revealed.token as usize) / sum;
        assert!((f64::from(revealed.confidence) - p).abs() < 1e-5);
        ControlFlow::Continue(())
    })
    .unwrap();
}

#[test]
fn alg_temp_draws_positions_by_their_confidences() {
    let toy = ToyPredictor::new(VOCAB, 64, 9);
    let s = Diffusion {
        steps: 2,
        eps: 0.5,
        alg: "maskgit_plus",
        top_p: None,
        top_k: None,
    };
    let alg_temp = 0.3_f32;
    let config = SampleConfig {
        gen_length: 4,
        process: Process::Timestep {
            eps: 0.5,
            alg: Alg::MaskgitPlus,
            alg_temp,
        },
        ..timestep(&s, Alg::MaskgitPlus)
    };
    // The first of two steps takes a quarter of the masks, one.
    const N: u32 = 4000;
    let requests: Vec<Request> = (0..N)
        .map(|sequence| Request {
            sequence,
            ..Request::generate(vec![1, 2], config.clone())
        })
        .collect();
    let mut found = [0.0; 4];
    sample(&toy, &requests, &mut |event| {
        if event.step == 0 {
            assert_eq!(event.revealed.len(), 1);
            found[event.revealed[0].position - 2] += 1.0 / f64::from(N);
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    let canvas = [1, 2, MASK, MASK, MASK, MASK];
    let confidence = |at: usize| {
        let logits = toy.row(&canvas, at);
        let max = logits.iter().copied().fold(f32::MIN, f32::max);
        let sum: f64 = logits.iter().map(|x| f64::from(x - max).exp()).sum();
        // The mask that wins is taken, and stays a mask: another token would be better there.
        assert!(logits[MASK as usize] < max);
        1.0 / sum
    };
    let weights: Vec<f64> = (2..6)
        .map(|at| (confidence(at) / f64::from(alg_temp)).exp())
        .collect();
    let sum: f64 = weights.iter().sum();
    for (found, weight) in found.iter().zip(&weights) {
        let p = weight / sum;
        let error = (p * (1.0 - p) / f64::from(N)).sqrt();
        assert!((found - p).abs() < 4.0 * error, "{found} for {p}");
    }
}
