use super::*;

const MASK: u32 = 9;

#[test]
fn p_mask_goes_from_eps_to_one() {
    assert_eq!(p_mask(0.0).to_bits(), EPS.to_bits());
    assert_eq!(p_mask(1.0).to_bits(), 1.0_f32.to_bits());
    assert_eq!(p_mask(0.5).to_bits(), 0.5005_f32.to_bits());
}

#[test]
fn tokens_whose_draw_is_below_p_are_masked() {
    let batch = TokenBatch::new(&[vec![1, 2, 3], vec![4, 5]]).unwrap();
    // p is 0.5005 and 0.25075; a draw equal to p does not mask.
    let u = [0.5, p_mask(0.5), 0.0, 0.2507, 0.2508];
    let noised = forward_process(&batch, MASK, &[0.5, 0.25], &u, None).unwrap();
    assert_eq!(noised.batch.ids(), [MASK, 2, MASK, MASK, 5]);
    assert_eq!(noised.batch.offsets(), batch.offsets());
    assert_eq!(noised.positions, [0, 2, 3]);
    assert_eq!(noised.targets, [1, 3, 4]);
    assert_eq!(noised.p_mask, [p_mask(0.5), p_mask(0.5), p_mask(0.25)]);
}

#[test]
fn prompts_are_never_masked() {
    let batch = TokenBatch::new(&[vec![1, 2, 3, 4]]).unwrap();
    let maskable = [false, false, true, true];
    let noised = forward_process(&batch, MASK, &[1.0], &[0.0; 4], Some(&maskable)).unwrap();
    assert_eq!(noised.batch.ids(), [1, 2, MASK, MASK]);
    assert_eq!(noised.positions, [2, 3]);
}

#[test]
fn the_share_of_masks_is_p() {
    let n = 100_000;
    let batch = TokenBatch::new(&[vec![1; n]]).unwrap();
    let philox = llada_tensor::Philox::new(3, llada_tensor::Stream::Mask);
    let u: Vec<f32> = (0..n)
        .map(|i| philox.uniform_f32([i as u32, 0, 0]))
        .collect();
    for t in [0.0, 0.1, 0.5, 0.9, 1.0] {
        let noised = forward_process(&batch, MASK, &[t], &u, None).unwrap();
        let p = f64::from(p_mask(t));
        let share = noised.positions.len() as f64 / n as f64;
        // Five standard deviations of a binomial share.
        let band = 5.0 * (p * (1.0 - p) / n as f64).sqrt();
        assert!(
            (share - p).abs() <= band,
            "t = {t}: share {share}, expected {p} within {band}"
        );
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let batch = TokenBatch::new(&[vec![1, 2], vec![3]]).unwrap();
    #[track_caller]
    fn check(result: Result<Noised>, message: &str) {
        assert_eq!(result.unwrap_err().to_string(), message);
    }
    let run = |t: &[f32], u: &[f32]| forward_process(&batch, MASK, t, u, None);
    check(run(&[0.5], &[0.5; 3]), "noise levels t: expected 2, got 1");
    check(
        run(&[0.5; 2], &[0.5; 2]),
        "uniform draws u: expected 3, got 2",
    );
    check(run(&[0.5, 1.5], &[0.5; 3]), "t must be in [0, 1], got 1.5");
    check(
        run(&[f32::NAN, 0.5], &[0.5; 3]),
        "t must be in [0, 1], got NaN",
    );
    check(
        forward_process(&batch, MASK, &[0.5; 2], &[0.5; 3], Some(&[true])),
        "maskable flags: expected 3, got 1",
    );
}
