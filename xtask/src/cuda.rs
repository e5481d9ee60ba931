//! `cargo xtask cuda`: CUDA's compiler and its inspection tools, and libclang, from `PyPI`.
//!
//! They go to a virtual environment below the target folder, and two links beside it lead the
//! build script of `llada-kernels` to them: `cuda/toolkit` and `cuda/libclang`. A toolkit that is
//! there already and that `LLADA_NVCC` or `CUDA_HOME` names is used instead.

mod toolkit;

use std::env;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use crate::metadata::{Metadata, Reach};

use toolkit::Origin;
pub(crate) use toolkit::Toolkit;

/// The compiler and what it needs. PTX of 13.0 is what driver 580 and newer can load.
const TOOLKIT: &[&str] = &[
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-cuda-cccl==13.0.85",
    "nvidia-cuda-runtime==13.0.96",
    // PyPI has no 13.0 of these two; newer ones read what 13.0 wrote.
    "nvidia-cuda-cuobjdump==13.5.37",
    "nvidia-cuda-nvdisasm==13.5.37",
];
const LIBCLANG: &str = "libclang==18.1.1";

/// Where pip looks if it is not told otherwise.
const INDEX: &str = "https://pypi.org/simple";

pub(crate) fn run(sh: &Shell, args: &[String]) -> Result<()> {
    crate::no_arguments("cuda", args)?;
    let target = Metadata::load(sh, Reach::Members)?.target_directory;
    install(sh, &target)?;
    Ok(())
}

/// Installs what is missing, says what is there, and returns it.
pub(crate) fn install(sh: &Shell, target: &Path) -> Result<Toolkit> {
    let folder = Folder::below(target);
    let external = Toolkit::external(&folder.toolkit, &folder.venv)?;
    let needs_libclang = env::var_os("LIBCLANG_PATH").is_none() && !folder.has_foreign_libclang();
    let mut packages = Vec::new();
    if external.is_none() {
        packages.extend(TOOLKIT);
    }
    if needs_libclang {
        packages.push(LIBCLANG);
    }
    if !packages.is_empty() {
        if folder.is_complete(&packages) {
            eprintln!("cuda: already installed in {}", folder.venv.display());
        } else {
            folder.install(sh, &packages)?;
        }
    }

    let toolkit = match external {
        Some(toolkit) => toolkit,
        None => Toolkit::in_folder(&folder.toolkit, Origin::Installed)?,
    };
    toolkit.check(sh)?;
    eprintln!("cuda: {}", toolkit.describe());
    let libclang = match env::var_os("LIBCLANG_PATH") {
        Some(path) => format!("LIBCLANG_PATH={}", Path::new(&path).display()),
        None => folder.libclang.display().to_string(),
    };
    eprintln!("cuda: libclang in {libclang}");
    Ok(toolkit)
}

/// The toolkit that `install` would use, if it is there.
pub(crate) fn find(sh: &Shell, target: &Path) -> Result<Toolkit> {
    let folder = Folder::below(target);
    let toolkit = match Toolkit::external(&folder.toolkit, &folder.venv)? {
        Some(toolkit) => toolkit,
        None if folder.toolkit.exists() => Toolkit::in_folder(&folder.toolkit, Origin::Installed)?,
        None => anyhow::bail!("there is no CUDA toolkit: run `cargo xtask cuda`"),
    };
    toolkit.check(sh)?;
    Ok(toolkit)
}

/// Why `install` could not work on this machine, if that can be told without trying.
pub(crate) fn obstacle(sh: &Shell, target: &Path) -> Option<String> {
    if find(sh, target).is_ok() {
        return None;
    }
    if let Err(error) = check_python(sh) {
        return Some(format!("{error:#}"));
    }
    index_obstacle(sh)
}

/// Why pip could fetch nothing, if that can be told by a question.
pub(crate) fn index_obstacle(sh: &Shell) -> Option<String> {
    let index = index(sh);
    let code = "import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=20).close()";
    let package = format!("{}/libclang/", index.trim_end_matches('/'));
    cmd!(sh, "python3 -c {code} {package}")
        .quiet()
        .ignore_stdout()
        .ignore_stderr()
        .run()
        .err()
        .map(|_| format!("{index} cannot be reached"))
}

/// The package index that pip would ask.
fn index(sh: &Shell) -> String {
    let configured = || {
        cmd!(sh, "python3 -m pip config get global.index-url")
            .quiet()
            .ignore_stderr()
            .read()
            .ok()
            .filter(|url| !url.is_empty())
    };
    env::var("PIP_INDEX_URL")
        .ok()
        .or_else(configured)
        .unwrap_or_else(|| INDEX.to_owned())
}

/// Whether `python3` is there and can make virtual environments.
fn check_python(sh: &Shell) -> Result<()> {
    let instead = "or set CUDA_HOME to a CUDA toolkit 13.0, and LIBCLANG_PATH";
    let found = cmd!(sh, "python3 --version")
        .quiet()
        .ignore_stderr()
        .ignore_stdout()
        .run();
    if found.is_err() {
        anyhow::bail!(
            "there is no python3: install it (Debian: apt-get install python3-venv), {instead}"
        );
    }
    let code = "import ensurepip, venv";
    let has_venv = cmd!(sh, "python3 -c {code}")
        .quiet()
        .ignore_stderr()
        .run()
        .is_ok();
    anyhow::ensure!(
        has_venv,
        "python3 has no module venv: install it (Debian: apt-get install python3-venv), {instead}"
    );
    Ok(())
}

/// The folder `cuda` of the target folder.
struct Folder {
    root: PathBuf,
    venv: PathBuf,
    /// Lists the packages of a whole environment; written last.
    marker: PathBuf,
    toolkit: PathBuf,
    libclang: PathBuf,
}

impl Folder {
    fn below(target: &Path) -> Self {
        let root = target.join("cuda");
        Self {
            venv: root.join("venv"),
            marker: root.join("installed"),
            toolkit: root.join("toolkit"),
            libclang: root.join("libclang"),
            root,
        }
    }

    fn is_complete(&self, packages: &[&str]) -> bool {
        let installed = std::fs::read_to_string(&self.marker).unwrap_or_default();
        let has = |package: &&str| installed.lines().any(|line| line == *package);
        packages.iter().all(has)
            && self.libclang.exists() == packages.contains(&LIBCLANG)
            && self.venv.exists()
    }

    /// Whether somebody made the link to libclang by hand.
    fn has_foreign_libclang(&self) -> bool {
        self.libclang
            .canonicalize()
            .is_ok_and(|path| !is_below(&path, &self.venv))
    }

    fn install(&self, sh: &Shell, packages: &[&str]) -> Result<()> {
        anyhow::ensure!(
            cfg!(target_os = "linux"),
            "the packages are for Linux: install a CUDA toolkit 13.0 and libclang, and set \
             CUDA_HOME and LIBCLANG_PATH"
        );
        check_python(sh)?;
        if self.venv.exists() {
            eprintln!("cuda: removing {}, which is not whole", self.venv.display());
        }
        self.remove_own(sh)?;
        sh.create_dir(&self.root)?;

        eprintln!("cuda: installing {}", packages.join(", "));
        let venv = &self.venv;
        cmd!(sh, "python3 -m venv {venv}")
            .quiet()
            .run()
            .context("making a virtual environment")?;
        let python = venv.join("bin/python");
        let flags = [
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
            "--progress-bar=off",
            "--retries=3",
        ];
        let pip = cmd!(sh, "{python} -m pip install {flags...} {packages...}");
        let output = pip.quiet().ignore_status().output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            self.remove_own(sh)?;
            anyhow::bail!(pip_failure(&text, &index(sh)));
        }
        let code = "import sysconfig; print(sysconfig.get_path('platlib'))";
        let site = PathBuf::from(cmd!(sh, "{python} -c {code}").quiet().read()?);
        if packages.contains(&LIBCLANG) {
            link(&site.join("clang/native"), &self.libclang)?;
        }
        if packages.len() > 1 {
            link(&site.join("nvidia/cu13"), &self.toolkit)?;
        }
        sh.write_file(&self.marker, packages.join("\n") + "\n")?;
        Ok(())
    }

    /// Removes what `install` made, whole or not, and nothing else.
    fn remove_own(&self, sh: &Shell) -> Result<()> {
        for link in [&self.toolkit, &self.libclang] {
            let goes_to_venv = std::fs::read_link(link)
                .is_ok_and(|path| is_below(&self.root.join(path), &self.venv));
            if goes_to_venv {
                std::fs::remove_file(link)?;
            }
        }
        sh.remove_path(&self.marker)?;
        sh.remove_path(&self.venv)?;
        Ok(())
    }
}

/// Whether a path lies below a folder, by their names or by what they are.
fn is_below(path: &Path, folder: &Path) -> bool {
    path.starts_with(folder)
        || folder
            .canonicalize()
            .is_ok_and(|folder| path.starts_with(folder))
}

/// Makes a link whose text is relative to its folder, so that the target folder can move.
fn link(to: &Path, at: &Path) -> Result<()> {
    anyhow::ensure!(to.exists(), "the packages have no {}", to.display());
    match std::fs::remove_file(at) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("replacing {}", at.display()))?;
        }
        _ => {}
    }
    let folder = at.parent().unwrap_or(Path::new(""));
    let to = to.strip_prefix(folder).unwrap_or(to);
    #[cfg(unix)]
    std::os::unix::fs::symlink(to, at).with_context(|| format!("linking {}", at.display()))?;
    Ok(())
}

/// What to say when pip failed with this text.
fn pip_failure(text: &str, index: &str) -> String {
    const NO_NETWORK: &[&str] = &[
        "Failed to establish a new connection",
        "Temporary failure in name resolution",
        "Name or service not known",
        "Network is unreachable",
        "ProxyError",
        "timed out",
        "Max retries exceeded",
    ];
    let text = text.trim();
    if NO_NETWORK.iter().any(|sign| text.contains(sign)) {
        format!(
            "{index} cannot be reached: connect this machine, set PIP_INDEX_URL to a mirror, or \
             set CUDA_HOME to a CUDA toolkit 13.0 and LIBCLANG_PATH"
        )
    } else {
        format!("pip could not install the packages:\n{text}")
    }
}

#[cfg(test)]
mod tests;
