//! Tests of the layer table.

use super::{TABLE, check};
use crate::metadata::{Dependency, DependencyKind, Member};

use DependencyKind::{Build, Dev, Normal};

fn member(name: &str, dependencies: &[(&str, DependencyKind)]) -> Member {
    let dependencies = dependencies
        .iter()
        .map(|&(name, kind)| Dependency {
            name: name.to_owned(),
            kind,
        })
        .collect();
    let dir = format!("crates/{name}");
    Member {
        name: name.to_owned(),
        dir,
        dependencies,
        ..Member::default()
    }
}

/// Checks one package in a workspace that holds every package of the table.
#[track_caller]
fn check_edges(name: &str, dependencies: &[(&str, DependencyKind)], expected: &[&str]) {
    let mut members: Vec<Member> = TABLE.iter().map(|(name, _)| member(name, &[])).collect();
    members.retain(|other| other.name != name);
    members.push(member(name, dependencies));
    let offences: Vec<String> = check(&members).into_iter().map(|o| o.wrong).collect();
    assert_eq!(offences, expected);
}

#[test]
fn allowed_edges_pass() {
    check_edges(
        "llada-train",
        &[("llada-diffusion", Normal), ("llada-text", Normal)],
        &[],
    );
    check_edges("llada-cli", &[("llada", Normal), ("clap", Normal)], &[]);
    check_edges(
        "llada-tensor",
        &[("amxsim", Dev), ("llada-testkit", Dev), ("proptest", Dev)],
        &[],
    );
    let below_cuda = [("llada-tensor", Normal), ("llada-kernels", Normal)];
    check_edges("llada-cuda", &below_cuda, &[]);
    check_edges("llada", &[("llada-cuda", Normal), ("ptxsim", Dev)], &[]);
}

#[test]
fn the_trainer_never_sees_the_model() {
    let wrong = "llada-train may not use llada-model";
    for kind in [Normal, Dev, Build] {
        check_edges("llada-train", &[("llada-model", kind)], &[wrong]);
    }
}

#[test]
fn a_lower_layer_does_not_use_a_higher_one() {
    let wrong = "llada-tensor may not use llada-diffusion";
    check_edges("llada-tensor", &[("llada-diffusion", Normal)], &[wrong]);
}

#[test]
fn only_the_facade_sees_cuda() {
    for package in ["llada-model", "llada-cli", "llada-tensor"] {
        let wrong = format!("{package} may not use llada-cuda");
        check_edges(package, &[("llada-cuda", Normal)], &[&wrong]);
    }
}

#[test]
fn the_tools_of_tests_are_for_tests() {
    check_edges(
        "llada-model",
        &[("llada-testkit", Normal)],
        &["llada-testkit is a dependency"],
    );
    check_edges(
        "llada-tensor",
        &[("amxsim", Normal)],
        &["amxsim is a dependency"],
    );
    check_edges(
        "llada-cuda",
        &[("ptxsim", Normal)],
        &["ptxsim is a dependency"],
    );
}

#[test]
fn nobody_uses_xtask_or_the_benchmarks() {
    check_edges(
        "llada-cli",
        &[("xtask", Dev)],
        &["llada-cli may not use xtask"],
    );
    check_edges(
        "llada",
        &[("llada-benches", Dev)],
        &["llada may not use llada-benches"],
    );
}

#[test]
fn an_unknown_package_needs_a_row() {
    check_edges("llada-new", &[], &["llada-new is not in the layer table"]);
}

#[test]
fn the_table_has_no_cycle() {
    // Every row only names packages whose own rows can be completed before it.
    let mut done: Vec<&str> = Vec::new();
    while done.len() < TABLE.len() {
        let ready = TABLE
            .iter()
            .find(|(name, uses)| !done.contains(name) && uses.iter().all(|u| done.contains(u)));
        let (name, _) = ready.expect("the rows left use one another");
        done.push(name);
    }
}
