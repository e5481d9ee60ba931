//! Tests of the quantisers.

use super::*;
use crate::{Philox, Stream};

fn normal(n: usize) -> Vec<f32> {
    let philox = Philox::new(5, Stream::Init);
    (0..n)
        .map(|i| philox.normal_pair([u32::try_from(i).unwrap_or(0), 0, 0])[0] as f32)
        .collect()
}

fn relative_error(row: &[f32], of: impl Fn(usize) -> f32) -> f32 {
    let error: f32 = row
        .iter()
        .enumerate()
        .map(|(k, x)| (x - of(k)).powi(2))
        .sum();
    (error / row.iter().map(|x| x * x).sum::<f32>()).sqrt()
}

#[test]
fn int8_is_within_half_a_step() {
    let row = normal(1000);
    let mut codes = vec![0; 1000];
    let scale = int8_row(&row, &mut codes);
    for (x, &q) in row.iter().zip(&codes) {
        assert!(
            (x - f32::from(q) * scale).abs() <= 0.5001 * scale,
            "{x} {q}"
        );
    }
    assert_eq!(codes.iter().map(|q| q.unsigned_abs()).max(), Some(127));
}

#[test]
fn int8_codes_of_codes_are_the_same() {
    let row = normal(300);
    let (mut codes, mut again) = (vec![0; 300], vec![0; 300]);
    let scale = int8_row(&row, &mut codes);
    let back: Vec<f32> = codes.iter().map(|&q| f32::from(q) * scale).collect();
    let _ = int8_row(&back, &mut again);
    assert_eq!(codes, again);
}

/// Nearest rounding with a free scale per group (`max / -8`, as in `Q4_0`) is the mark to beat.
#[test]
fn int4_beats_round_to_nearest() {
    let (mut fitted, mut nearest) = (0.0, 0.0);
    for row in normal(1 << 16).chunks(4096) {
        let (of_fit, of_nearest) = int4_errors(row);
        fitted += of_fit;
        nearest += of_nearest;
    }
    assert!(fitted < 0.985 * nearest, "{fitted} against {nearest}");
}

fn int4_errors(row: &[f32]) -> (f32, f32) {
    let (mut codes, mut multipliers) = (vec![0; 4096], vec![0; 128]);
    let scale = int4_row(row, &mut codes, &mut multipliers);
    assert!(codes.iter().all(|q| (-8..=7).contains(q)));
    assert!(multipliers.iter().all(|m| (1..=15).contains(&m.abs())));
    let fitted = relative_error(row, |k| {
        f32::from(codes[k]) * f32::from(multipliers[k / INT4_GROUP]) * scale
    });
    let nearest = relative_error(row, |k| {
        let group = &row[k / 32 * 32..][..32];
        let end = group
            .iter()
            .fold(0.0_f32, |a, &b| if b.abs() > a.abs() { b } else { a });
        let d = end / -8.0;
        (row[k] / d).round().clamp(-8.0, 7.0) * d
    });
    (fitted, nearest)
}

#[test]
fn zeros_and_values_that_are_not_finite() {
    let (mut codes, mut multipliers) = ([1; 40], [1; 2]);
    assert!(int8_row(&[0.0; 40], &mut codes).abs() < f32::MIN_POSITIVE);
    assert_eq!(codes, [0; 40]);
    assert!(int4_row(&[0.0; 40], &mut codes, &mut multipliers).abs() < f32::MIN_POSITIVE);
    for bad in [f32::NAN, f32::INFINITY] {
        let mut row = [0.5; 40];
        row[33] = bad;
        assert!(int8_row(&row, &mut codes).is_nan());
        assert!(int4_row(&row, &mut codes, &mut multipliers).is_nan());
    }
}

#[test]
fn a_rotation_is_its_own_inverse_and_keeps_products() {
    let (x, y) = (normal(128), normal(256));
    let y = &y[128..];
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(a, b)| a * b).sum::<f32>();
    let (mut rotated, mut other) = (x.clone(), y.to_vec());
    rotate(&mut rotated);
    rotate(&mut other);
    assert!((dot(&rotated, &other) - dot(&x, y)).abs() < 1e-4);
    rotate(&mut rotated);
    for (a, b) in x.iter().zip(&rotated) {
        assert!((a - b).abs() < 1e-6);
    }
    let mut spike = vec![0.0; 64];
    spike[5] = 8.0;
    rotate(&mut spike);
    assert!(spike.iter().all(|x| (x.abs() - 1.0).abs() < f32::EPSILON));
}
