//! Adding up the lines of launches.

use super::parse;

#[test]
fn launches_of_an_entry_are_added_up() {
    let text = concat!(
        r#"{"kernel":"a","shared_wavefronts":6,"shared_wavefronts_ideal":4,"global_sectors":8,"global_requests":2}"#,
        "\n",
        r#"{"kernel":"b","shared_wavefronts":0,"shared_wavefronts_ideal":0}"#,
        r#"{"kernel":"a","shared_wavefronts":4,"shared_wavefronts_ideal":4,"global_sectors":4,"global_requests":1}"#,
        "\n\n",
    );
    let counters = parse(text).unwrap();
    assert_eq!(counters["a"].conflict_ratio(), Some(1.25));
    assert_eq!(counters["a"].sectors_per_request(), Some(4.0));
    assert_eq!(counters["b"].conflict_ratio(), None);
    assert!(parse("{}").is_err());
}
