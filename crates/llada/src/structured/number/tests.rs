use serde_json::{Number, Value};

use super::{Bound, NumberRule};

fn bound(text: &str) -> Bound {
    let (is_exclusive, text) = match text.strip_prefix('!') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let number: Number = serde_json::from_str(text).expect("a number");
    Bound {
        number,
        is_exclusive,
    }
}

fn rule(is_integer: bool, least: &[&str], most: &[&str]) -> Option<NumberRule> {
    let [least, most] = [least, most].map(|texts| texts.iter().map(|text| bound(text)).collect());
    let (least, most): (Vec<Bound>, Vec<Bound>) = (least, most);
    NumberRule::new(is_integer, &least, &most)
}

/// All numbers of a rule, by extending what it says can be extended.
fn all(rule: &NumberRule) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), vec![String::new()]);
    while let Some(text) = open.pop() {
        let next = "-.0123456789".chars().map(|c| format!("{text}{c}"));
        let next: Vec<String> = next.filter(|text| rule.begins(text)).collect();
        // What can begin a number can be ended or go on.
        assert!(rule.is_complete(&text) || !next.is_empty(), "{text:?}");
        assert!(text.len() <= rule.length());
        if rule.is_complete(&text) {
            found.push(text);
        }
        open.extend(next);
    }
    found
}

/// The integers between bounds, each once and as JSON.
#[track_caller]
fn check_integers(least: &[&str], most: &[&str], expected: impl Iterator<Item = i64>) {
    let rule = rule(true, least, most).expect("a rule");
    let mut found: Vec<i64> = (all(&rule).iter())
        .map(|text| serde_json::from_str(text).expect("a JSON integer"))
        .collect();
    found.sort_unstable();
    assert_eq!(found, expected.collect::<Vec<_>>());
}

#[test]
fn the_integers_between_bounds_can_be_written_and_no_others() {
    check_integers(&["0"], &["99"], 0..=99);
    check_integers(&["1"], &["5"], 1..=5);
    check_integers(&["7"], &["7"], 7..=7);
    check_integers(&["17"], &["2043"], 17..=2043);
    check_integers(&["-12"], &["3"], -12..=3);
    check_integers(&["-120"], &["-7"], -120..=-7);
    check_integers(&["-0.5"], &["0.5"], 0..=0);
    check_integers(&["!0"], &["!10"], 1..=9);
    check_integers(&["!0.5", "3"], &["!8.5", "1e3"], 3..=8);
    check_integers(&["-2.5"], &["2.5e0"], -2..=2);
    check_integers(&["!-3"], &["!-0.0"], -2..=-1);
}

#[test]
fn a_number_without_bounds_has_some_digits() {
    let open = rule(true, &[], &[]).expect("a rule");
    for text in ["0", "7", "-1", "999999", "-999999"] {
        assert!(open.is_complete(text), "{text}");
    }
    for text in ["", "-", "-0", "007", "1000000", "1.0", "1e3", "+1", " 1"] {
        assert!(!open.is_complete(text), "{text}");
    }
    // A bound may have more.
    let large = rule(true, &["123456789"], &[]).expect("a rule");
    assert!(large.is_complete("123456789") && !large.is_complete("123456788"));
    assert!(!large.begins("9") || large.is_complete("900000000"));
}

#[test]
fn the_numbers_between_bounds_can_be_written_and_no_others() {
    for (least, most) in [
        ("0", "1"),
        ("-0.25", "0.1"),
        ("0.9995", "1.0005"),
        ("!1", "!1.01"),
    ] {
        let rule = rule(false, &[least], &[most]).expect("a rule");
        let found = all(&rule);
        let is_in = |x: f64| {
            let [least, most] = [least, most].map(bound);
            let [low, high] = [&least, &most].map(|b| b.number.as_f64().expect("a number"));
            (x > low || !least.is_exclusive && x >= low)
                && (x < high || !most.is_exclusive && x <= high)
        };
        let mut values: Vec<i64> = Vec::new();
        for text in &found {
            let value: Value = serde_json::from_str(text).expect("JSON");
            let x = value.as_f64().expect("a number");
            assert!(is_in(x), "{text}");
            values.push((x * 1000.0).round() as i64);
        }
        values.sort_unstable();
        values.dedup();
        let expected = (-2000..2000).filter(|&at| is_in(at as f64 / 1000.0));
        assert_eq!(values, expected.collect::<Vec<i64>>(), "{least} to {most}");
    }
}

#[test]
fn bounds_without_a_number_between_them_are_no_rule() {
    for (is_integer, least, most) in [
        (true, "1", "0"),
        (true, "0.2", "0.8"),
        (true, "!1", "!2"),
        (false, "0.0002", "0.0008"),
        (true, "1e20", "1e21"),
        (true, "-1e300", "-1e299"),
    ] {
        assert_eq!(
            rule(is_integer, &[least], &[most]),
            None,
            "{least} to {most}"
        );
    }
    let wide = rule(false, &["-1e300"], &["1e300"]).expect("a rule");
    assert!(wide.is_complete("-999999999999999.999") && !wide.begins("1000000000000000"));
}
