use super::*;
use crate::{TokenBatch, forward_process, p_mask};

#[test]
fn weights_are_one_over_p_and_the_number_of_tokens() {
    // Ragged: 3 + 1 tokens, of which three are masked.
    let batch = TokenBatch::new(&[vec![1, 2, 3], vec![4]]).unwrap();
    let u = [0.0, 0.9, 0.1, 0.0];
    let noised = forward_process(&batch, 9, &[0.5, 0.25], &u, None).unwrap();
    let weights = diffusion_loss_weights(&noised);
    let of = |t: f32| (1.0 / (f64::from(p_mask(t)) * 4.0)) as f32;
    assert_eq!(weights, [of(0.5), of(0.5), of(0.25)]);
}

#[test]
fn the_expected_sum_of_weights_is_one() {
    // Over the draws of masks, the weights of a batch add up to one in the mean, at every t.
    let n = 200_000;
    let batch = TokenBatch::new(&[vec![1; n], vec![2; n]]).unwrap();
    let philox = llada_tensor::Philox::new(3, llada_tensor::Stream::Mask);
    let u: Vec<f32> = (0..2 * n)
        .map(|i| philox.uniform_f32([i as u32, 0, 0]))
        .collect();
    let noised = forward_process(&batch, 9, &[0.2, 0.8], &u, None).unwrap();
    let sum: f64 = diffusion_loss_weights(&noised)
        .iter()
        .map(|&w| f64::from(w))
        .sum();
    // The variance of a token's term is (1 - p) / p over the square of the number of tokens.
    let band = 5.0 * ((0.8 / 0.2 + 0.2 / 0.8) / (4.0 * n as f64)).sqrt();
    assert!(
        (sum - 1.0).abs() < band,
        "{sum} is not within {band} of one"
    );
}

#[test]
fn uniform_weights_are_one_over_the_number_of_masked_tokens() {
    let batch = TokenBatch::new(&[vec![1, 2, 3], vec![4]]).unwrap();
    let u = [0.0, 0.9, 0.1, 0.0];
    let noised = forward_process(&batch, 9, &[0.5, 0.25], &u, None).unwrap();
    assert_eq!(uniform_loss_weights(&noised), [1.0 / 3.0; 3]);
}

#[test]
fn no_mask_means_no_weight() {
    let batch = TokenBatch::new(&[vec![1, 2]]).unwrap();
    let noised = forward_process(&batch, 9, &[0.5], &[0.9, 0.9], None).unwrap();
    assert!(diffusion_loss_weights(&noised).is_empty());
    assert!(uniform_loss_weights(&noised).is_empty());
}

#[test]
fn weights_of_fine_tuning_are_one_over_p_the_answer_and_the_batch() {
    // A prompt of 1 and an answer of 3, of which the last pads; an answer of 1.
    let batch = TokenBatch::new(&[vec![1, 2, 3, 4], vec![5]]).unwrap();
    let maskable = [false, true, true, true, true];
    let noised = forward_process(&batch, 9, &[0.5, 0.25], &[0.0; 5], Some(&maskable)).unwrap();
    assert_eq!(noised.positions, [1, 2, 3, 4]);
    let of =
        |weight: f64, t: f32, total: f64| (weight / (f64::from(p_mask(t)) * total * 2.0)) as f32;
    let plain = sft_loss_weights(&noised, &[0.0, 1.0, 1.0, 1.0, 1.0]).unwrap();
    let of_answer = of(1.0, 0.5, 3.0);
    assert_eq!(plain, [of_answer, of_answer, of_answer, of(1.0, 0.25, 1.0)]);
    let light = sft_loss_weights(&noised, &[0.0, 1.0, 1.0, 0.5, 1.0]).unwrap();
    let of_answer = of(1.0, 0.5, 2.5);
    assert_eq!(
        light,
        [of_answer, of_answer, of(0.5, 0.5, 2.5), of(1.0, 0.25, 1.0)]
    );
    assert!(sft_loss_weights(&noised, &[1.0; 4]).is_err());
}
