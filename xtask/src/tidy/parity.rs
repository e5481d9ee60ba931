//! One op, one name: every op has its CPU kernel and its benchmark in files of the same name.

use super::Offence;

const OPS: &str = "crates/llada-tensor/src/ops/";
const CPU: &str = "crates/llada-tensor/src/cpu/";
const BENCHES: &str = "benches/";

/// What an op has beside its file in `ops`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sibling {
    Cpu,
    Bench,
}

/// An op that lacks a sibling, and why.
#[derive(Debug)]
pub(super) struct Exception {
    op: &'static str,
    sibling: Sibling,
    reason: &'static str,
}

pub(super) const EXCEPTIONS: &[Exception] = &[Exception {
    op: "muon",
    sibling: Sibling::Cpu,
    reason: "it is made of products and sums that are ops themselves",
}];

pub(super) fn check(paths: &[&str], exceptions: &[Exception]) -> Vec<Offence> {
    let mut offences = Vec::new();
    // Before there is a package of benchmarks, its files cannot be missed.
    let siblings: &[Sibling] = if paths.iter().any(|path| path.starts_with(BENCHES)) {
        &[Sibling::Cpu, Sibling::Bench]
    } else {
        &[Sibling::Cpu]
    };
    let ops: Vec<&str> = paths.iter().filter_map(|path| op_of(path)).collect();
    for op in &ops {
        for &sibling in siblings {
            let exception = exceptions
                .iter()
                .find(|e| e.op == *op && e.sibling == sibling);
            let path = format!("{OPS}{op}.rs");
            match (has(paths, op, sibling), exception) {
                (true, None) | (false, Some(_)) => {}
                (false, None) => {
                    let fix = format!("add {}", pattern(op, sibling));
                    offences.push(Offence::new(path, lack(sibling), fix));
                }
                (true, Some(Exception { reason, .. })) => {
                    let wrong = format!("it is excepted ({reason}), but nothing is missing");
                    offences.push(Offence::new(path, wrong, "remove the exception"));
                }
            }
        }
    }
    for exception in exceptions
        .iter()
        .filter(|exception| !ops.contains(&exception.op))
    {
        let wrong = format!("there is an exception for {}, which is no op", exception.op);
        offences.push(Offence::new(
            "xtask/src/tidy/parity.rs",
            wrong,
            "remove the exception",
        ));
    }
    offences
}

/// The op whose file this is.
fn op_of(path: &str) -> Option<&str> {
    let op = path.strip_prefix(OPS)?.strip_suffix(".rs")?;
    (!op.contains('/') && op != "tests").then_some(op)
}

fn has(paths: &[&str], op: &str, sibling: Sibling) -> bool {
    let name = format!("{op}.rs");
    match sibling {
        Sibling::Cpu => paths.contains(&pattern(op, sibling).as_str()),
        Sibling::Bench => paths
            .iter()
            .any(|path| path.starts_with(BENCHES) && path.ends_with(&format!("/{name}"))),
    }
}

fn lack(sibling: Sibling) -> &'static str {
    match sibling {
        Sibling::Cpu => "the op has no CPU kernel of its name",
        Sibling::Bench => "the op has no benchmark of its name",
    }
}

fn pattern(op: &str, sibling: Sibling) -> String {
    match sibling {
        Sibling::Cpu => format!("{CPU}{op}.rs"),
        Sibling::Bench => format!("{BENCHES}**/{op}.rs"),
    }
}

#[cfg(test)]
mod tests;
