//! The chain rule of an autoregressive model.

use llada_diffusion::{
    MaskPredictor, Query, ScoredSequence, TokenBatch, autoregressive_log_likelihood, nats_per_token,
};
use llada_tensor::{Philox, Stream};
use llada_testkit::ChainPredictor;

fn chain() -> ChainPredictor {
    let philox = Philox::new(3, Stream::Test);
    ChainPredictor::new(
        (0..64)
            .map(|i| 4.0 * philox.uniform_f32([i, 0, 0]))
            .collect(),
    )
}

/// `ln p(next | token)` by the definition.
fn log_probability(chain: &ChainPredictor, token: u32, next: u32) -> f64 {
    let logits = chain.after(token);
    let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
    f64::from(logits[next as usize]) - sum.ln()
}

fn sequences<'a>(tokens: &'a [&'a [u32]], prompt_lens: &[usize]) -> Vec<ScoredSequence<'a>> {
    let pairs = tokens.iter().zip(prompt_lens);
    pairs
        .map(|(&tokens, &prompt_len)| ScoredSequence { tokens, prompt_len })
        .collect()
}

#[test]
fn each_token_is_predicted_by_the_one_before_it() {
    let chain = chain();
    let tokens: [&[u32]; 3] = [&[1, 2, 3, 4, 5], &[5, 0], &[2, 2, 7, 1]];
    let prompt_lens = [2, 1, 3];
    let scored = sequences(&tokens, &prompt_lens);
    let values = autoregressive_log_likelihood(&chain, &scored, 4096).unwrap();
    for ((tokens, prompt_len), values) in tokens.iter().zip(prompt_lens).zip(&values) {
        assert_eq!(values.len(), tokens.len() - prompt_len);
        for (i, value) in values.iter().enumerate() {
            let at = prompt_len + i;
            let expected = log_probability(&chain, tokens[at - 1], tokens[at]);
            assert!((value - expected).abs() < 1e-5, "{value}, not {expected}");
        }
    }
    // How many go together changes nothing.
    for max_batch_tokens in [1, 7] {
        let apart = autoregressive_log_likelihood(&chain, &scored, max_batch_tokens).unwrap();
        assert_eq!(apart, values);
    }
}

#[test]
fn the_likelihood_is_the_sum_of_the_token_losses() {
    let (chain, tokens) = (chain(), [3, 1, 4, 1, 5]);
    let batch = TokenBatch::new(&[tokens]).unwrap();
    let losses = chain.token_losses(Query::new(&batch, &[0, 1, 2, 3]), &tokens[1..]);
    let loss: f64 = losses.unwrap().iter().map(|&x| f64::from(x)).sum();
    let scored = [ScoredSequence {
        tokens: &tokens,
        prompt_len: 1,
    }];
    let values = autoregressive_log_likelihood(&chain, &scored, 64).unwrap();
    let value: f64 = values[0].iter().sum();
    assert!((value + loss).abs() < 1e-9, "{value}, {loss}");
}

#[test]
fn a_first_token_has_no_probability() {
    for (tokens, prompt_len) in [(&[1, 2][..], 0), (&[1, 2], 2), (&[1], 1)] {
        let scored = [ScoredSequence { tokens, prompt_len }];
        let error = autoregressive_log_likelihood(&chain(), &scored, 64).unwrap_err();
        let expected = format!(
            "prompt_len must be at least 1 and less than the length of the sequence, \
             got {prompt_len}"
        );
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn nats_per_token_is_a_ratio_of_sums() {
    // Sums 12 and 6: ratio 2, residuals 2 - 2, 4 - 2 * 3 and 6 - 2 * 2.
    let (ratio, error) = nats_per_token(&[2.0, 4.0, 6.0], &[1, 3, 2]).unwrap();
    assert!((ratio - 2.0).abs() < 1e-12, "{ratio}");
    assert!(
        (error - (8.0_f64 * 1.5).sqrt() / 6.0).abs() < 1e-12,
        "{error}"
    );
    assert_eq!(nats_per_token(&[3.0], &[2]), Some((1.5, 0.0)));
    assert_eq!(nats_per_token(&[], &[]), None);
}
