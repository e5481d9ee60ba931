use super::*;

/// A run whose loss falls from 8 to 5 with much noise.
fn lines(n: u64) -> Vec<MetricsLine> {
    let line = |i: u64| {
        let progress = i as f64 / n as f64;
        let noise = ((i * 7919) % 101) as f64 / 101.0 - 0.5;
        let validation = (i.is_multiple_of(50)).then_some(5.2 + 2.8 * (-4.0 * progress).exp());
        MetricsLine {
            skipped: 0,
            step: i * 10,
            loss: 5.0 + 3.0 * (-5.0 * progress).exp() + 1.5 * noise,
            lr: 1e-3,
            grad_norm: 1.0,
            tokens: i * 20_480,
            tokens_per_second: 9000.0,
            seconds: i as f64,
            validation_bound: validation,
            validation_standard_error: validation.map(|_| 0.05),
        }
    };
    (1..=n).map(line).collect()
}

#[test]
fn picture_has_named_axes_and_series() {
    let svg = loss_svg(&lines(600), LossWeight::InverseP).unwrap();
    for text in [
        "optimizer step",
        "nats per token",
        "training loss",
        "held-out bound",
    ] {
        assert!(svg.contains(text), "{text}");
    }
    assert!(svg.ends_with("</svg>\n") || svg.ends_with("</svg>"));
}

#[test]
fn the_legend_says_where_the_sums_differ() {
    let svg = loss_svg(&lines(60), LossWeight::Uniform).unwrap();
    assert!(svg.contains("another sum than the bound"));
}

#[test]
fn picture_of_a_long_run_is_small() {
    assert!(
        loss_svg(&lines(50_000), LossWeight::InverseP)
            .unwrap()
            .len()
            < 150_000
    );
}

#[test]
fn bins_keep_mean_and_ends() {
    let raw: Vec<Point> = (1..=10).map(|i| (f64::from(i), f64::from(i))).collect();
    assert_eq!(binned(&raw, 20), raw);
    let bins = binned(&raw, 4);
    assert_eq!(bins, [(3.0, 2.0), (6.0, 5.0), (9.0, 8.0), (10.0, 10.0)]);
}

#[test]
fn thinned_points_end_with_the_last() {
    assert_eq!(
        thinned((1..=10).collect(), 10),
        (1..=10).collect::<Vec<_>>()
    );
    assert_eq!(thinned((1..=10).collect(), 4), [1, 4, 7, 10]);
    assert_eq!(thinned((1..=11).collect(), 4), [2, 5, 8, 11]);
    assert!(thinned(Vec::<u8>::new(), 4).is_empty());
}

#[test]
fn picture_of_a_short_run_is_drawn() {
    for n in 0..4 {
        assert!(
            loss_svg(&lines(n), LossWeight::InverseP)
                .unwrap()
                .contains("<svg"),
            "{n}"
        );
    }
}

#[test]
fn rare_spikes_do_not_flatten_the_curve() {
    let mut lines = lines(600);
    lines[77].loss = 1e6;
    let raw: Vec<Point> = lines
        .iter()
        .map(|line| (line.step as f64, line.loss))
        .collect();
    let (low, high) = y_range(&raw, &[], &[]);
    assert!(low > 3.0 && high < 10.0, "{low} {high}");
}
