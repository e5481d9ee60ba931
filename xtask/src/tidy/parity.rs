//! One op, one name: every op has its CPU kernel, its CUDA kernel, the launch of that, and its
//! benchmark in files of the same name.

use super::Offence;

const OPS: &str = "crates/llada-tensor/src/ops/";
const CPU: &str = "crates/llada-tensor/src/cpu/";
const KERNELS: &str = "kernels/";
const LAUNCH: &str = "crates/llada-cuda/src/launch/";
const CUDA_OPS: &str = "crates/llada-cuda/src/ops/";
const BENCHES: &str = "benches/";

/// What an op has beside a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sibling {
    Cpu,
    Bench,
    /// `kernels/<op>.cu`.
    Kernel,
    /// The launch plan.
    Launch,
    /// The method of the CUDA backend.
    CudaOp,
}

/// Files that have siblings.
struct Kind {
    folder: &'static str,
    extension: &'static str,
    siblings: &'static [Sibling],
}

const KINDS: &[Kind] = &[
    Kind {
        folder: OPS,
        extension: ".rs",
        siblings: &[Sibling::Cpu, Sibling::Bench, Sibling::CudaOp],
    },
    Kind {
        folder: KERNELS,
        extension: ".cu",
        siblings: &[Sibling::Launch, Sibling::CudaOp],
    },
    Kind {
        folder: LAUNCH,
        extension: ".rs",
        siblings: &[Sibling::Kernel],
    },
];

/// An op that lacks a sibling, and why.
#[derive(Debug)]
pub(super) struct Exception {
    op: &'static str,
    sibling: Sibling,
    reason: &'static str,
}

pub(super) const EXCEPTIONS: &[Exception] = &[
    Exception {
        op: "muon",
        sibling: Sibling::Cpu,
        reason: "it is made of products and sums that are ops themselves",
    },
    Exception {
        op: "muon",
        sibling: Sibling::CudaOp,
        reason: "it is made of products and sums that are ops themselves",
    },
    Exception {
        op: "gemm",
        sibling: Sibling::CudaOp,
        reason: "it is the kernel of the op matmul",
    },
    Exception {
        op: "global_norm",
        sibling: Sibling::Launch,
        reason: "launched with adamw, whose gradients it measures",
    },
    Exception {
        op: "global_norm",
        sibling: Sibling::CudaOp,
        reason: "launched with adamw, whose gradients it measures",
    },
    Exception {
        op: "elementwise",
        sibling: Sibling::Kernel,
        reason: "the plans that memory-bound kernels share",
    },
];

pub(super) fn check(paths: &[&str], exceptions: &[Exception]) -> Vec<Offence> {
    let mut offences = Vec::new();
    let mut is_needed = vec![false; exceptions.len()];
    let mut is_op = vec![false; exceptions.len()];
    for kind in KINDS {
        let siblings = kind
            .siblings
            .iter()
            .filter(|sibling| sibling.is_kept(paths));
        let siblings: Vec<Sibling> = siblings.copied().collect();
        for path in paths {
            let Some(op) = kind.op_of(path) else { continue };
            for (at, exception) in exceptions.iter().enumerate() {
                is_op[at] |= exception.op == op;
            }
            for &sibling in siblings
                .iter()
                .filter(|sibling| !sibling.is_there(paths, op))
            {
                let excepted = exceptions
                    .iter()
                    .position(|e| e.op == op && e.sibling == sibling);
                if let Some(at) = excepted {
                    is_needed[at] = true;
                } else {
                    let fix = format!("add {}", sibling.pattern(op));
                    offences.push(Offence::new(*path, sibling.lack(), fix));
                }
            }
        }
    }
    for (
        at,
        Exception {
            op,
            sibling,
            reason,
        },
    ) in exceptions.iter().enumerate()
    {
        let wrong = if !is_op[at] {
            format!("there is an exception for {op}, which is no op")
        } else if !is_needed[at] && sibling.is_kept(paths) {
            format!("{op} is excepted ({reason}), but nothing is missing")
        } else {
            continue;
        };
        offences.push(Offence::new(
            "xtask/src/tidy/parity.rs",
            wrong,
            "remove the exception",
        ));
    }
    offences
}

impl Kind {
    /// The op whose file this is.
    fn op_of<'a>(&self, path: &'a str) -> Option<&'a str> {
        let op = path.strip_prefix(self.folder)?;
        let op = op.strip_suffix(self.extension)?;
        (!op.contains('/') && op != "tests").then_some(op)
    }
}

impl Sibling {
    /// Before the first of its kind is there, none can be missed.
    fn is_kept(self, paths: &[&str]) -> bool {
        let folder = match self {
            Self::Cpu => return true,
            Self::Bench => BENCHES,
            Self::Kernel => KERNELS,
            Self::Launch | Self::CudaOp => LAUNCH,
        };
        paths.iter().any(|path| path.starts_with(folder))
    }

    fn is_there(self, paths: &[&str], op: &str) -> bool {
        if self == Self::Bench {
            let name = format!("/{op}.rs");
            let is_bench = |path: &&str| path.starts_with(BENCHES) && path.ends_with(&name);
            return paths.iter().any(is_bench);
        }
        paths.contains(&self.pattern(op).as_str())
    }

    fn lack(self) -> &'static str {
        match self {
            Self::Cpu => "the op has no CPU kernel of its name",
            Self::Bench => "the op has no benchmark of its name",
            Self::Kernel => "the launch plan has no CUDA kernel of its name",
            Self::Launch => "the CUDA kernel has no launch plan of its name",
            Self::CudaOp => "the CUDA backend has no op of its name",
        }
    }

    fn pattern(self, op: &str) -> String {
        match self {
            Self::Cpu => format!("{CPU}{op}.rs"),
            Self::Bench => format!("{BENCHES}**/{op}.rs"),
            Self::Kernel => format!("{KERNELS}{op}.cu"),
            Self::Launch => format!("{LAUNCH}{op}.rs"),
            Self::CudaOp => format!("{CUDA_OPS}{op}.rs"),
        }
    }
}

#[cfg(test)]
mod tests;
