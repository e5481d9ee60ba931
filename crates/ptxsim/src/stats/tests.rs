use super::Stats;

#[test]
fn banks_that_conflict_take_more_wavefronts() {
    for (stride, wanted) in [(4, 1), (8, 2), (128, 32), (0, 1)] {
        let mut stats = Stats::default();
        stats.count_shared(
            &std::array::from_fn(|lane| lane as u64 * stride),
            u32::MAX,
            4,
        );
        assert_eq!(stats.shared_wavefronts, wanted, "stride {stride}");
        assert_eq!(stats.shared_ideal, 1);
    }
}

#[test]
fn sectors_are_counted_once() {
    let mut stats = Stats::default();
    stats.count_global(&std::array::from_fn(|lane| 4 * lane as u64), u32::MAX, 4);
    assert_eq!((stats.global_requests, stats.global_sectors), (1, 4));
    assert!(
        stats
            .json("k")
            .starts_with("{\"kernel\":\"k\",\"launches\":0,")
    );
}
