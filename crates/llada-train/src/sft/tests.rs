use std::path::Path;

use llada_diffusion::p_mask;

use super::*;

const EOS: u32 = 1;

fn config(lines: &str) -> TrainConfig {
    let text = format!(
        "seed = 3\n[data]\ntrain = [\"a.jsonl\"]\nsequence_length = 8\n\
         [train]\nsteps = 1\nbatch_size = 3\n{lines}"
    );
    TrainConfig::sft_from_toml(&text, Path::new("c.toml")).unwrap()
}

/// Prompts of 2, 1 and 3 tokens; answers of 2, 5 and 1, EOS counted.
fn batch() -> (TokenBatch, [usize; 3]) {
    let sequences = [
        vec![10, 11, 12, EOS],
        vec![20, 21, 22, 23, 24, EOS],
        vec![30, 31, 32, EOS],
    ];
    (TokenBatch::new(&sequences).unwrap(), [2, 1, 3])
}

fn examples(config: &TrainConfig, step: u64) -> Examples {
    let (batch, lens) = batch();
    let info = PredictorInfo::new(40, 0, EOS, 8);
    answer_examples(&batch, &lens, &info, config, step).unwrap()
}

#[test]
fn short_pairs_are_padded_with_eos_to_the_longest() {
    let (batch, lens) = batch();
    let sft = SftConfig {
        eos_pad_weight: 0.5,
        ..SftConfig::default()
    };
    let (padded, weights) = pad(&batch, &lens, EOS, &sft).unwrap();
    let sequences: Vec<&[u32]> = padded.sequences().collect();
    assert_eq!(sequences[0], [10, 11, 12, EOS, EOS, EOS]);
    assert_eq!(sequences[1], batch.sequence(1));
    assert_eq!(sequences[2], [30, 31, 32, EOS, EOS, EOS]);
    let expected = [
        0.0, 0.0, 1.0, 1.0, 0.5, 0.5, //
        0.0, 1.0, 1.0, 1.0, 1.0, 1.0, //
        0.0, 0.0, 0.0, 1.0, 0.5, 0.5,
    ];
    assert_eq!(weights, expected);
}

#[test]
fn a_local_batch_is_padded_by_itself() {
    let (batch, lens) = batch();
    let sft = SftConfig {
        local_batch_size: 2,
        ..SftConfig::default()
    };
    let (padded, weights) = pad(&batch, &lens, EOS, &sft).unwrap();
    let lengths: Vec<usize> = padded.sequences().map(<[u32]>::len).collect();
    assert_eq!(lengths, [6, 6, 4]);
    assert_eq!(weights.len(), 16);
}

#[test]
fn prompts_are_never_masked_and_pads_are() {
    let mut is_masked = [false; 18];
    for step in 0..200 {
        let examples = examples(&config(""), step);
        for (&at, &target) in examples.positions.iter().zip(&examples.targets) {
            is_masked[at] = true;
            assert_eq!(examples.batch.ids()[at], 0);
            assert_ne!(target, 0);
        }
    }
    let prompts = [0, 1, 6, 12, 13, 14];
    for (at, &masked) in is_masked.iter().enumerate() {
        assert_eq!(masked, !prompts.contains(&at), "{at}");
    }
}

#[test]
fn weights_are_one_over_p_the_answer_and_the_batch() {
    // Answers of 4, 5 and 3 tokens, pads counted, in a batch of 3.
    let config = config("");
    let t = masking_ratios(3, config.train.t_sampler, 3, 7);
    let examples = examples(&config, 7);
    assert!(examples.positions.len() > 2);
    for (&at, &weight) in examples.positions.iter().zip(&examples.weights) {
        let (row, answer) = [(0, 4.0), (1, 5.0), (2, 3.0)][at / 6];
        let expected = 1.0 / (f64::from(p_mask(t[row])) * answer * 3.0);
        let error = (f64::from(weight) / expected - 1.0).abs();
        assert!(error <= 1e-7, "{at}: {weight}, not {expected}");
    }
}

#[test]
fn expected_weights_add_up_to_one_whatever_pads_count() {
    for lines in [
        "",
        "[sft]\neos_pad_weight = 0.25",
        "[sft]\neos_pad_weight = 0.0",
    ] {
        let config = config(lines);
        let (mut sum, n) = (0.0, 6000);
        for step in 0..n {
            let weights = examples(&config, step).weights;
            sum += weights.iter().map(|&w| f64::from(w)).sum::<f64>();
        }
        let mean = sum / n as f64;
        // A token's term varies by up to E[1/p] - 1 = 6; twelve tokens in three sequences.
        assert!((mean - 1.0).abs() < 0.1, "{lines}: {mean}");
    }
}

#[test]
fn uniform_weights_are_a_mean() {
    let config = config("loss_weight = \"uniform\"\n[sft]\neos_pad_weight = 0.5");
    for step in 0..20 {
        let examples = examples(&config, step);
        let sum: f64 = examples.weights.iter().map(|&w| f64::from(w)).sum();
        let only_nothing = examples.positions.is_empty();
        assert!(only_nothing || (sum - 1.0).abs() < 1e-6, "{step}: {sum}");
    }
    assert_eq!(mean_weights(&[0, 1], &[0.0, 0.0]), [0.0, 0.0]);
}

/// Pairs of 6, 4 and 5 tokens in sequences of 10: two of them, and no token is a pad.
#[test]
fn packed_pairs_are_masked_as_a_whole() {
    let mut config = config("[sft]\nmasks = \"packed\"");
    config.data.sequence_length = 10;
    let pairs: [&[u32]; 3] = [&[2, 3, 4, 5, 6, 1], &[7, 8, 9, 1], &[10, 11, 12, 13, 1]];
    let batch = TokenBatch::new(&pairs).unwrap();
    let whole = packed(&batch, 10).unwrap();
    assert_eq!(whole.offsets(), [0, 10, 15]);
    assert_eq!(whole.ids(), pairs.concat());
    let info = PredictorInfo::new(20, 0, EOS, 64);
    let mut is_masked = [false; 15];
    for step in 0..100 {
        let examples = answer_examples(&batch, &[3, 2, 2], &info, &config, step).unwrap();
        assert_eq!(
            examples,
            diffusion_examples(&whole, 0, &config, step).unwrap()
        );
        examples
            .positions
            .iter()
            .for_each(|&at| is_masked[at] = true);
    }
    assert_eq!(is_masked, [true; 15]);
}
