//! Tests of the settings.

use super::*;

fn of(flags: &[&str]) -> Settings {
    let line = ["llada", "chat"].iter().chain(flags).map(OsString::from);
    Settings::of_command_line(line).expect("a command line")
}

#[test]
fn they_begin_with_the_flags_of_the_command_line() {
    let settings = of(&["--temp", "0.5", "-n", "12", "--strict", "--model", "x"]);
    let text = settings.to_string();
    assert_eq!(
        text,
        "--early-stop --gen-length 12 --strict --temperature 0.5"
    );
    let args = settings.parse().expect("flags");
    assert_eq!(args.gen_length, Some(12));
    assert!(args.sampler.strict && args.sampler.early_stop);
    assert!((args.sampler.temperature - 0.5).abs() < f64::EPSILON);
}

#[test]
fn a_change_has_the_name_of_the_flag_in_any_spelling() {
    let names = ["gen_length", "gen-length", "--gen-length", "max_new_tokens"];
    for name in names {
        let settings = of(&[]).with(name, "7").expect("a setting");
        assert_eq!(settings.parse().expect("flags").gen_length, Some(7));
    }
    let settings = of(&["--seed", "3"]).with("seed", "default");
    assert_eq!(settings.expect("a setting"), of(&[]));
    let settings = of(&[]).with("early_stop", "off").expect("a setting");
    assert!(!settings.parse().expect("flags").sampler.early_stop);
}

#[track_caller]
fn fails(name: &str, value: &str, parts: &[&str]) {
    let parsed = of(&["--factor", "1"])
        .with(name, value)
        .and_then(|settings| settings.parse());
    let error = parsed.expect_err("no setting").to_string();
    for part in parts {
        assert!(error.contains(part), "no {part:?} in {error}");
    }
}

#[test]
fn a_wrong_value_has_the_error_of_the_flag() {
    fails("temperature", "hot", &["'hot'", "--temperature"]);
    fails("threshold", "0.9", &["--threshold", "--factor"]);
    fails("early_stop", "maybe", &["on or off"]);
    fails("heat", "1", &["no such setting", "temperature"]);
    fails("trace", "x", &["no such setting"]);
}
