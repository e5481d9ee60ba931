use super::*;

#[test]
fn names_are_those_of_generate_py() {
    for remasking in Remasking::ALL {
        assert_eq!(
            remasking.to_string().parse::<Remasking>().unwrap(),
            remasking
        );
    }
    assert_eq!(
        "low_confidence".parse::<Remasking>().unwrap(),
        Remasking::LowConfidence
    );
    let error = "best".parse::<Remasking>().unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"unknown remasking "best": expected low_confidence, random, margin, entropy or running_confidence"#
    );
}

#[test]
fn settings_out_of_range_are_errors() {
    #[track_caller]
    fn check(config: &SampleConfig, message: &str) {
        assert_eq!(config.check(7).unwrap_err().to_string(), message);
    }
    let ok = SampleConfig::default();
    ok.check(0).unwrap();
    check(
        &SampleConfig {
            steps: 0,
            ..ok.clone()
        },
        "request 7: steps must be at least 1, got 0",
    );
    check(
        &SampleConfig {
            block_length: Some(0),
            ..ok.clone()
        },
        "request 7: block_length must be at least 1, got 0",
    );
    check(
        &SampleConfig {
            temperature: f64::NAN,
            ..ok.clone()
        },
        "request 7: temperature must be a number, 0 or more, got NaN",
    );
    check(
        &SampleConfig {
            cfg_scale: -1.0,
            ..ok
        },
        "request 7: cfg_scale must be a number, 0 or more, got -1",
    );
}
