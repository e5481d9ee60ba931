//! Continuing a prompt token by token.

use std::ops::ControlFlow;

use llada_diffusion::{MaskPredictor, TokenBatch};
use llada_sample::{
    CacheMode, Draws, Output, Process, RecordedDraws, RefreshPolicy, Remasking, Request, Result,
    SampleConfig, Task, sample,
};
use llada_testkit::{ChainPredictor, ToyPredictor};

/// Tokens 0 to 3, the end 4, and the mask 5; after 0, 1 and 2 comes the next one, then the end.
fn chain() -> ChainPredictor {
    let mut logits = vec![0.0; 36];
    for token in 0..4 {
        logits[token * 6 + token + 1] = 3.0;
    }
    ChainPredictor::new(logits)
}

fn config(gen_length: usize) -> SampleConfig {
    SampleConfig {
        gen_length,
        suppress_mask: true,
        ..SampleConfig::default()
    }
}

fn run(predictor: &dyn MaskPredictor, requests: &[Request]) -> Result<Vec<Output>> {
    sample(predictor, requests, &mut |_| ControlFlow::Continue(()))
}

#[test]
fn greedy_takes_the_best_token_of_every_prefix() {
    let toy = ToyPredictor::new(16, 32, 3).autoregressive();
    let request = Request::generate(vec![1, 2, 3], config(12));
    let output = run(&toy, &[request]).unwrap().remove(0);
    let mut tokens = vec![1, 2, 3];
    for _ in 0..12 {
        let batch = TokenBatch::new(&[&tokens]).unwrap();
        let mut logits = toy.rows(&batch, &[tokens.len() - 1]).unwrap();
        logits[15] = f32::NEG_INFINITY; // the mask
        let best = (0..16).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        tokens.push(best.unwrap() as u32);
    }
    assert_eq!(output.tokens, tokens);
    assert_eq!(output.answer(), &tokens[3..]);
    assert_eq!((output.nfe, output.steps), (12, 12));
    // Prefixes of 3 to 14 tokens.
    assert_eq!(output.rows, (3..15).sum::<usize>());
}

#[test]
fn requests_do_not_see_each_other() {
    let toy = ToyPredictor::new(16, 32, 5).autoregressive();
    let request = |prompt: &[u32], gen_length, temperature, sequence| {
        let config = SampleConfig {
            temperature,
            seed: 9,
            ..config(gen_length)
        };
        Request {
            sequence,
            ..Request::generate(prompt.to_vec(), config)
        }
    };
    let requests = [
        request(&[1], 3, 0.0, 0),
        request(&[1, 2, 3, 4], 9, 1.0, 0),
        request(&[1, 2, 3, 4], 9, 1.0, 1),
        request(&[7, 2], 5, 0.0, 0),
        request(&[1, 2, 3, 4], 9, 0.5, 0),
    ];
    let together = run(&toy, &requests).unwrap();
    for (request, output) in requests.iter().zip(&together) {
        let apart = run(&toy, std::slice::from_ref(request)).unwrap();
        assert_eq!(&apart[0], output);
    }
    assert_ne!(together[1].tokens, together[2].tokens);
}

#[test]
fn an_eos_ends_an_answer_early_and_otherwise_does_not() {
    let request = |early_stop| {
        let config = SampleConfig {
            early_stop,
            ..config(6)
        };
        Request::generate(vec![1], config)
    };
    let outputs = run(&chain(), &[request(true), request(false)]).unwrap();
    assert_eq!(outputs[0].tokens, [1, 2, 3, 4, 4, 4, 4]);
    assert_eq!((outputs[0].steps, outputs[0].saved_steps), (3, 3));
    // After the end all tokens are alike, and the first of them wins.
    assert_eq!(outputs[1].tokens, [1, 2, 3, 4, 0, 1, 2]);
    assert_eq!((outputs[1].steps, outputs[1].saved_steps), (6, 0));
    let config = SampleConfig {
        logits_eos_inf: vec![4],
        ..config(3)
    };
    let without = run(&chain(), &[Request::generate(vec![2], config)]).unwrap();
    assert_eq!(without[0].tokens, [2, 3, 0, 1]);
}

#[test]
fn a_temperature_draws_from_the_softmax() {
    const N: u32 = 4000;
    let draws = |temperature: f64, expected: f64| {
        let config = SampleConfig {
            temperature,
            ..config(1)
        };
        let request = |sequence| Request {
            sequence,
            ..Request::generate(vec![1], config.clone())
        };
        let requests: Vec<Request> = (0..N).map(request).collect();
        let outputs = run(&chain(), &requests).unwrap();
        let hits = outputs.iter().filter(|output| output.tokens[1] == 2);
        let share = hits.count() as f64 / f64::from(N);
        let error = (expected * (1.0 - expected) / f64::from(N)).sqrt();
        assert!(
            (share - expected).abs() < 4.0 * error,
            "temperature {temperature}: {share}, expected {expected}"
        );
    };
    // One logit of 3 and four of 0; the mask is left out. The noise is that of the reference,
    // exp(logit) / (-ln u)^T: at T = 1 the softmax.
    draws(1.0, 3.0_f64.exp() / (3.0_f64.exp() + 4.0));
}

#[test]
fn an_observer_sees_every_token_and_can_stop() {
    let request = Request::generate(vec![0], config(4));
    let mut told = Vec::new();
    let outputs = sample(&chain(), &[request], &mut |event| {
        assert_eq!((event.steps, event.blocks, event.revealed.len()), (4, 1, 1));
        let revealed = event.revealed[0];
        assert_eq!(event.canvas[revealed.position], revealed.token);
        assert!(revealed.confidence > 0.5 && revealed.confidence < 1.0);
        told.push((event.step, revealed.position, revealed.token, event.masked));
        match event.step {
            1 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    })
    .unwrap();
    assert_eq!(told, [(0, 1, 1, 3), (1, 2, 2, 2)]);
    assert!(outputs[0].stopped);
    assert_eq!(outputs[0].tokens, [0, 1, 2, 5, 5]);
}

#[track_caller]
fn refused(request: Request, message: &str) {
    let error = run(&chain(), &[request]).unwrap_err().to_string();
    assert!(error.contains(message), "{error}");
}

#[test]
fn what_only_diffusion_can_do_is_refused() {
    let with = |config: SampleConfig, what: &str| {
        let expected = format!("request 0: {what} cannot be used with an autoregressive model");
        refused(Request::generate(vec![1], config), &expected);
    };
    let cache = CacheMode::Dual;
    with(SampleConfig { cache, ..config(4) }, "cache");
    let cfg_scale = 1.0;
    with(
        SampleConfig {
            cfg_scale,
            ..config(4)
        },
        "cfg_scale",
    );
    let remasking = Remasking::Entropy;
    with(
        SampleConfig {
            remasking,
            ..config(4)
        },
        "remasking",
    );
    let process = Process::Threshold(0.9);
    with(
        SampleConfig {
            process,
            ..config(4)
        },
        "threshold",
    );
    let refresh = RefreshPolicy {
        suffix_window: Some(3),
        ..RefreshPolicy::default()
    };
    with(
        SampleConfig {
            refresh,
            ..config(4)
        },
        "suffix_window",
    );
    let confidence_eos_eot_inf = vec![4];
    let late = SampleConfig {
        confidence_eos_eot_inf,
        ..config(4)
    };
    with(late, "confidence_eos_eot_inf");
    refused(Request::infill(vec![1, 5], config(4)), "infill");
    let task = |suffix: &[u32], constraints: &[(usize, u32)]| Request {
        task: Task::Generate {
            prompt: vec![1],
            suffix: suffix.to_vec(),
            constraints: constraints.to_vec(),
        },
        ..Request::generate(Vec::new(), config(4))
    };
    refused(task(&[4], &[]), "a suffix");
    refused(task(&[], &[(1, 2)]), "constraints");
    let recorded = Request {
        draws: Draws::Recorded(RecordedDraws::default()),
        ..Request::generate(vec![1], config(4))
    };
    refused(recorded, "a recording of draws");
    refused(
        Request::generate(Vec::new(), config(4)),
        "request 0: the prompt must be at least 1 token, got 0",
    );
    refused(
        Request::generate(vec![1], config(0)),
        "request 0: gen_length must be at least 1, got 0",
    );
    refused(Request::generate(vec![1; 62], config(4)), "context of 64");
}

#[test]
fn a_mask_is_a_token_like_any_other_unless_it_is_suppressed() {
    let mut logits = vec![0.0; 36];
    logits[6 + 5] = 3.0; // after 1 the mask
    logits[5 * 6 + 4] = 3.0; // after the mask the end
    let chain = ChainPredictor::new(logits);
    let config = SampleConfig {
        gen_length: 4,
        early_stop: true,
        ..SampleConfig::default()
    };
    let mut settled = Vec::new();
    let outputs = sample(
        &chain,
        &[Request::generate(vec![1], config)],
        &mut |event| {
            settled.push(event.settled.len());
            ControlFlow::Continue(())
        },
    );
    let output = outputs.unwrap().remove(0);
    assert_eq!(output.tokens, [1, 5, 4, 4, 4]);
    assert_eq!((output.steps, output.saved_steps), (2, 2));
    assert_eq!(settled[0], 1);
}

#[test]
fn noise_for_too_many_tokens_is_refused_before_the_first() {
    let mut toy = ToyPredictor::new(16, 5000, 3);
    toy = toy.autoregressive();
    let config = SampleConfig {
        gen_length: 4097,
        temperature: 1.0,
        ..SampleConfig::default()
    };
    let error = run(&toy, &[Request::generate(vec![1], config)]).unwrap_err();
    let expected = "request 0: gen_length must be at most 4096 with a temperature, got 4097";
    assert_eq!(error.to_string(), expected);
}
