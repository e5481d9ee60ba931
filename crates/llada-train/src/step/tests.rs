use std::path::Path;

use super::*;

fn config(lines: &str) -> TrainConfig {
    let text = format!(
        "seed = 3\n[data]\ntrain = [\"a.txt\"]\nsequence_length = 8\n\
         [train]\nsteps = 1\nbatch_size = 1\n{lines}"
    );
    TrainConfig::from_toml(&text, Path::new("c.toml")).unwrap()
}

fn batch(lengths: &[usize]) -> TokenBatch {
    let mut ids = 1..;
    let sequences: Vec<Vec<u32>> = lengths
        .iter()
        .map(|&length| ids.by_ref().take(length).collect())
        .collect();
    TokenBatch::new(&sequences).unwrap()
}

#[test]
fn each_token_but_the_first_is_predicted_from_the_one_before() {
    let examples = autoregressive_examples(&batch(&[3, 1, 2]));
    assert_eq!(examples.positions, [0, 1, 4]);
    assert_eq!(examples.targets, [2, 3, 6]);
    let sum: f32 = examples.weights.iter().sum();
    assert!((sum - 1.0).abs() < 1e-6);
}

#[test]
fn weights_of_the_diffusion_loss_have_the_number_of_tokens_as_their_mean() {
    // E[sum of 1 / (p T) over masked tokens] = 1 for every t.
    let batch = batch(&[7, 3, 8, 5]);
    for lines in ["", "t_sampler = \"stratified\""] {
        let config = config(lines);
        let (mut sum, n) = (0.0, 4000);
        for step in 0..n {
            let examples = diffusion_examples(&batch, 0, &config, step).unwrap();
            sum += examples.weights.iter().map(|&w| f64::from(w)).sum::<f64>();
        }
        let mean = sum / n as f64;
        assert!((mean - 1.0).abs() < 0.1, "{lines}: {mean}");
    }
}

#[test]
fn masked_tokens_are_the_targets() {
    let batch = batch(&[7, 3, 8]);
    let examples = diffusion_examples(&batch, 0, &config(""), 5).unwrap();
    assert!(!examples.positions.is_empty());
    for (&position, &target) in examples.positions.iter().zip(&examples.targets) {
        assert_eq!(examples.batch.ids()[position], 0);
        assert_eq!(batch.ids()[position], target);
    }
    let n_masked = examples.batch.ids().iter().filter(|&&id| id == 0).count();
    assert_eq!(n_masked, examples.positions.len());
}

#[test]
fn draws_of_a_sequence_do_not_depend_on_those_after_it() {
    let [short, long] = [&[7, 3][..], &[7, 3, 8]]
        .map(|lengths| diffusion_examples(&batch(lengths), 0, &config(""), 5).unwrap());
    let n = short.positions.len();
    assert_eq!(short.positions, long.positions[..n]);
    assert_eq!(short.batch.ids(), &long.batch.ids()[..10]);
}

#[test]
fn draws_differ_from_step_to_step_and_slot_to_slot() {
    let t = masking_ratios(3, TSampler::Iid, 64, 0);
    assert_ne!(t, masking_ratios(3, TSampler::Iid, 64, 1));
    assert!(
        t.windows(2)
            .all(|pair| pair[0].to_bits() != pair[1].to_bits())
    );
    let batch = batch(&[4, 4]);
    let u = mask_draws(3, &batch, 0);
    assert_ne!(u[..4], u[4..]);
    assert_ne!(u, mask_draws(3, &batch, 1));
}

#[test]
fn stratified_ratios_hit_every_stratum_once() {
    for step in 0..50 {
        let mut t = masking_ratios(3, TSampler::Stratified, 16, step);
        t.sort_by(f32::total_cmp);
        for (i, t) in t.iter().enumerate() {
            let stratum = (t * 16.0) as usize;
            assert_eq!(stratum, i, "step {step}: {t}");
        }
    }
}

#[test]
fn parts_hold_whole_sequences_and_all_predictions() {
    let batch = batch(&[3, 2, 5, 1, 4]);
    let whole = autoregressive_examples(&batch);
    assert_eq!(whole.cut(0, 1), std::slice::from_ref(&(0..5)));
    assert_eq!(whole.part(&(0..5)).unwrap(), whole);
    let cut = whole.cut(6, 1);
    let parts: Vec<Examples> = cut.iter().map(|part| whole.part(part).unwrap()).collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.batch.n_tokens()).collect();
    assert_eq!(lengths, [5, 6, 4]);
    let targets: Vec<u32> = parts.iter().flat_map(|part| part.targets.clone()).collect();
    assert_eq!(targets, whole.targets);
    for part in &parts {
        for (&position, &target) in part.positions.iter().zip(&part.targets) {
            assert_eq!(part.batch.ids()[position + 1], target);
        }
    }
}

#[test]
fn every_rank_gets_about_as_much() {
    #[track_caller]
    fn check(lengths: &[usize], [n_tokens, n_ranks]: [usize; 2], expected: &[Range<usize>]) {
        let cut = autoregressive_examples(&batch(lengths)).cut(n_tokens, n_ranks);
        assert_eq!(cut, expected);
    }
    check(&[4, 4, 4, 4], [0, 2], &[0..2, 2..4]);
    check(&[4, 4, 4, 4], [0, 4], &[0..1, 1..2, 2..3, 3..4]);
    check(&[9, 2, 2, 2, 2], [0, 2], &[0..1, 1..5]);
    // What a single process cuts is left if it is as much for all, and cut again if it is not.
    check(&[2, 2, 2, 2, 2, 2, 2], [4, 4], &[0..2, 2..4, 4..6, 6..7]);
    check(&[2; 9], [6, 2], &[0..3, 3..5, 5..7, 7..9]);
    // More ranks than sequences: some have nothing to do. Nor is one token of any use.
    check(&[5, 5], [0, 4], &[0..1, 1..2]);
    check(&[5, 1, 5], [1, 3], &[0..1, 2..3]);
}
