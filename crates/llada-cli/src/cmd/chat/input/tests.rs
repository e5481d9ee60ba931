//! Tests of messages of several lines.

use super::*;

fn joined(lines: &[&str]) -> Result<Vec<Typed>> {
    let mut lines = lines.iter();
    let mut all = Vec::new();
    loop {
        let typed = join(|_| {
            Ok(match lines.next() {
                Some(&"^C") => Typed::Interrupted,
                Some(line) => Typed::Text((*line).to_owned()),
                None => Typed::End,
            })
        })?;
        if typed == Typed::End {
            return Ok(all);
        }
        all.push(typed);
    }
}

#[track_caller]
fn check(lines: &[&str], expected: &[&str]) {
    let expected: Vec<Typed> = expected
        .iter()
        .map(|text| Typed::Text((*text).to_owned()))
        .collect();
    assert_eq!(joined(lines).expect("lines"), expected);
}

#[test]
fn lines_are_joined_as_they_ask_for() {
    check(&["a", "b"], &["a", "b"]);
    check(&["a\\", "b\\", "c", "d"], &["a\nb\nc", "d"]);
    check(&["a\\"], &["a"]);
    check(&["\"\"\"a\"\"\"", "b"], &["a", "b"]);
    check(
        &["\"\"\"", "a\\", "", "b", "\"\"\"", "c"],
        &["a\\\n\nb", "c"],
    );
    check(&["\"\"\"a", "b\"\"\""], &["a\nb"]);
}

#[test]
fn a_quoted_text_needs_an_end_and_can_be_given_up() {
    let error = joined(&["\"\"\"a", "b"]).expect_err("no end").to_string();
    assert!(error.contains("has no"), "{error}");
    let all = joined(&["a\\", "^C", "\"\"\"b", "^C", "c"]).expect("lines");
    let expected = [
        Typed::Interrupted,
        Typed::Interrupted,
        Typed::Text("c".into()),
    ];
    assert_eq!(all, expected);
}
