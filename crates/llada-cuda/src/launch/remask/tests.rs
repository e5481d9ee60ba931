//! A block per sequence.

use super::*;

#[test]
fn a_block_per_sequence() {
    let plan = remask(3).unwrap();
    assert_eq!((plan.grid, plan.block), ([3, 1, 1], 256));
    assert_eq!(remask(0).unwrap().grid, [0, 1, 1]);
    assert!(remask(1 << 31).is_err());
}
