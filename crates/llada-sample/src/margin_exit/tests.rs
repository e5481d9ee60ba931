use super::*;

#[test]
fn the_mean_margin_is_compared_with_a_bar_that_falls() {
    #[track_caller]
    fn check(fall: f32, mask_ratio: f32, expected: bool) {
        let margins = [1.0, 0.5, 0.75].into_iter();
        let exit = MarginExit {
            margin: 0.875,
            fall,
        };
        assert_eq!(exit.is_reached(margins, mask_ratio), expected);
    }
    // The mean is 0.75.
    check(0.0, 1.0, false);
    check(0.0, 0.0, false);
    check(0.5, 1.0, false);
    // 0.875 (1 - 0.5 / 4) = 0.766 and 0.875 (1 - 0.5 / 2) = 0.656
    check(0.5, 0.75, false);
    check(0.5, 0.5, true);
    check(1.0, 0.0, true);
}

#[test]
fn a_step_that_asks_nothing_ends_nothing() {
    let exit = MarginExit {
        margin: 0.0,
        fall: 0.0,
    };
    assert!(!exit.is_reached(std::iter::empty(), 1.0));
    assert!(exit.is_reached([0.0].into_iter(), 1.0));
}
