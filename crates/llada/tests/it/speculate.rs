//! Guesses of coming steps on the embedded model: the same texts in fewer passes.

use llada::sample::{CacheMode, Process};
use llada::tensor::CpuLevel;
use llada::{Checkpoint, CpuConfig, Device, Llada, Overrides, Precision};

const LINES: [&str; 8] = [
    "床前明月光，",
    "白日依山尽，",
    "春眠不觉晓，",
    "千山鸟飞绝，",
    "红豆生南国，",
    "松下问童子，",
    "空山不见人，",
    "向晚意不适，",
];

/// One on all machines.
fn poet() -> Llada {
    let (threads, level) = (1, Some(CpuLevel::Scalar));
    let device = Device::cpu(CpuConfig { threads, level }).unwrap();
    let poet = Checkpoint::embedded().unwrap();
    poet.frozen(&device, Precision::F32).unwrap()
}

/// The texts, and the passes of all.
fn poems(poet: &Llada, cache: CacheMode, speculate: usize) -> (Vec<String>, usize) {
    let overrides = Overrides {
        gen_length: Some(18),
        block_length: Some(6),
        cache: Some(cache),
        speculate,
        ..Overrides::default()
    };
    let answers: Vec<_> = (LINES.iter())
        .map(|line| poet.generate(*line, &overrides).unwrap())
        .collect();
    let nfe = answers.iter().map(|answer| answer.output.nfe).sum();
    let texts = answers.into_iter().map(|answer| answer.whole_text);
    (texts.collect(), nfe)
}

#[test]
fn guesses_save_passes_and_change_no_poem() {
    let poet = poet();
    for cache in [CacheMode::None, CacheMode::Dual] {
        let (texts, nfe) = poems(&poet, cache, 0);
        assert_eq!(nfe, 18 * LINES.len());
        let mut passes = vec![nfe];
        for speculate in [1, 3, 7] {
            let (guessed, nfe) = poems(&poet, cache, speculate);
            assert_eq!(guessed, texts, "{cache}, {speculate} guesses");
            passes.push(nfe);
        }
        let share = |at: usize| passes[at] as f64 / passes[0] as f64;
        assert!(share(1) < 0.75, "{cache}: {passes:?}");
        assert!(share(2) <= 0.6 && share(3) <= 0.6, "{cache}: {passes:?}");
    }
}

/// A window of suffixes moves when a block opens within another one, and shows positions that no call
/// of the block has computed.
#[test]
fn blocks_that_open_early_go_with_windows_and_caches() {
    let poet = poet();
    let write = |cache: CacheMode, refresh_interval: Option<usize>| {
        let overrides = Overrides {
            gen_length: Some(18),
            block_length: Some(6),
            process: Some(Process::Threshold(0.9)),
            overlap: Some(0.5),
            suffix_window: Some(6),
            cache: Some(cache),
            refresh_interval,
            ..Overrides::default()
        };
        let text = |line: &&str| poet.generate(*line, &overrides).unwrap().whole_text;
        LINES.iter().map(text).collect::<Vec<_>>()
    };
    let plain = write(CacheMode::None, None);
    for cache in [CacheMode::Prefix, CacheMode::Dual, CacheMode::Activity] {
        let cached = write(cache, None);
        assert_eq!(cached.len(), plain.len());
        assert_eq!(write(cache, Some(1)), plain, "{cache}, everything anew");
    }
}
