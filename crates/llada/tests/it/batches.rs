//! A request's result depends neither on its batch mates nor on the number of threads.

use std::ops::ControlFlow;
use std::path::Path;

use llada::sample::{CacheMode, Process, RefreshPolicy, Request, SampleConfig, sample};
use llada::{CpuConfig, Device, Llada, Precision};

/// Position, token and bits of the confidence of everything that a step reveals.
type Steps = Vec<Vec<(usize, u32, u32)>>;

fn run(llada: &Llada, requests: &[Request]) -> Vec<Steps> {
    let mut steps = vec![Steps::new(); requests.len()];
    sample(&llada.model, requests, &mut |event| {
        let revealed = event.revealed.iter();
        let step = revealed.map(|x| (x.position, x.token, x.confidence.to_bits()));
        steps[event.request].push(step.collect());
        ControlFlow::Continue(())
    })
    .unwrap();
    steps
}

#[track_caller]
fn check(config: &SampleConfig) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/models/mha-f32");
    let all = [
        Precision::F32,
        Precision::Bf16,
        Precision::Int8,
        Precision::Int4,
    ];
    for precision in all {
        let load = |threads| {
            let level = None;
            let device = Device::cpu(CpuConfig { threads, level }).unwrap();
            llada::load(&dir, &device, precision).unwrap()
        };
        let (one, two) = (load(1), load(2));
        let ids: Vec<u32> = (0..34).map(|i| i * 13 % 400).collect();
        let requests: Vec<Request> = [1, 2, 3, 5, 8, 13, 21, 34]
            .iter()
            .enumerate()
            .map(|(i, &length)| {
                let config = SampleConfig {
                    gen_length: 9 + i,
                    steps: 6 + i,
                    seed: i as u64,
                    ..config.clone()
                };
                Request::generate(ids[..length].to_vec(), config)
            })
            .collect();
        let alone = requests
            .iter()
            .map(|request| run(&one, std::slice::from_ref(request)).remove(0));
        let alone: Vec<Steps> = alone.collect();
        assert_eq!(run(&one, &requests), alone, "{precision:?}: a batch of 8");
        assert_eq!(run(&two, &requests), alone, "{precision:?}: two threads");
    }
}

#[test]
fn batches_of_mixed_lengths_equal_single_runs() {
    check(&SampleConfig::default());
    check(&SampleConfig {
        temperature: 0.7,
        cfg_scale: 0.5,
        block_length: Some(4),
        ..SampleConfig::default()
    });
    check(&SampleConfig {
        cache: CacheMode::Dual,
        process: Process::Threshold(0.5),
        block_length: Some(4),
        ..SampleConfig::default()
    });
    check(&SampleConfig {
        cache: CacheMode::Activity,
        refresh: RefreshPolicy {
            suffix_window: Some(3),
            prompt_interval: 2,
            vicinity: 1,
            refresh_interval: Some(3),
            keep_active: 1,
        },
        process: Process::LocalLeap {
            threshold: 0.3,
            relaxed: 0.1,
            radius: 2,
        },
        temperature: 0.7,
        block_length: Some(4),
        ..SampleConfig::default()
    });
    check(&SampleConfig {
        cache: CacheMode::Dual,
        refresh: RefreshPolicy {
            vicinity: 2,
            ..RefreshPolicy::default()
        },
        process: Process::Hierarchical {
            high: 0.4,
            low: 0.1,
        },
        block_length: Some(4),
        ..SampleConfig::default()
    });
    for process in [
        Process::EntropyExit(2.0),
        Process::FallingThreshold {
            threshold: 0.5,
            fall: 0.8,
        },
    ] {
        check(&SampleConfig {
            process,
            block_length: Some(4),
            ..SampleConfig::default()
        });
    }
    check(&SampleConfig {
        refresh: RefreshPolicy {
            suffix_window: Some(2),
            ..RefreshPolicy::default()
        },
        process: Process::EntropyBound(6.0),
        block_length: Some(4),
        ..SampleConfig::default()
    });
}
