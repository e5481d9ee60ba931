use super::*;

#[test]
fn a_preset_fills_in_what_is_not_said() {
    let unset = Overrides::default();
    let fast = Preset::Fast.fill(&unset);
    assert_eq!(fast.process, Some(Process::Threshold(0.9)));
    assert_eq!(
        (fast.cache, fast.block_length),
        (Some(CacheMode::Dual), Some(32))
    );
    let balanced = Preset::Balanced.fill(&unset);
    assert_eq!(balanced.process, fast.process);
    assert_eq!(
        (balanced.cache, balanced.block_length),
        (Some(CacheMode::None), Some(32))
    );
    let exact = Preset::Exact.fill(&unset);
    assert_eq!((exact.process, exact.block_length), (None, None));
    assert_eq!(exact.cache, Some(CacheMode::None));
}

#[test]
fn what_is_said_stays() {
    let said = Overrides {
        process: Some(Process::Factor(1.0)),
        cache: Some(CacheMode::Prefix),
        block_length: Some(8),
        gen_length: Some(5),
        ..Overrides::default()
    };
    for preset in Preset::ALL {
        assert_eq!(preset.fill(&said), said);
    }
    let steps = Overrides {
        steps: Some(4),
        ..Overrides::default()
    };
    assert_eq!(Preset::Fast.fill(&steps).process, None);
    let guided = Overrides {
        cfg_scale: 1.0,
        ..Overrides::default()
    };
    assert_eq!(Preset::Fast.fill(&guided).cache, Some(CacheMode::None));
}

#[test]
fn names_are_read_back() {
    for preset in Preset::ALL {
        assert_eq!(preset.to_string().parse::<Preset>().unwrap(), preset);
    }
    let error = "slow".parse::<Preset>().unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"unknown preset "slow": expected fast, balanced or exact"#
    );
}
