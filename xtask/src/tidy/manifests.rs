//! What every `Cargo.toml` of the workspace has in common.

use super::Offence;
use crate::metadata::Member;

const LICENSE: &str = "MIT OR Apache-2.0";

pub(super) fn check(members: &[Member]) -> Vec<Offence> {
    let mut offences = Vec::new();
    for member in members {
        let manifest = format!("{}/Cargo.toml", member.dir);
        if member.license.as_deref() != Some(LICENSE) {
            let wrong = format!("the license is not {LICENSE}");
            offences.push(Offence::new(
                &manifest,
                wrong,
                "write `license.workspace = true`",
            ));
        }
        if let Some(folder) = member.dir.strip_prefix("crates/")
            && folder != member.name
        {
            let wrong = format!("the package is named {}", member.name);
            let fix = format!(
                "rename it to {folder}, or its folder to crates/{}",
                member.name
            );
            offences.push(Offence::new(&manifest, wrong, fix));
        }
    }
    offences
}

#[cfg(test)]
mod tests;
