//! Settings of caches that leave nothing out give the bits of the uncached run, on a Transformer.

use std::ops::ControlFlow;
use std::path::Path;

use llada::sample::{CacheMode, Output, Process, RefreshPolicy, Request, SampleConfig, sample};
use llada::{CpuConfig, Device, Llada, Precision};

fn model() -> Llada {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/models/mha-f32");
    let (threads, level) = (1, None);
    let device = Device::cpu(CpuConfig { threads, level }).unwrap();
    llada::load(&dir, &device, Precision::F32).unwrap()
}

/// The output, and the bits of all confidences.
fn run(llada: &Llada, cache: CacheMode, refresh: RefreshPolicy) -> (Output, Vec<u32>) {
    let config = SampleConfig {
        steps: 24,
        gen_length: 24,
        block_length: Some(8),
        cache,
        refresh,
        process: Process::Quota,
        ..SampleConfig::default()
    };
    let request = Request::generate((0..20).map(|i| i * 7 % 400).collect(), config);
    let mut bits = Vec::new();
    let outputs = sample(&llada.model, &[request], &mut |event| {
        bits.extend(event.revealed.iter().map(|x| x.confidence.to_bits()));
        ControlFlow::Continue(())
    });
    (outputs.unwrap().remove(0), bits)
}

#[test]
fn plans_that_leave_nothing_out_change_nothing() {
    let llada = model();
    let base = run(&llada, CacheMode::None, RefreshPolicy::default());
    assert!(base.0.nfe > 3, "{} calls: nothing tested", base.0.nfe);
    assert_eq!(base.0.rows, base.0.nfe * 44);
    let always = RefreshPolicy {
        refresh_interval: Some(1),
        ..RefreshPolicy::default()
    };
    let far = RefreshPolicy {
        suffix_window: Some(44),
        ..RefreshPolicy::default()
    };
    let wide = RefreshPolicy {
        vicinity: 44,
        ..RefreshPolicy::default()
    };
    assert_eq!(run(&llada, CacheMode::None, far), base);
    for cache in [CacheMode::Prefix, CacheMode::Dual, CacheMode::Activity] {
        assert_eq!(run(&llada, cache, always), base, "{cache}");
    }
    assert_eq!(run(&llada, CacheMode::Prefix, wide), base);
    assert_eq!(run(&llada, CacheMode::Dual, wide), base);
    let dual = run(&llada, CacheMode::Dual, RefreshPolicy::default());
    assert_eq!(
        run(
            &llada,
            CacheMode::Dual,
            RefreshPolicy {
                suffix_window: Some(16),
                ..RefreshPolicy::default()
            }
        ),
        dual
    );
    let never = RefreshPolicy {
        keep_active: 99,
        ..RefreshPolicy::default()
    };
    // New tokens of earlier blocks stay active too, so that this is not dual beyond one block.
    assert!(run(&llada, CacheMode::Activity, never).0.rows >= dual.0.rows);
}

#[test]
fn rows_that_are_left_out_are_not_computed() {
    let llada = model();
    let rows = |cache, refresh| {
        let output = run(&llada, cache, refresh).0;
        output.rows as f64 / output.nfe as f64
    };
    let usual = RefreshPolicy::default();
    let short = RefreshPolicy {
        suffix_window: Some(4),
        ..usual
    };
    let kept = RefreshPolicy {
        prompt_interval: 3,
        ..usual
    };
    let all = rows(CacheMode::None, usual);
    let dual = rows(CacheMode::Dual, usual);
    assert!(rows(CacheMode::None, short) < all);
    assert!(dual < rows(CacheMode::Prefix, usual));
    assert!(rows(CacheMode::Activity, usual) < dual);
    assert!(rows(CacheMode::Dual, kept) < dual);
    assert!(rows(CacheMode::Dual, short) < dual);
}
