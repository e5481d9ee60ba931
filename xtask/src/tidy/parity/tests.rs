//! Tests of op parity.

use super::{Exception, Sibling, check};

const OP: &str = "crates/llada-tensor/src/ops/rope.rs";
const CPU: &str = "crates/llada-tensor/src/cpu/rope.rs";
const BENCH: &str = "benches/ops/rope.rs";
const NO_CPU: &str = "the op has no CPU kernel of its name";
const NO_BENCH: &str = "the op has no benchmark of its name";

#[track_caller]
fn check_paths(paths: &[&str], exceptions: &[Exception], expected: &[&str]) {
    let offences: Vec<String> = check(paths, exceptions)
        .into_iter()
        .map(|o| o.wrong)
        .collect();
    assert_eq!(offences, expected);
}

#[test]
fn every_op_has_a_kernel_and_a_benchmark() {
    check_paths(&[OP, CPU, BENCH], &[], &[]);
    check_paths(&[OP, BENCH], &[], &[NO_CPU]);
    check_paths(&[OP, CPU, "benches/Cargo.toml"], &[], &[NO_BENCH]);
    check_paths(&[OP, "benches/Cargo.toml"], &[], &[NO_CPU, NO_BENCH]);
    check_paths(&[OP, CPU, "benches/ops/rotary_rope.rs"], &[], &[NO_BENCH]);
    check_paths(&["crates/llada-tensor/src/ops/rope/tests.rs"], &[], &[]);
}

#[test]
fn without_a_package_of_benchmarks_none_is_missed() {
    check_paths(&[OP, CPU], &[], &[]);
    check_paths(&[OP], &[], &[NO_CPU]);
}

#[test]
fn an_exception_holds_while_it_is_needed() {
    let exceptions = [Exception {
        op: "rope",
        sibling: Sibling::Bench,
        reason: "timed with attention",
    }];
    check_paths(&[OP, CPU, "benches/Cargo.toml"], &exceptions, &[]);
    let unneeded = "it is excepted (timed with attention), but nothing is missing";
    check_paths(&[OP, CPU, BENCH], &exceptions, &[unneeded]);
    check_paths(
        &[],
        &exceptions,
        &["there is an exception for rope, which is no op"],
    );
}
