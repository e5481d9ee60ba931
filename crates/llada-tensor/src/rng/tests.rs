//! Tests of the generator.

use super::*;

#[test]
fn agrees_with_the_published_vectors() {
    // Random123's kat_vectors, philox4x32 with 10 rounds.
    let ones = u32::MAX;
    assert_eq!(
        philox4x32_10([0; 4], [0; 2]),
        [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
    );
    assert_eq!(
        philox4x32_10([ones; 4], [ones; 2]),
        [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
    );
    assert_eq!(
        philox4x32_10(
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0]
        ),
        [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
    );
}

#[test]
fn uniform_draws_stay_inside_the_open_interval() {
    assert!(unit_f32(0) > 0.0 && unit_f32(u32::MAX) < 1.0);
    assert!(unit_f64(0, 0) > 0.0 && unit_f64(u32::MAX, u32::MAX) < 1.0);
}

#[test]
fn moments_are_those_of_the_distributions() {
    let rng = Philox::new(7, Stream::Test);
    let n = 20_000;
    let uniform: f64 = (0..n).map(|i| f64::from(rng.uniform_f32([i, 0, 0]))).sum();
    assert!((uniform / f64::from(n) - 0.5).abs() < 0.01);
    let square: f64 = (0..n).map(|i| rng.normal_pair([i, 1, 0])[0].powi(2)).sum();
    assert!((square / f64::from(n) - 1.0).abs() < 0.05);
    assert!((0..n).all(|i| rng.below(3, [i, 2, 0]) < 3));
}

#[test]
fn streams_differ() {
    let (a, b) = (Philox::new(1, Stream::Mask), Philox::new(1, Stream::Gumbel));
    assert_ne!(a.words([0, 0, 0]), b.words([0, 0, 0]));
}
