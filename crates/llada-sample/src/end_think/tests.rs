use super::*;

/// The boosted token at the end of what is written, with `</think>` = 7 8 9, and its boost in an
/// answer of 8 tokens.
#[track_caller]
fn check(answer: &[u32], at: usize, expected: Option<(u32, f32)>) {
    let end_think = EndThink {
        token_ids: vec![7, 8, 9],
        logit_boost: 64.0,
        power: 2.0,
    };
    assert_eq!(end_think.boost(answer, at, 8), expected);
}

#[test]
fn the_next_token_of_the_sequence_is_boosted() {
    check(&[0; 8], 0, Some((7, 1.0)));
    check(&[1, 2, 3, 0], 3, Some((7, 16.0)));
    check(&[1, 2, 7, 0], 3, Some((8, 16.0)));
    check(&[1, 7, 8, 0], 3, Some((9, 16.0)));
    check(&[8, 8, 8, 0], 3, Some((7, 16.0)));
    // The prompt does not count.
    check(&[0, 0], 0, Some((7, 1.0)));
    // No more than the whole boost, however long an answer is.
    check(&[1; 20], 15, Some((7, 64.0)));
}

#[test]
fn nothing_is_boosted_once_the_sequence_is_written() {
    check(&[1, 7, 8, 9, 0], 4, None);
    check(&[0, 7, 8, 9], 0, None);
    check(&[0, 7, 0, 9], 0, Some((7, 1.0)));
}
