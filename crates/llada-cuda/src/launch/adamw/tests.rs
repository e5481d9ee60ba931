//! Tests of the plans.

use super::*;

#[test]
fn an_update_takes_four_elements_per_thread() {
    assert_eq!(adamw(1025).unwrap().grid, [2, 1, 1]);
}

#[test]
fn the_number_of_partial_sums_is_bounded() {
    let blocks = |n| sum_of_squares(n).unwrap().grid[0];
    assert_eq!([0, 1, 4096, 4097].map(blocks), [0, 1, 1, 2]);
    assert_eq!(blocks(1 << 33), 1024);
    assert_eq!(totals(3).unwrap().grid, [3, 1, 1]);
}
