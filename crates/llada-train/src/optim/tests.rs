use super::*;

#[test]
fn clipping_only_shortens() {
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} and {b}");
    near(clip_coefficient(1.0, 4.0), 0.25);
    near(clip_coefficient(1.0, 0.5), 1.0);
    near(clip_coefficient(1.0, 0.0), 1.0);
    near(clip_coefficient(0.0, 1e9), 1.0);
}
