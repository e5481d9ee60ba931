//! The part of CI in which others ask the server: the `openai` package, lm-evaluation-harness, a
//! browser, and a balancer in front of two replicas of which one is killed.

use std::path::Path;

use anyhow::Result;
use xshell::{Shell, cmd};

use super::run_step;
use crate::cuda;

/// What is installed beside `tools/lm_eval_llada`, which names its own version of the harness.
const PACKAGES: [&str; 4] = [
    "openai==3.57.0",
    "playwright==1.65.2",
    // It carries axe-core, which looks at a page as those see it who do not see.
    "axe-playwright-python==0.1.8",
    "schemathesis==4.32.5",
];

/// Why these tests could not be run on this machine, if that can be told without trying.
pub(super) fn obstacle(sh: &Shell) -> Option<String> {
    let code = "import ensurepip, venv";
    let programs = [
        ("python3 with venv", cmd!(sh, "python3 -c {code}")),
        ("chromium", cmd!(sh, "chromium --version")),
        ("haproxy", cmd!(sh, "haproxy -v")),
        ("curl", cmd!(sh, "curl --version")),
    ];
    for (name, command) in programs {
        let command = command.quiet().ignore_stdout().ignore_stderr();
        if command.run().is_err() {
            return Some(format!(
                "there is no {name} (Debian: apt-get install python3-venv chromium haproxy curl)"
            ));
        }
    }
    cuda::index_obstacle(sh)
}

pub(super) fn check(sh: &Shell, target: &Path) -> Result<()> {
    let (venv, pictures) = (target.join("clients"), target.join("page"));
    let python = venv.join("bin/python");
    let llada = target.join("debug/llada");
    sh.remove_path(&venv)?;
    run_step(
        "environment of clients",
        &cmd!(sh, "python3 -m venv {venv}"),
    )?;
    run_step(
        "install clients",
        &cmd!(
            sh,
            "{python} -m pip install --quiet --no-compile ./tools/lm_eval_llada {PACKAGES...}"
        ),
    )?;
    // The default build has left it; what was tested since then is the same.
    run_step(
        "build the server",
        &cmd!(sh, "cargo build --workspace --bins"),
    )?;
    let find = "import axe_playwright_python as a; print(a.__path__[0] + '/axe.min.js')";
    let axe = cmd!(sh, "{python} -c {find}").quiet().read()?;
    for (name, command) in [
        (
            "requests of docs/server.md",
            cmd!(sh, "{python} tools/serve/docs_test.py {llada}"),
        ),
        (
            "openai and lm-eval",
            cmd!(sh, "{python} tools/client_tests.py {llada}"),
        ),
        (
            "page in Chromium",
            cmd!(
                sh,
                "{python} tools/page_test.py --llada {llada} --axe {axe} --screenshots {pictures}"
            ),
        ),
        (
            "balancer",
            cmd!(sh, "{python} tools/serve/balancer_test.py {llada}"),
        ),
        (
            "generated requests",
            cmd!(sh, "{python} tools/serve/schema_test.py {llada}"),
        ),
    ] {
        run_step(name, &command)?;
    }
    // 1.2 GB that nothing else uses.
    sh.remove_path(&venv)?;
    sh.remove_path(&pictures)?;
    Ok(())
}
