use super::*;

/// `.` is given, `m` a mask; blocks are written `start..end*steps`.
#[track_caller]
fn check(canvas: &str, span: Range<usize>, length: Option<usize>, steps: usize, expected: &str) {
    let is_masked: Vec<bool> = canvas.chars().map(|c| c == 'm').collect();
    let found: Vec<String> = blocks(&is_masked, span, length, steps)
        .iter()
        .map(|block| format!("{}..{}*{}", block.range.start, block.range.end, block.steps))
        .collect();
    assert_eq!(found.join(" "), expected);
}

#[test]
fn blocks_share_the_steps() {
    check("..mmmmmmmm", 2..10, Some(4), 6, "2..6*3 6..10*3");
    check("..mmmmmmmm", 2..10, Some(8), 6, "2..10*6");
    check("..mmmmmmmm", 2..10, None, 6, "2..10*6");
    check("..mmmmmmmm", 2..10, Some(usize::MAX), 6, "2..10*6");
}

#[test]
fn the_last_block_may_be_short_and_steps_uneven() {
    check("mmmmmmm", 0..7, Some(3), 7, "0..3*3 3..6*2 6..7*2");
    check("mmmmmmm", 0..7, Some(3), 2, "0..3*1 3..6*1 6..7*0");
}

#[test]
fn blocks_without_masks_take_no_steps() {
    check("mm....mm.m", 0..10, Some(2), 6, "0..2*2 6..8*2 8..10*2");
}
