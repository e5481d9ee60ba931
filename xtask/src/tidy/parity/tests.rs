//! Tests of op parity.

use super::{Exception, Sibling, check};

const OP: &str = "crates/llada-tensor/src/ops/rope.rs";
const CPU: &str = "crates/llada-tensor/src/cpu/rope.rs";
const BENCH: &str = "benches/ops/rope.rs";
const KERNEL: &str = "kernels/rope.cu";
const LAUNCH: &str = "crates/llada-cuda/src/launch/rope.rs";
const CUDA_OP: &str = "crates/llada-cuda/src/ops/rope.rs";
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
fn a_cuda_kernel_has_a_launch_plan_and_an_op_and_both_have_a_kernel() {
    check_paths(&[OP, CPU, KERNEL, LAUNCH, CUDA_OP], &[], &[]);
    // Without any launch plan there is no CUDA backend yet.
    check_paths(&[OP, CPU, KERNEL], &[], &[]);
    let no_kernel = "the launch plan has no CUDA kernel of its name";
    let no_launch = "the CUDA kernel has no launch plan of its name";
    let no_cuda_op = "the CUDA backend has no op of its name";
    let other = [
        "kernels/add.cu",
        "crates/llada-cuda/src/launch/add.rs",
        "crates/llada-cuda/src/ops/add.rs",
    ];
    check_paths(&[&other[..], &[OP, CPU]].concat(), &[], &[no_cuda_op]);
    check_paths(
        &[&other[..], &[OP, CPU, KERNEL, CUDA_OP]].concat(),
        &[],
        &[no_launch],
    );
    check_paths(&[KERNEL, LAUNCH], &[], &[no_cuda_op]);
    check_paths(
        &[KERNEL, LAUNCH, CUDA_OP, "kernels/include/mma.cuh"],
        &[],
        &[],
    );
    check_paths(&[&other[..], &[LAUNCH]].concat(), &[], &[no_kernel]);
}

#[test]
fn an_exception_holds_while_it_is_needed() {
    let exceptions = [Exception {
        op: "rope",
        sibling: Sibling::Bench,
        reason: "timed with attention",
    }];
    check_paths(&[OP, CPU, "benches/Cargo.toml"], &exceptions, &[]);
    let unneeded = "rope is excepted (timed with attention), but nothing is missing";
    check_paths(&[OP, CPU, BENCH], &exceptions, &[unneeded]);
    check_paths(
        &[],
        &exceptions,
        &["there is an exception for rope, which is no op"],
    );
}
