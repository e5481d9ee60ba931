//! Tests of the plan.

use super::*;

#[test]
fn a_thread_has_a_token() {
    assert_eq!(forward_process(257).unwrap().grid, [2, 1, 1]);
}
