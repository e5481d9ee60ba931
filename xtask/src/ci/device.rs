//! The part of CI that needs CUDA's toolchain: kernels, backend and goldens on the software device.

use anyhow::Result;
use xshell::{Cmd, Shell, cmd};

use super::{TestsFailed, run_step, step};
use crate::cuda;
use crate::kernels;
use crate::metadata::Metadata;

/// Packages with something to check, and the feature that turns CUDA on.
const PACKAGES: &[(&str, Option<&str>)] = &[
    ("llada-kernels", Some("llada-kernels/nvcc")),
    ("llada-cuda", Some("llada-cuda/nvcc")),
    ("ptxsim", None),
    ("llada", Some("llada/cuda")),
];

/// The tests of `llada` that run on the device.
const MODEL_TESTS: &[&str] = &["goldens", "cuda"];

/// Those of the packages that the workspace has; none without kernels.
pub(super) fn packages(metadata: &Metadata) -> Vec<&'static str> {
    let is_member = |name: &str| metadata.members.iter().any(|member| member.name == name);
    if !is_member("llada-kernels") {
        return Vec::new();
    }
    let names = PACKAGES.iter().map(|&(name, _)| name);
    names.filter(|name| is_member(name)).collect()
}

/// Flags that name the packages and their features. Every command has the same ones: other
/// features of some dependency would compile the kernels once more.
fn selection(packages: &[&str]) -> Vec<String> {
    let mut flags = Vec::new();
    let mut features = Vec::new();
    for (name, feature) in PACKAGES {
        if packages.contains(name) {
            flags.extend(["-p".to_owned(), (*name).to_owned()]);
            features.extend(*feature);
        }
    }
    flags.extend(["--features".to_owned(), features.join(",")]);
    flags
}

pub(super) fn check(sh: &Shell, metadata: &Metadata, with_nextest: bool) -> Result<()> {
    let target = &metadata.target_directory;
    step("install CUDA's toolchain", || cuda::install(sh, target))?;
    let packages = packages(metadata);
    let selection = &selection(&packages);
    let runner = Runner {
        sh,
        with_nextest,
        selection,
    };
    run_step("build CUDA tests", &runner.build())?;
    let lint = cmd!(
        sh,
        "cargo clippy {selection...} --all-targets -- -D warnings"
    );
    run_step("lint CUDA", &lint)?;

    let stats = target.join("kernels/stats.jsonl");
    sh.remove_path(&stats)?;
    sh.create_dir(target.join("kernels"))?;
    eprintln!("== test kernels, backend and software device");
    runner
        .ops(&packages)
        .env("PTXSIM_STATS", &stats)
        .run()
        .map_err(|_| TestsFailed)?;
    eprintln!("== test kernels in check mode");
    runner
        .kernels()
        .env("PTXSIM_CHECK", "1")
        .run()
        .map_err(|_| TestsFailed)?;
    step("kernels are as good as they were", || {
        let stats = Some(stats.as_path()).filter(|stats| stats.exists());
        let mut build = vec!["test".to_owned(), "--no-run".to_owned()];
        build.extend(selection.iter().cloned());
        build.extend(targets().map(str::to_owned));
        kernels::check_built(sh, target, &build, stats)
    })?;

    if packages.contains(&"llada") {
        eprintln!("== test the model on the software device");
        runner
            .model()
            .env("LLADA_DEVICE", "cuda")
            .run()
            .map_err(|_| TestsFailed)?;
    }
    Ok(())
}

/// Flags for everything that is tested.
fn targets() -> impl Iterator<Item = &'static str> {
    let model = MODEL_TESTS.iter().flat_map(|name| ["--test", name]);
    ["--lib", "--test", "it"].into_iter().chain(model)
}

struct Runner<'a> {
    sh: &'a Shell,
    with_nextest: bool,
    selection: &'a [String],
}

impl<'a> Runner<'a> {
    fn command(&self, flags: &[&str]) -> Cmd<'a> {
        let (sh, selection) = (self.sh, self.selection);
        if self.with_nextest {
            cmd!(sh, "cargo nextest run {selection...} {flags...}")
        } else {
            cmd!(sh, "cargo test {selection...} {flags...}")
        }
    }

    fn build(&self) -> Cmd<'a> {
        let flags: Vec<&str> = ["--no-run"].into_iter().chain(targets()).collect();
        self.command(&flags)
    }

    /// The tests of all packages but `llada`.
    fn ops(&self, packages: &[&str]) -> Cmd<'a> {
        if !self.with_nextest {
            // Those of `llada` that are called alike run on the CPU once more.
            return self.command(&["--lib", "--test", "it"]);
        }
        let others = packages.iter().filter(|name| **name != "llada");
        let terms: Vec<String> = others.map(|name| format!("package({name})")).collect();
        let mut flags: Vec<&str> = targets().collect();
        let filter = terms.join(" | ");
        flags.extend(["-E", &filter]);
        self.command(&flags)
    }

    /// The tests of the backend, most of which run kernels.
    fn kernels(&self) -> Cmd<'a> {
        if !self.with_nextest {
            return self.command(&["--lib", "--test", "it"]);
        }
        let mut flags: Vec<&str> = targets().collect();
        flags.extend(["-E", "package(llada-cuda)"]);
        self.command(&flags)
    }

    /// The model, its sampler and its trainer, against the CPU and against the reference.
    fn model(&self) -> Cmd<'a> {
        if !self.with_nextest {
            let flags: Vec<&str> = MODEL_TESTS
                .iter()
                .flat_map(|name| ["--test", name])
                .collect();
            return self.command(&flags);
        }
        let terms: Vec<String> = MODEL_TESTS
            .iter()
            .map(|name| format!("binary({name})"))
            .collect();
        let filter = format!("package(llada) & ({})", terms.join(" | "));
        let mut flags: Vec<&str> = targets().collect();
        flags.extend(["-E", &filter]);
        self.command(&flags)
    }
}

#[cfg(test)]
mod tests {
    //! Which packages are checked.

    use super::{packages, selection};
    use crate::metadata::{Member, Metadata};

    fn metadata(names: &[&str]) -> Metadata {
        let member = |name: &&str| Member {
            name: (*name).to_owned(),
            ..Member::default()
        };
        Metadata {
            members: names.iter().map(member).collect(),
            third_party: Vec::new(),
            target_directory: "/w/target".into(),
        }
    }

    #[test]
    fn steps_are_for_the_packages_that_exist() {
        assert!(packages(&metadata(&["llada"])).is_empty());
        let some = packages(&metadata(&["xtask", "llada", "llada-kernels"]));
        assert_eq!(some, ["llada-kernels", "llada"]);
        let flags = selection(&some).join(" ");
        assert_eq!(
            flags,
            "-p llada-kernels -p llada --features llada-kernels/nvcc,llada/cuda"
        );
    }
}
