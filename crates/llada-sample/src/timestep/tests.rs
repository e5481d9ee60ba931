use super::*;

/// Numbers of a run in which every mask that is taken is filled.
#[track_caller]
fn check(masks: usize, steps: usize, eps: f32, expected: &[usize]) {
    let mut left = masks;
    let numbers: Vec<usize> = (0..steps)
        .map(|step| {
            let n = number(left, share(step, steps, eps));
            left -= n;
            n
        })
        .collect();
    assert_eq!(numbers, expected);
}

#[test]
fn numbers_are_those_of_torch() {
    check(16, 8, 1e-3, &[1, 2, 2, 2, 2, 2, 2, 3]);
    check(18, 7, 0.05, &[2, 2, 2, 2, 2, 3, 5]);
    // As many steps as masks: the first takes none.
    check(14, 14, 1e-3, &[0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2]);
    check(
        11,
        20,
        1e-3,
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2],
    );
    check(9, 1, 1e-3, &[9]);
    check(100, 12, 1e-3, &[8, 8, 8, 8, 8, 8, 8, 8, 8, 9, 9, 10]);
}

#[test]
fn time_has_the_bits_of_torch_linspace() {
    /// FNV-1a over the bytes of `torch.linspace(1, eps, steps + 1)`, of torch 2.15 on a CPU.
    #[track_caller]
    fn check(steps: usize, eps: f32, expected: u64) {
        let bytes = (0..=steps).flat_map(|i| time(i, steps, eps).to_le_bytes());
        let hash = bytes.fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        assert_eq!(hash, expected, "{steps} steps to {eps}");
    }
    check(14, 1e-3, 0x555D_B4C2_02CF_A823);
    check(20, 0.05, 0x5D5B_8BFA_EBFB_93A9);
    check(512, 1e-3, 0x7A0E_75DB_2CD6_23A3);
}

#[test]
fn time_goes_from_one_to_eps() {
    for steps in 1..40 {
        assert_eq!(time(0, steps, 1e-3).to_bits(), 1.0_f32.to_bits());
        assert_eq!(time(steps, steps, 1e-3).to_bits(), 1e-3_f32.to_bits());
        let shares: Vec<f32> = (0..steps).map(|step| share(step, steps, 1e-3)).collect();
        assert!(shares.is_sorted() && shares.iter().all(|share| *share > 0.0));
    }
}
