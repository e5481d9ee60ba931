//! Tests of the rules on source text.

use super::{File, check};

#[track_caller]
fn check_source(path: &str, text: &str, expected: &[&str]) {
    let file = File {
        path: path.to_owned(),
        bytes: 0,
        text: Some(text.to_owned()),
    };
    let lines: Vec<String> = check(&[file])
        .into_iter()
        .map(|offence| format!("{}: {}", offence.path, offence.wrong))
        .collect();
    assert_eq!(lines, expected);
}

#[test]
fn every_module_of_a_crate_has_a_doc() {
    check_source("crates/a/src/b.rs", "//! Does b.\n", &[]);
    let wrong = "crates/a/src/b.rs: no module doc";
    check_source("crates/a/src/b.rs", "use std::fmt;\n", &[wrong]);
    check_source("crates/a/src/b.rs", "", &[wrong]);
    check_source(
        "xtask/src/b.rs",
        "fn b() {}\n",
        &["xtask/src/b.rs: no module doc"],
    );
    check_source("crates/a/src/b/tests.rs", "use super::b;\n", &[]);
    check_source("crates/a/tests/it/main.rs", "mod b;\n", &[]);
    check_source("README.md", "# llada\n", &[]);
}

#[test]
fn an_allowed_lint_needs_a_reason() {
    let wrong = "crates/a/src/b.rs:2: a lint is allowed without a reason";
    let check_attribute = |attribute: &str, expected: &[&str]| {
        check_source(
            "crates/a/src/b.rs",
            &format!("//! B.\n{attribute}\nfn b() {{}}\n"),
            expected,
        );
    };
    check_attribute("#[allow(dead_code)]", &[wrong]);
    check_attribute("#![allow(dead_code)]", &[wrong]);
    check_attribute("    #[allow(dead_code)]", &[wrong]);
    check_attribute("#[allow(\n    dead_code,\n    unused\n)]", &[wrong]);
    check_attribute("#[allow(dead_code, reason = \"used by b\")]", &[]);
    check_attribute(
        "#[allow(\n    dead_code,\n    reason = \"used by b\"\n)]",
        &[],
    );
    check_attribute("// #[allow(dead_code)] would be wrong", &[]);
    check_attribute(
        "#[allow(dead_code)]\n#[expect(unused, reason = \"x\")]",
        &[wrong],
    );
}

#[test]
fn token_ids_come_from_the_config() {
    let wrong = "crates/a/src/b.rs:2: the token id 126336 is written out";
    let check_line = |path: &str, line: &str, expected: &[&str]| {
        check_source(path, &format!("//! B.\n{line}\n"), expected);
    };
    check_line("crates/a/src/b.rs", "const MASK: u32 = 126336;", &[wrong]);
    check_line(
        "crates/a/src/b.rs",
        "const MASK: u32 = 126_336_u32;",
        &[wrong],
    );
    check_line("crates/a/src/b.rs", "let n = 1126336;", &[]);
    check_line(
        "crates/a/src/b.rs",
        "/// The mask of LLaDA-8B is 126336.",
        &[],
    );
    for path in [
        "crates/a/src/config.rs",
        "crates/a/src/config/presets.rs",
        "crates/a/src/b/tests.rs",
        "crates/a/tests/it/b.rs",
        "crates/a/examples/b.rs",
    ] {
        check_line(path, "const MASK: u32 = 126336;", &[]);
    }
}
