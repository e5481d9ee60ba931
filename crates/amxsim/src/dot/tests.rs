//! The corners of the `f32` operations; whole products are tested through the instructions.

use super::{flush, mul_add};

const MIN: f32 = f32::MIN_POSITIVE;

#[track_caller]
fn check(a: f32, b: f32, c: f32, expected: f32) {
    assert_eq!(mul_add(a, b, c).to_bits(), expected.to_bits());
    assert_eq!(mul_add(b, a, c).to_bits(), expected.to_bits());
    assert_eq!(mul_add(-a, b, -c).to_bits(), (-expected).to_bits());
}

#[test]
fn subnormals_are_zero_of_the_same_sign() {
    for x in [f32::from_bits(1), MIN / 2.0, MIN * (1.0 - f32::EPSILON)] {
        assert_eq!(flush(x).to_bits(), 0);
        assert_eq!(flush(-x).to_bits(), (-0.0f32).to_bits());
    }
    for x in [MIN, 1.0, f32::INFINITY] {
        assert_eq!(flush(x).to_bits(), x.to_bits());
    }
}

#[test]
fn products_below_the_normal_numbers_are_zero() {
    check(MIN, 1.0, 0.0, MIN);
    check(MIN, 0.5, 0.0, 0.0);
    check(MIN * 2.0, 0.5, 0.0, MIN);
    check(MIN, MIN, 0.0, 0.0);
    check(MIN, -0.5, MIN, 0.0);
    check(MIN, 3.0, -2.0 * MIN, MIN);
}

#[test]
fn what_cancels_is_positive() {
    let x = 2.0f32.powi(100);
    for (a, c) in [(x, -1.0), (-x, 1.0)] {
        assert_eq!(mul_add(a, 1.0 / x, c).to_bits(), 0);
    }
}

/// A result in the last half unit below `MIN` is rounded to `MIN` as a subnormal would be; with
/// 24 bits it stays below in the lower half of that range.
#[test]
fn below_is_measured_after_rounding_to_24_bits() {
    let unit = 2.0f32.powi(-24);
    // MIN (1 - 2^-24): a number of 24 bits below MIN.
    check(MIN * 2.0, -unit / 2.0, MIN, 0.0);
    // MIN (1 - 2^-25): halfway between that number and MIN, which is even.
    check(MIN * 2.0, -unit / 4.0, MIN, MIN);
    check(MIN * 2.0, -unit / 8.0, MIN, MIN);
    // A little more than halfway down.
    check(MIN * 2.0, -unit / 4.0 * (1.0 + 1.0 / 128.0), MIN, 0.0);
}

#[test]
fn other_values_are_those_of_a_fused_multiply_add() {
    check(3.0, 5.0, 7.0, 22.0);
    check(f32::INFINITY, 1.0, -1.0, f32::INFINITY);
    check(
        1.0 + f32::EPSILON,
        1.0 - f32::EPSILON,
        -1.0,
        -f32::EPSILON * f32::EPSILON,
    );
    assert!(mul_add(f32::INFINITY, 0.0, 1.0).is_nan());
}
