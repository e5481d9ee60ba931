//! The forward process: the tokens that the CPU masks.

use llada_cuda::{ForwardProcessArgs, forward_process};
use llada_diffusion::{TokenBatch, p_mask};
use llada_tensor::{Philox, Stream};

use crate::bounds::same_bits;
use crate::support::{cpu, cuda};

const MASK: u32 = 99;

/// Token `i` is `i`, so that none is lost.
fn batch(lengths: &[u32]) -> TokenBatch {
    let starts = lengths.iter().scan(0, |start, n| {
        *start += n;
        Some(*start - n)
    });
    let sequence = |(start, &n)| (start..start + n).map(|i| 1000 + i).collect::<Vec<u32>>();
    let sequences: Vec<_> = starts.zip(lengths).map(sequence).collect();
    TokenBatch::new(&sequences).unwrap()
}

/// The draws of `llada_train::step`.
fn draws(seed: u64, step: u64, batch: &TokenBatch) -> (Vec<f32>, Vec<f32>) {
    let [low, high] = [step, step >> 32].map(|word| word as u32);
    let ratio = Philox::new(seed, Stream::MaskRatio);
    let slots = 0..batch.n_sequences();
    let t = slots.map(|slot| ratio.uniform_f32([low, high, slot as u32]));
    let mask = Philox::new(seed, Stream::Mask);
    let u = batch.sequences().enumerate().flat_map(|(slot, sequence)| {
        (0..sequence.len()).map(move |at| mask.uniform_f32([at as u32, slot as u32, low]))
    });
    (t.collect(), u.collect())
}

#[track_caller]
fn check(lengths: &[u32], step: u64, t: Option<&[f32]>, is_maskable: Option<fn(usize) -> bool>) {
    let Some(cuda) = cuda() else { return };
    let seed = 0x1234_5678_9abc_def0;
    let batch = batch(lengths);
    let (drawn, u) = draws(seed, step, &batch);
    let flags: Option<Vec<bool>> =
        is_maskable.map(|is_maskable| (0..batch.n_tokens()).map(is_maskable).collect());
    let expected =
        llada_diffusion::forward_process(&batch, MASK, t.unwrap_or(&drawn), &u, flags.as_deref())
            .unwrap();
    let args = ForwardProcessArgs {
        ids: batch.ids(),
        offsets: batch.offsets(),
        t,
        maskable: flags.as_deref(),
        mask_token_id: MASK,
        seed,
        step,
    };
    let got = forward_process(&cuda, args).unwrap();
    assert_eq!(got.ids, expected.batch.ids());
    let mut p = vec![0.0; batch.n_tokens()];
    for (&at, &p_mask) in expected.positions.iter().zip(&expected.p_mask) {
        p[at] = p_mask;
    }
    same_bits("p_mask", &got.p_mask, &p);
}

#[test]
fn masks_what_the_cpu_masks() {
    check(&[], 0, None, None);
    check(&[1], 1, None, None);
    check(&[700, 3, 1, 258, 33], 5, None, None);
    check(&[40; 33], 1 << 33, None, None);
    check(&[300, 200], 7, Some(&[0.0, 1.0]), None);
    check(&[300, 200], 7, Some(&[0.25, 0.5]), Some(|at| at % 3 != 0));
}

#[test]
fn the_smallest_probability_is_that_of_the_reference() {
    let Some(cuda) = cuda() else { return };
    let args = ForwardProcessArgs {
        ids: &[5; 5000],
        offsets: &[0, 5000],
        t: Some(&[0.0]),
        maskable: None,
        mask_token_id: MASK,
        seed: 1,
        step: 0,
    };
    let noised = forward_process(&cuda, args).unwrap();
    let masked = noised.p_mask.iter().filter(|&&p| p > 0.0);
    assert!(masked.clone().count() > 0);
    assert!(
        masked
            .into_iter()
            .all(|p| p.to_bits() == p_mask(0.0).to_bits())
    );
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let Some(cuda) = cuda() else { return };
    let good = ForwardProcessArgs {
        ids: &[1, 2, 3],
        offsets: &[0, 1, 3],
        t: Some(&[0.5, 0.5]),
        maskable: Some(&[true; 3]),
        mask_token_id: MASK,
        seed: 1,
        step: 0,
    };
    assert!(forward_process(&cuda, good).is_ok());
    assert!(forward_process(&cpu(), good).is_err(), "another device");
    let refused = |args| assert!(forward_process(&cuda, args).is_err(), "{args:?}");
    for offsets in [&[][..], &[0, 1, 2], &[1, 2, 3], &[0, 2, 1, 3]] {
        refused(ForwardProcessArgs { offsets, ..good });
    }
    for t in [&[0.5][..], &[0.5, 1.5], &[f32::NAN, 0.5]] {
        let t = Some(t);
        refused(ForwardProcessArgs { t, ..good });
    }
    let maskable = Some(&[true; 2][..]);
    refused(ForwardProcessArgs { maskable, ..good });
}
