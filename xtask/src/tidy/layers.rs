//! Which package of the workspace may use which.

use super::Offence;
use crate::metadata::{DependencyKind, Member};

/// A package and those it may use; a new edge is an architecture change.
///
/// `cargo`'s own rule against cycles and the shape of this table make the layers.
/// Nobody may use a package that stands in no right-hand column: `xtask`, the benchmarks, the binary.
const TABLE: &[(&str, &[&str])] = &[
    ("amxsim", &[]),
    ("ptxsim", &[]),
    ("llada-kernels", &[]),
    ("llada-files", &[]),
    ("llada-tensor", &[]),
    ("llada-text", &["llada-files"]),
    // The rules of several steps that a device takes at once are those of the reverse process.
    (
        "llada-cuda",
        &["llada-diffusion", "llada-kernels", "llada-tensor"],
    ),
    ("llada-diffusion", &["llada-tensor"]),
    (
        "llada-model",
        &["llada-diffusion", "llada-files", "llada-tensor"],
    ),
    (
        "llada-train",
        &[
            "llada-diffusion",
            "llada-files",
            "llada-tensor",
            "llada-text",
        ],
    ),
    ("llada-sample", &["llada-diffusion", "llada-tensor"]),
    // What is measured of a text that a model writes depends on how it is sampled.
    (
        "llada-eval",
        &["llada-diffusion", "llada-sample", "llada-text"],
    ),
    (
        "llada",
        &[
            "llada-cuda",
            "llada-diffusion",
            "llada-eval",
            "llada-model",
            "llada-sample",
            "llada-tensor",
            "llada-text",
            "llada-train",
        ],
    ),
    ("llada-serve", &["llada"]),
    ("llada-cli", &["llada", "llada-files", "llada-serve"]),
    ("llada-testkit", &["llada-diffusion", "llada-tensor"]),
    (
        "llada-benches",
        &[
            "llada",
            "llada-diffusion",
            "llada-model",
            "llada-sample",
            "llada-tensor",
            "llada-text",
            "llada-train",
        ],
    ),
    ("xtask", &["llada-text"]),
];

/// Any package may use them, in tests only.
pub(super) const TEST_TOOLS: &[&str] = &["amxsim", "llada-testkit", "ptxsim"];

const HERE: &str = "xtask/src/tidy/layers.rs";

pub(super) fn check(members: &[Member]) -> Vec<Offence> {
    members
        .iter()
        .flat_map(|member| check_member(member, members))
        .collect()
}

fn check_member(member: &Member, members: &[Member]) -> Vec<Offence> {
    let manifest = format!("{}/Cargo.toml", member.dir);
    let Some((_, may_use)) = TABLE.iter().find(|(name, _)| *name == member.name) else {
        let wrong = format!("{} is not in the layer table", member.name);
        return vec![Offence::new(
            manifest,
            wrong,
            format!("add its row to {HERE}"),
        )];
    };
    let mut offences = Vec::new();
    for dependency in &member.dependencies {
        if !members.iter().any(|other| other.name == dependency.name) {
            continue;
        }
        let in_tests = dependency.kind == DependencyKind::Dev;
        if TEST_TOOLS.contains(&dependency.name.as_str()) {
            if !in_tests {
                let wrong = format!("{} is a dependency", dependency.name);
                offences.push(Offence::new(
                    &manifest,
                    wrong,
                    "move it to [dev-dependencies]",
                ));
            }
        } else {
            if may_use.contains(&dependency.name.as_str()) {
                continue;
            }
            let wrong = format!("{} may not use {}", member.name, dependency.name);
            let fix = format!("remove the dependency, or change the layer table in {HERE}");
            offences.push(Offence::new(&manifest, wrong, fix));
        }
    }
    offences
}

#[cfg(test)]
mod tests;
