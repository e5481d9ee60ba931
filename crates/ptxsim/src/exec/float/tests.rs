use super::{adjust64, direct32, exp2, two_sum};
use crate::isa::Round;

#[test]
fn exp2_is_off_by_two_places_at_most() {
    for i in -1_490_000..1_280_000 {
        let x = i as f32 * 1e-4;
        let (got, want) = (f64::from(exp2(x)), f64::from(x).exp2());
        // A place is 2^-23 of the result, or the smallest subnormal number.
        let place = (want * 2.0_f64.powi(-23)).max(2.0_f64.powi(-149));
        assert!(
            (got - want).abs() <= 2.0 * place,
            "2^{x}: {got:e} for {want:e}"
        );
    }
    assert_eq!(exp2(f32::NEG_INFINITY).to_bits(), 0);
    assert_eq!(exp2(f32::INFINITY).to_bits(), f32::INFINITY.to_bits());
    assert!(exp2(f32::NAN).is_nan());
    assert_eq!(exp2(10.0).to_bits(), 1024.0_f32.to_bits());
}

#[track_caller]
fn check(value: f64, error: f64, round: Round, want: f32) {
    assert_eq!(
        f32::from_bits(direct32(value, error, round)).to_bits(),
        want.to_bits()
    );
}

#[test]
fn sums_round_in_a_direction() {
    let one = 1.0_f32;
    let (sum, error) = two_sum(1.0, 1e-30);
    check(sum, error, Round::Up, one.next_up());
    check(sum, error, Round::Down, one);
    check(sum, error, Round::Zero, one);
    let (sum, error) = two_sum(-1.0, -1e-30);
    check(sum, error, Round::Down, -one.next_up());
    check(sum, error, Round::Zero, -one);
    check(1e300, 0.0, Round::Zero, f32::MAX);
    check(1e300, 0.0, Round::Up, f32::INFINITY);
    assert_eq!(
        adjust64(1.0, -1e-40, Round::Down),
        1.0_f64.next_down().to_bits()
    );
}
