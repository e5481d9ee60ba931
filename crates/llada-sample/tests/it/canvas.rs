//! What must hold of every canvas, whatever is asked.

use std::ops::ControlFlow;

use llada_sample::{Output, Process, Remasking, Request, SampleConfig, Task, sample};
use llada_testkit::ToyPredictor;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::{collection, option, prop_assert, prop_assert_eq, proptest};

const VOCAB: usize = 16;
const MASK: u32 = 15;
const EOS: u32 = 14;

fn toy() -> ToyPredictor {
    ToyPredictor::new(VOCAB, 64, 9)
}

fn config() -> impl Strategy<Value = SampleConfig> {
    let numbers = (
        24..40_usize,
        1..24_usize,
        option::of(1..9_usize),
        0..1000_u64,
    );
    let kinds = (
        proptest::sample::select(Remasking::ALL.to_vec()),
        prop_oneof![
            Just(Process::Quota),
            Just(Process::BlockQuota),
            Just(Process::Reverse),
            Just(Process::Threshold(0.2)),
            Just(Process::Factor(1.3)),
            Just(Process::EntropyBound(1.0)),
            Just(Process::EntropyExit(1.2)),
            Just(Process::LocalLeap {
                threshold: 0.5,
                relaxed: 0.2,
                radius: 2
            }),
            Just(Process::Hierarchical {
                high: 0.5,
                low: 0.2
            }),
            Just(Process::FallingThreshold {
                threshold: 0.6,
                fall: 0.5
            }),
        ],
        prop_oneof![Just(0.0), Just(0.7)],
        prop_oneof![Just(0.0_f32), Just(1.5)],
    );
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (numbers, kinds, flags).prop_map(|(numbers, kinds, flags)| SampleConfig {
        steps: numbers.0,
        gen_length: numbers.1,
        block_length: numbers.2,
        temperature: kinds.2,
        cfg_scale: kinds.3,
        remasking: kinds.0,
        process: kinds.1,
        seed: numbers.3,
        suppress_mask: flags.0,
        logits_eos_inf: if flags.1 { vec![EOS] } else { Vec::new() },
        confidence_eos_eot_inf: if flags.2 { vec![EOS, 3] } else { Vec::new() },
        ..SampleConfig::default()
    })
}

/// A prompt that may hold masks, with an answer that may hold fixed tokens, or a text with at least one.
fn request() -> impl Strategy<Value = Request> {
    let token = prop_oneof![4 => 0..MASK, 1 => Just(MASK)];
    let generate = (
        collection::vec(token.clone(), 0..12),
        collection::vec(token.clone(), 0..4),
        collection::vec((0..24_usize, token), 0..4),
    );
    let suffix = collection::vec(0..MASK, 0..3);
    let token = prop_oneof![1 => 0..MASK, 1 => Just(MASK)];
    let infill = collection::vec(token, 0..20).prop_map(|mut canvas| {
        canvas.insert(canvas.len() / 3, MASK);
        canvas
    });
    let task = prop_oneof![
        generate.prop_map(|(prompt, suffix, constraints)| Task::Generate {
            prompt,
            suffix,
            constraints,
        }),
        (infill, suffix).prop_map(|(canvas, suffix)| Task::Infill { canvas, suffix }),
    ];
    (task, config()).prop_map(|(mut task, config)| {
        if let Task::Generate { constraints, .. } = &mut task {
            constraints.retain(|&(offset, _)| offset < config.gen_length);
        }
        Request {
            task,
            ..Request::generate(Vec::new(), config)
        }
    })
}

/// The canvas before the first step.
fn start(request: &Request) -> Vec<u32> {
    match &request.task {
        Task::Generate {
            prompt,
            suffix,
            constraints,
        } => {
            let mut answer = vec![MASK; request.config.gen_length];
            for &(offset, id) in constraints {
                answer[offset] = id;
            }
            [prompt.clone(), answer, suffix.clone()].concat()
        }
        Task::Infill { canvas, suffix } => [&canvas[..], suffix].concat(),
    }
}

fn run(requests: &[Request]) -> Vec<Output> {
    sample(&toy(), requests, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn masks(canvas: &[u32]) -> usize {
    canvas.iter().filter(|&&id| id == MASK).count()
}

proptest! {
    #[test]
    fn given_tokens_stay_and_revealed_ones_too(request in request()) {
        let mut before = start(&request);
        let mut revealed = 0;
        let mut kept = true;
        let outputs = sample(&toy(), std::slice::from_ref(&request), &mut |event| {
            kept &= before.iter().zip(event.canvas).all(|(&old, &new)| old == MASK || old == new);
            revealed += event.revealed.len();
            before = event.canvas.to_vec();
            ControlFlow::Continue(())
        });
        let output = &outputs.unwrap()[0];
        prop_assert!(kept);
        prop_assert_eq!(&output.tokens, &before);
        match request.config.process {
            Process::Quota | Process::BlockQuota | Process::Reverse => {
                // An answer of fixed tokens alone needs no step.
                let answer = output.prompt_len..output.tokens.len() - output.suffix_len;
                let is_fixed = masks(&start(&request)[answer]) == 0;
                prop_assert_eq!(output.steps, if is_fixed { 0 } else { request.config.steps });
            }
            Process::EntropyExit(_) => prop_assert!(output.steps <= request.config.steps),
            // A step without a token ends its block.
            _ => {
                prop_assert!(output.steps <= masks(&start(&request)) + request.config.gen_length);
            }
        }
        prop_assert_eq!(revealed + masks(&output.tokens), masks(&start(&request)));
    }

    #[test]
    fn an_infill_without_the_mask_as_token_leaves_none(request in request()) {
        let mut request = request;
        request.config.suppress_mask = true;
        let tokens = run(std::slice::from_ref(&request)).remove(0).tokens;
        match &request.task {
            Task::Infill { .. } => prop_assert_eq!(masks(&tokens), 0),
            // As many masks as the answer has are revealed, those of the prompt included.
            Task::Generate { prompt, suffix, .. } if request.config.process == Process::Quota => {
                prop_assert_eq!(masks(&tokens), masks(prompt) + masks(suffix));
            }
            // A block is over when it is full, whatever is left in the prompt.
            Task::Generate { prompt, suffix, .. } => {
                let answer = prompt.len()..tokens.len() - suffix.len();
                prop_assert_eq!(masks(&tokens[answer]), 0);
            }
        }
        if request.config.logits_eos_inf.contains(&EOS) {
            let chosen = start(&request).into_iter().zip(tokens).filter(|(old, _)| *old == MASK);
            prop_assert!(chosen.into_iter().all(|(_, new)| new != EOS));
        }
    }

    #[test]
    fn quotas_are_kept(request in request()) {
        let mut request = request;
        request.config.suppress_mask = true;
        request.config.process = Process::Quota;
        let mut revealed: Vec<Vec<usize>> = Vec::new();
        sample(&toy(), std::slice::from_ref(&request), &mut |event| {
            revealed.resize(event.blocks, Vec::new());
            revealed[event.block].push(event.revealed.len());
            ControlFlow::Continue(())
        }).unwrap();
        for steps in revealed {
            let masked = steps.iter().sum();
            prop_assert_eq!(&steps, &llada_diffusion::num_transfer_tokens(masked, steps.len()));
        }
    }

    #[test]
    fn results_do_not_depend_on_batch_mates(
        requests in collection::vec(request(), 1..6),
        turn in 0..6_usize,
    ) {
        let alone: Vec<Output> =
            requests.iter().map(|request| run(std::slice::from_ref(request)).remove(0)).collect();
        prop_assert_eq!(&run(&requests), &alone);
        let turn = turn % requests.len();
        let (mut turned, mut expected) = (requests, alone);
        turned.rotate_left(turn);
        expected.rotate_left(turn);
        prop_assert_eq!(run(&turned), expected);
    }
}

#[test]
fn sequences_of_one_request_differ() {
    let config = SampleConfig {
        temperature: 1.0,
        ..SampleConfig::reverse(8, 16, 1)
    };
    let request = |sequence| Request {
        sequence,
        ..Request::generate(vec![1, 2], config.clone())
    };
    let outputs = run(&[request(0), request(1), request(0)]);
    assert_ne!(outputs[0].tokens, outputs[1].tokens);
    assert_eq!(outputs[0], outputs[2]);
}

#[test]
fn every_setting_changes_the_result() {
    let base = SampleConfig {
        steps: 8,
        gen_length: 16,
        block_length: None,
        ..Default::default()
    };
    let tokens = |config: SampleConfig| run(&[Request::generate(vec![1, 2], config)]).remove(0);
    let reference = tokens(base.clone());
    let others = [
        SampleConfig {
            steps: 4,
            ..base.clone()
        },
        SampleConfig {
            block_length: Some(4),
            ..base.clone()
        },
        SampleConfig {
            temperature: 1.0,
            ..base.clone()
        },
        SampleConfig {
            cfg_scale: 2.0,
            ..base.clone()
        },
        SampleConfig {
            remasking: Remasking::Random,
            ..base.clone()
        },
        SampleConfig {
            remasking: Remasking::Margin,
            ..base.clone()
        },
        SampleConfig {
            remasking: Remasking::Entropy,
            ..base.clone()
        },
        SampleConfig {
            process: Process::Reverse,
            ..base.clone()
        },
        SampleConfig {
            logits_eos_inf: (0..8).collect(),
            ..base.clone()
        },
        SampleConfig {
            confidence_eos_eot_inf: (0..8).collect(),
            ..base.clone()
        },
    ];
    for config in others {
        assert_ne!(
            tokens(config.clone()).tokens,
            reference.tokens,
            "{config:?}"
        );
    }
}

#[test]
fn an_answer_ends_at_an_eos_without_masks_before_it() {
    // Half of the ids are EOS to this predictor, so that one soon stands at the front.
    let config = SampleConfig {
        steps: 16,
        gen_length: 16,
        block_length: Some(4),
        suppress_mask: true,
        ..SampleConfig::default()
    };
    let mut saved = [0, 0];
    for seed in 0..80 {
        let prompt = if seed < 40 {
            vec![1, 2, seed % 13]
        } else {
            Vec::new()
        };
        let config = SampleConfig {
            seed: seed.into(),
            // The answers to one prompt differ by their draws.
            temperature: if seed < 40 { 0.0 } else { 1.0 },
            ..config.clone()
        };
        let whole = run(&[Request::generate(prompt.clone(), config.clone())]).remove(0);
        let early = SampleConfig {
            early_stop: true,
            ..config
        };
        let output = run(&[Request::generate(prompt, early)]).remove(0);
        assert_eq!(output.steps + output.saved_steps, 16);
        let end = output.answer().iter().position(|&id| id == EOS);
        if output.saved_steps > 0 {
            let end = end.expect("an answer that ended early has an EOS");
            assert_eq!(output.answer()[..end], whole.answer()[..end]);
            assert!(output.answer()[end..].iter().all(|&id| id == EOS));
            saved[usize::from(seed < 40)] += 1;
        } else {
            assert_eq!(output.tokens, whole.tokens);
        }
    }
    assert!(
        saved.iter().all(|&n| n > 0),
        "no answer ended early: {saved:?}"
    );
}

#[test]
fn a_fixed_token_is_not_overwritten_by_an_early_end() {
    let config = SampleConfig {
        steps: 7,
        gen_length: 8,
        early_stop: true,
        ..SampleConfig::default()
    };
    let answer = |constraints: &[(usize, u32)]| {
        let mut request = Request::generate(vec![1, 2], config.clone());
        if let Task::Generate {
            constraints: of, ..
        } = &mut request.task
        {
            *of = constraints.to_vec();
        }
        run(&[request])[0].answer().to_vec()
    };
    assert_eq!(answer(&[(0, EOS)]), [EOS; 8]);
    let longer = answer(&[(0, EOS), (6, 3)]);
    assert_eq!((longer[0], longer[6]), (EOS, 3));
    assert!(longer.iter().any(|&id| id != EOS && id != 3), "{longer:?}");
}

#[test]
fn the_last_step_of_a_block_fills_it_where_masks_have_won() {
    // Every mask that wins takes up the quota of a step.
    let left = |process| {
        let config = SampleConfig {
            steps: 16,
            gen_length: 32,
            block_length: Some(8),
            temperature: 3.0,
            process,
            ..SampleConfig::default()
        };
        (0..20)
            .map(|seed| {
                let config = SampleConfig {
                    seed,
                    ..config.clone()
                };
                masks(&run(&[Request::generate(vec![1, 2], config)])[0].tokens)
            })
            .sum::<usize>()
    };
    assert!(2 * left(Process::BlockQuota) < left(Process::Quota));
}

#[test]
fn parallel_decoding_takes_fewer_steps_the_less_it_asks() {
    let steps = |process| {
        let config = SampleConfig {
            gen_length: 24,
            block_length: Some(8),
            process,
            suppress_mask: true,
            ..SampleConfig::default()
        };
        run(&[Request::generate(vec![1, 2], config)])[0].nfe
    };
    assert_eq!(steps(Process::Threshold(1.0)), 24);
    assert_eq!(steps(Process::Threshold(0.0)), 3);
    let between = steps(Process::Threshold(0.5));
    assert!((4..24).contains(&between), "{between}");
    assert!(steps(Process::Factor(2.0)) < steps(Process::Factor(0.5)));
}

#[test]
fn a_further_end_ends_an_answer_as_the_eos_does() {
    let answer = |further: &[u32]| {
        let config = SampleConfig {
            steps: 7,
            gen_length: 8,
            early_stop: true,
            further_eos_token_ids: further.to_vec(),
            ..SampleConfig::default()
        };
        let mut request = Request::generate(vec![1, 2], config);
        if let Task::Generate { constraints, .. } = &mut request.task {
            *constraints = vec![(0, 3)];
        }
        run(&[request])[0].answer().to_vec()
    };
    assert_eq!(answer(&[3]), [&[3][..], &[EOS; 7]].concat());
    assert_ne!(answer(&[])[1..], [EOS; 7]);
}
