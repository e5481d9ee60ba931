//! Tests of the words.

use super::tokens;

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let found: Vec<&str> = tokens(text).iter().map(|token| token.text).collect();
    assert_eq!(found, expected);
}

#[test]
fn words_and_signs_remain() {
    check(
        "pub fn a_1(x: u8)",
        &["pub", "fn", "a_1", "(", "x", ":", "u8", ")"],
    );
    check("", &[]);
}

#[test]
fn comments_are_left_out() {
    check("a // b\nc", &["a", "c"]);
    check("/// b\na //", &["a"]);
    check("a /* b /* c */ d \u{e9} */ e", &["a", "e"]);
    check("a /* b", &["a"]);
}

#[test]
fn literals_are_left_out() {
    check(r#"a "b \" c" d"#, &["a", "d"]);
    check("a r\"b\\\" c", &["a", "c"]);
    check("a br##\"b \"# c\"## d", &["a", "d"]);
    check("a b\"b\" c\"c\" b'b' d", &["a", "d"]);
    check(r"a 'b' '\'' '\u{e9}' '\\' c", &["a", "c"]);
    check("&'a b", &["&", "a", "b"]);
    check("a \"b", &["a"]);
}

#[test]
fn lines_are_counted_across_comments_and_literals() {
    let found = tokens("a\n/*\n*/ b \"\n\" c\n");
    let lines: Vec<usize> = found.iter().map(|token| token.line).collect();
    assert_eq!(lines, [1, 3, 4]);
}
