//! Tests of the license rule.

use super::{ALLOWED, check, is_allowed};
use crate::metadata::Package;

#[track_caller]
fn check_expression(expression: &str, expected: bool) {
    assert_eq!(is_allowed(expression), Ok(expected), "{expression}");
}

#[test]
fn alternatives_need_one_allowed_license() {
    check_expression("MIT", true);
    check_expression("GPL-3.0-only", false);
    check_expression("MIT OR GPL-3.0-only", true);
    check_expression("GPL-3.0-only OR LGPL-2.1-or-later", false);
    check_expression("MIT/Apache-2.0", true);
    check_expression("Unlicense/MIT", true);
}

#[test]
fn conjunctions_need_all() {
    check_expression("MIT AND BSD-3-Clause", true);
    check_expression("MIT AND GPL-3.0-only", false);
    check_expression("(MIT OR Apache-2.0) AND Unicode-3.0", true);
    check_expression("(MIT OR Apache-2.0) AND OpenSSL", false);
}

#[test]
fn and_binds_tighter_than_or() {
    check_expression("MIT OR GPL-3.0-only AND OpenSSL", true);
    check_expression("GPL-3.0-only AND MIT OR GPL-2.0-only", false);
    check_expression("(MIT OR GPL-3.0-only) AND OpenSSL", false);
}

#[test]
fn exceptions_belong_to_their_license() {
    check_expression("Apache-2.0 WITH LLVM-exception OR GPL-2.0-only", true);
    check_expression("GPL-2.0-only WITH Classpath-exception-2.0", false);
    check_expression("MIT WITH LLVM-exception", false);
}

#[test]
fn malformed_expressions_are_errors() {
    for expression in [
        "",
        "MIT OR",
        "AND MIT",
        "(MIT",
        "MIT)",
        "MIT Apache-2.0",
        "MIT WITH",
    ] {
        assert!(is_allowed(expression).is_err(), "{expression}");
    }
}

#[test]
fn offences_name_the_package() {
    let package = |license: Option<&str>| Package {
        name: "thing".to_owned(),
        version: "1.2.3".to_owned(),
        license: license.map(str::to_owned),
    };
    assert_eq!(check(&[package(Some("ISC"))]), []);
    let offences = check(&[package(None), package(Some("AGPL-3.0-only"))]);
    let lines: Vec<String> = offences.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "Cargo.lock (thing 1.2.3): no license is declared; use another package",
            "Cargo.lock (thing 1.2.3): the license \"AGPL-3.0-only\" is not on the list of \
             permissive ones; use another package",
        ]
    );
}

#[test]
fn the_list_equals_that_of_cargo_deny() {
    let root = crate::workspace_root().unwrap();
    let deny = std::fs::read_to_string(root.join("deny.toml")).unwrap();
    let list = deny
        .split_once("allow = [")
        .unwrap()
        .1
        .split_once(']')
        .unwrap()
        .0;
    let list: Vec<&str> = list
        .split(',')
        .map(|s| s.trim().trim_matches('"'))
        .collect();
    assert_eq!(list[..list.len() - 1], *ALLOWED);
}
