//! Tests of means and their errors.

use super::*;

#[track_caller]
fn close(x: f64, expected: f64) {
    assert!((x - expected).abs() < 1e-12, "{x}, expected {expected}");
}

#[test]
fn an_accuracy_has_the_error_of_a_proportion() {
    let figure = Figure::accuracy(&[true, false, false, true, false]).unwrap();
    close(figure.mean, 0.4);
    close(figure.standard_error, (0.4_f64 * 0.6 / 5.0).sqrt());
    assert_eq!(figure.n, 5);
    close(Figure::accuracy(&[true; 9]).unwrap().standard_error, 0.0);
    assert_eq!(Figure::accuracy(&[]), None);
}

#[test]
fn a_mean_has_the_error_of_a_sample() {
    let figure = Figure::mean(&[1.0, 2.0, 6.0]).unwrap();
    close(figure.mean, 3.0);
    close(figure.standard_error, (7.0_f64 / 3.0).sqrt());
    close(Figure::mean(&[5.0]).unwrap().standard_error, 0.0);
    assert_eq!(Figure::mean(&[]), None);
}

#[test]
fn a_gap_is_paired() {
    // Differences 1, 0, 0, 1: mean 1/2, variance 1/3.
    let gap = Gap::paired(&[true, true, false, true], &[false, true, false, false]).unwrap();
    close(gap.mean, 0.5);
    close(gap.standard_error, (1.0_f64 / 12.0).sqrt());
    // What two outcomes share does not count as noise.
    let same = Gap::paired(&[true, false, true], &[true, false, true]).unwrap();
    close(same.mean, 0.0);
    close(same.standard_error, 0.0);
}
