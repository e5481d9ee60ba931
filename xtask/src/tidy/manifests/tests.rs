//! Tests of the rules on manifests.

use super::{LICENSE, check};
use crate::metadata::Member;

#[track_caller]
fn check_member(name: &str, dir: &str, license: Option<&str>, expected: &[&str]) {
    let member = Member {
        name: name.to_owned(),
        dir: dir.to_owned(),
        license: license.map(str::to_owned),
        ..Member::default()
    };
    let offences: Vec<String> = check(&[member]).into_iter().map(|o| o.wrong).collect();
    assert_eq!(offences, expected);
}

#[test]
fn folder_and_package_share_a_name() {
    check_member("llada-text", "crates/llada-text", Some(LICENSE), &[]);
    check_member(
        "llada-text",
        "crates/text",
        Some(LICENSE),
        &["the package is named llada-text"],
    );
    check_member("llada-benches", "benches", Some(LICENSE), &[]);
}

#[test]
fn every_package_declares_the_license() {
    let wrong = "the license is not MIT OR Apache-2.0";
    check_member("xtask", "xtask", None, &[wrong]);
    check_member("xtask", "xtask", Some("MIT"), &[wrong]);
}
