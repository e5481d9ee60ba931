//! The programs of a CUDA toolkit.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use super::is_below;

/// Who said where a toolkit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An environment variable.
    Variable(&'static str),
    /// A link in the target folder that was made by hand.
    Link,
    /// `cargo xtask cuda` put it there.
    Installed,
}

impl Origin {
    fn describe(self) -> &'static str {
        match self {
            Self::Variable(name) => name,
            Self::Link => "a link in the target folder",
            Self::Installed => "cargo xtask cuda",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Toolkit {
    pub(crate) nvcc: PathBuf,
    pub(crate) cuobjdump: PathBuf,
    pub(crate) nvdisasm: PathBuf,
    origin: Origin,
}

impl Toolkit {
    /// A toolkit that is not ours: of `LLADA_NVCC`, of `CUDA_HOME`, or where a link `toolkit`
    /// leads that does not go to `venv`.
    pub(super) fn external(link: &Path, venv: &Path) -> Result<Option<Self>> {
        if let Some(nvcc) = env::var_os("LLADA_NVCC") {
            return Self::of_nvcc(Path::new(&nvcc), Origin::Variable("LLADA_NVCC")).map(Some);
        }
        if let Some(home) = env::var_os("CUDA_HOME") {
            return Self::in_folder(Path::new(&home), Origin::Variable("CUDA_HOME")).map(Some);
        }
        match link.canonicalize() {
            Ok(path) if !is_below(&path, venv) => Self::in_folder(link, Origin::Link).map(Some),
            _ => Ok(None),
        }
    }

    pub(super) fn in_folder(home: &Path, origin: Origin) -> Result<Self> {
        Self::of_nvcc(&home.join("bin/nvcc"), origin)
    }

    fn of_nvcc(nvcc: &Path, origin: Origin) -> Result<Self> {
        let bin = nvcc.parent().unwrap_or(Path::new("."));
        let missing: Vec<String> = ["ptxas", "fatbinary", "cuobjdump", "nvdisasm"]
            .iter()
            .map(|tool| bin.join(tool))
            .chain([nvcc.to_owned()])
            .filter(|path| !path.exists())
            .map(|path| path.display().to_string())
            .collect();
        anyhow::ensure!(
            missing.is_empty(),
            "the CUDA toolkit of {} lacks {}: install what is missing, or unset LLADA_NVCC and \
             CUDA_HOME and let `cargo xtask cuda` install one",
            origin.describe(),
            missing.join(", ")
        );
        Ok(Self {
            nvcc: nvcc.to_owned(),
            cuobjdump: bin.join("cuobjdump"),
            nvdisasm: bin.join("nvdisasm"),
            origin,
        })
    }

    /// Whether the compiler runs and is of CUDA 13.
    pub(super) fn check(&self, sh: &Shell) -> Result<()> {
        let version = self.version(sh)?;
        anyhow::ensure!(
            version.0 == 13,
            "{} is of CUDA {}.{}, and 13.0 is needed",
            self.nvcc.display(),
            version.0,
            version.1
        );
        if version.1 > 0 {
            eprintln!(
                "warning: {} is of CUDA 13.{}; drivers of CUDA 13.0 can't load its PTX",
                self.nvcc.display(),
                version.1
            );
        }
        Ok(())
    }

    fn version(&self, sh: &Shell) -> Result<(u32, u32)> {
        let nvcc = &self.nvcc;
        let text = cmd!(sh, "{nvcc} --version")
            .quiet()
            .read()
            .with_context(|| format!("running {}", nvcc.display()))?;
        parse_version(&text).with_context(|| format!("{} tells no version", nvcc.display()))
    }

    pub(super) fn describe(&self) -> String {
        format!("{} (of {})", self.nvcc.display(), self.origin.describe())
    }
}

/// `(13, 0)` from `Cuda compilation tools, release 13.0, V13.0.88`.
pub(super) fn parse_version(text: &str) -> Option<(u32, u32)> {
    let release = text.split("release ").nth(1)?;
    let (major, rest) = release.split_once('.')?;
    let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
