//! How cuBLAS sees operands: every element where it is.

use super::{Side, alignment};
use crate::product::Operand;

/// The matrix `[outer, k]` with these strides, as a matrix with columns inside.
#[track_caller]
fn check(outer: (usize, usize), k: (usize, usize), k_inside: bool) {
    let side = Side::of(&Operand::rows(64, 1), outer, k).expect("neighbors are next to each other");
    assert_eq!(side.k_inside, k_inside);
    let leading = usize::try_from(side.leading).expect("positive");
    let [inner_size, outer_size] =
        [side.inner, side.outer].map(|size| usize::try_from(size).expect("small"));
    let sizes = if k_inside {
        (k.0, outer.0)
    } else {
        (outer.0, k.0)
    };
    assert_eq!((inner_size, outer_size), sizes);
    assert!(leading >= inner_size, "{side:?}");
    for row in 0..outer.0 {
        for column in 0..k.0 {
            let (inner, outer_at) = if k_inside {
                (column, row)
            } else {
                (row, column)
            };
            let expected = row * outer.1 + column * k.1;
            assert_eq!(
                inner + outer_at * leading,
                expected,
                "{side:?} {row} {column}"
            );
        }
    }
}

#[test]
fn elements_are_where_they_are() {
    check((3, 5), (5, 1), true);
    check((3, 9), (5, 1), true);
    check((3, 1), (5, 3), false);
    check((3, 1), (5, 7), false);
    // Axes of one element have strides that say nothing.
    check((1, 2), (5, 1), true);
    check((3, 4), (1, 77), true);
    check((1, 77), (5, 3), false);
    check((1, 0), (1, 0), true);
}

#[test]
fn what_has_no_neighbors_next_to_each_other_is_left_to_the_kernels() {
    assert!(Side::of(&Operand::rows(64, 1), (3, 10), (5, 2)).is_none());
    // Rows that overlap.
    assert!(Side::of(&Operand::rows(64, 1), (3, 2), (5, 1)).is_none());
}

#[test]
fn alignment_is_that_of_the_address() {
    assert_eq!([512, 256, 20, 6].map(alignment), [256, 256, 4, 2]);
}
