use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::{Cut, Packing};

/// A file of `n` sequences of lengths 1 to 7; each begins with its own number.
fn source(name: &str, weight: Option<f64>, n: u32) -> Source {
    let documents = (0..n).map(|i| vec![i; (i % 7) as usize]);
    let cut = Cut {
        packing: Packing::Documents,
        sequence_length: 8,
        eos_token_id: 1000,
    };
    Source::new(name, weight, documents, cut)
}

fn config(seed: u64, lines: &str) -> TrainConfig {
    let text = format!(
        "seed = {seed}\n[data]\ntrain = [\"a.txt\"]\nsequence_length = 8\n\
         packing = \"documents\"\n[train]\nsteps = 1\n{lines}"
    );
    TrainConfig::from_toml(&text, Path::new("c.toml")).unwrap()
}

fn batches(sampler: &mut BatchSampler<'_>, steps: std::ops::Range<u64>) -> Vec<TokenBatch> {
    steps
        .map(|step| sampler.next_batch(step).unwrap().tokens)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_epoch_has_every_sequence_once(seed: u64, n in 1_u32..40, batch in 1_usize..9) {
        let sources = [source("a.txt", None, n)];
        let config = config(seed, &format!("batch_size = {batch}"));
        let mut sampler = BatchSampler::new(&sources, &config).unwrap();
        let n_batches = (3 * n as usize).div_ceil(batch) as u64;
        let drawn: Vec<Vec<u32>> = batches(&mut sampler, 0..n_batches)
            .iter()
            .flat_map(|batch| batch.sequences().map(<[u32]>::to_vec).collect::<Vec<_>>())
            .collect();
        let mut all: Vec<Vec<u32>> =
            (0..n as usize).map(|at| sources[0].sequence(at).unwrap().to_vec()).collect();
        all.sort();
        for epoch in drawn.chunks_exact(n as usize) {
            let mut epoch = epoch.to_vec();
            epoch.sort();
            prop_assert_eq!(&epoch, &all);
        }
    }

    #[test]
    fn a_restored_sampler_goes_on_with_the_same_batches(seed: u64, stop in 0_u64..30) {
        let sources = [source("a.txt", Some(0.8), 9), source("b.txt", Some(0.2), 31)];
        let config = config(seed, "batch_tokens = 17\nrandom_length_probability = 0.2");
        let mut straight = BatchSampler::new(&sources, &config).unwrap();
        let all = batches(&mut straight, 0..40);
        let mut stopped = BatchSampler::new(&sources, &config).unwrap();
        let mut parts = batches(&mut stopped, 0..stop);
        let state = stopped.state().clone();
        let mut resumed = BatchSampler::new(&sources, &config).unwrap();
        resumed.restore(&state);
        parts.extend(batches(&mut resumed, stop..40));
        prop_assert_eq!(parts, all);
        prop_assert_eq!(resumed.state(), straight.state());
    }

    #[test]
    fn as_many_sequences_as_fit(seed: u64, tokens in 8_usize..60) {
        let sources = [source("a.txt", None, 50)];
        let config = config(seed, &format!("batch_tokens = {tokens}"));
        let mut sampler = BatchSampler::new(&sources, &config).unwrap();
        let all = batches(&mut sampler, 0..30);
        for pair in all.windows(2) {
            prop_assert!(pair[0].n_tokens() <= tokens);
            prop_assert!(pair[0].n_tokens() + pair[1].sequence(0).len() > tokens);
        }
    }
}

#[test]
fn files_are_drawn_by_weight() {
    let sources = [
        source("a.txt", Some(3.0), 5),
        source("b.txt", Some(1.0), 500),
    ];
    let mut sampler = BatchSampler::new(&sources, &config(1, "batch_size = 50")).unwrap();
    batches(&mut sampler, 0..200);
    let mut drawn = BTreeMap::new();
    for (source, position) in sources.iter().zip(&sampler.state().files) {
        let n = position.epoch as usize * source.n_sequences() + position.cursor;
        drawn.insert(&position.name[..], n);
    }
    assert_eq!(drawn["a.txt"] + drawn["b.txt"], 10_000);
    // Four standard deviations of the binomial distribution.
    assert!(drawn["a.txt"].abs_diff(7500) < 174, "{drawn:?}");
}

#[test]
fn without_weights_every_sequence_is_as_likely() {
    let sources = [source("a.txt", None, 100), source("b.txt", None, 300)];
    let mut sampler = BatchSampler::new(&sources, &config(1, "batch_size = 50")).unwrap();
    batches(&mut sampler, 0..200);
    let [a, b] = [0, 1].map(|at| &sampler.state().files[at]);
    let drawn = a.epoch as usize * 100 + a.cursor;
    assert_eq!(drawn + b.epoch as usize * 300 + b.cursor, 10_000);
    assert!(drawn.abs_diff(2500) < 174, "{drawn}");
}

#[test]
fn some_batches_are_cut_to_a_random_length() {
    let sources = [source("a.txt", None, 50)];
    let lines = "batch_size = 20\nrandom_length_probability = 0.5";
    let mut sampler = BatchSampler::new(&sources, &config(1, lines)).unwrap();
    let longest = |batch: &TokenBatch| batch.sequences().map(<[u32]>::len).max().unwrap();
    let lengths: Vec<usize> = batches(&mut sampler, 0..400).iter().map(longest).collect();
    for length in 1..=7 {
        assert!(lengths.contains(&length), "{length}");
    }
    // Half of the batches are cut, 6 of 8 lengths of these to less than 7.
    let cut = lengths.iter().filter(|&&length| length < 7).count();
    assert!(cut.abs_diff(150) < 40, "{cut}");
}
