//! What `cargo metadata` says, reduced to what the tasks read.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;
use xshell::{Shell, cmd};

/// Which packages `cargo metadata` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Those of the workspace; never touches the network.
    Members,
    /// Those that this machine needs; never touches the network, fails if one is not there yet.
    ThisPlatform,
    /// Those of every platform; cargo may have to fetch some.
    AllPlatforms,
}

#[derive(Debug)]
pub(crate) struct Metadata {
    /// The packages of the workspace.
    pub(crate) members: Vec<Member>,
    /// All other packages of the resolved graph; none with [`Reach::Members`].
    pub(crate) third_party: Vec<Package>,
    pub(crate) target_directory: PathBuf,
}

/// A package of the workspace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// Its folder, relative to the workspace, with forward slashes.
    pub(crate) dir: String,
    pub(crate) license: Option<String>,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) examples: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) kind: DependencyKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DependencyKind {
    Normal,
    Dev,
    Build,
}

/// A package from outside.
#[derive(Clone, Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
}

impl Metadata {
    pub(crate) fn load(sh: &Shell, reach: Reach) -> Result<Self> {
        let text = match reach {
            Reach::Members => cmd!(sh, "cargo metadata --format-version 1 --no-deps")
                .quiet()
                .read()?,
            Reach::AllPlatforms => cmd!(sh, "cargo metadata --format-version 1")
                .quiet()
                .read()?,
            Reach::ThisPlatform => {
                let version = cmd!(sh, "rustc -vV").quiet().read()?;
                let host = version.lines().find_map(|line| line.strip_prefix("host: "));
                let host = host.context("rustc -vV names no host")?;
                cmd!(
                    sh,
                    "cargo metadata --format-version 1 --offline --filter-platform {host}"
                )
                .quiet()
                .ignore_stderr()
                .read()?
            }
        };
        Self::parse(&serde_json::from_str(&text)?).context("reading the output of cargo metadata")
    }

    fn parse(json: &Value) -> Result<Self> {
        let root = Path::new(string(json, "workspace_root")?);
        let ids: Vec<&str> = array(json, "workspace_members")?
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let mut members = Vec::new();
        let mut third_party = Vec::new();
        for package in array(json, "packages")? {
            if ids.contains(&string(package, "id")?) {
                members.push(member(package, root)?);
            } else {
                third_party.push(Package {
                    name: string(package, "name")?.to_owned(),
                    version: string(package, "version")?.to_owned(),
                    license: license(package),
                });
            }
        }
        let target_directory = string(json, "target_directory")?.into();
        Ok(Self {
            members,
            third_party,
            target_directory,
        })
    }
}

fn member(package: &Value, root: &Path) -> Result<Member> {
    let manifest = Path::new(string(package, "manifest_path")?);
    let dir = manifest
        .parent()
        .and_then(|dir| dir.strip_prefix(root).ok());
    let dir = dir.with_context(|| format!("{} is outside the workspace", manifest.display()))?;
    let mut dependencies = Vec::new();
    for dependency in array(package, "dependencies")? {
        let kind = match dependency.get("kind").and_then(Value::as_str) {
            Some("dev") => DependencyKind::Dev,
            Some("build") => DependencyKind::Build,
            _ => DependencyKind::Normal,
        };
        dependencies.push(Dependency {
            name: string(dependency, "name")?.to_owned(),
            kind,
        });
    }
    let mut examples = Vec::new();
    for target in array(package, "targets")? {
        if array(target, "kind")?.iter().any(|kind| kind == "example") {
            examples.push(string(target, "name")?.to_owned());
        }
    }
    Ok(Member {
        name: string(package, "name")?.to_owned(),
        dir: dir.to_string_lossy().replace('\\', "/"),
        license: license(package),
        dependencies,
        examples,
    })
}

fn license(package: &Value) -> Option<String> {
    package
        .get("license")
        .and_then(Value::as_str)
        .map(str::to_owned)
}

fn string<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value
        .get(key)
        .and_then(Value::as_str)
        .with_context(|| format!("no string {key:?}"))
}

fn array<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    value
        .get(key)
        .and_then(Value::as_array)
        .with_context(|| format!("no array {key:?}"))
}

#[cfg(test)]
mod tests;
