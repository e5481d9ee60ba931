use super::*;

#[test]
fn the_first_steps_take_the_remainder() {
    assert_eq!(num_transfer_tokens(10, 4), [3, 3, 2, 2]);
    assert_eq!(num_transfer_tokens(2, 4), [1, 1, 0, 0]);
    assert_eq!(num_transfer_tokens(0, 2), [0, 0]);
    assert!(num_transfer_tokens(3, 0).is_empty());
}

#[test]
fn quotas_add_up_and_never_grow() {
    for masked in 0..50 {
        for steps in 1..20 {
            let quotas = num_transfer_tokens(masked, steps);
            assert_eq!(quotas.iter().sum::<usize>(), masked);
            assert!(quotas.is_sorted_by(|a, b| a >= b));
            assert!(quotas[0] - quotas[steps - 1] <= 1);
        }
    }
}
