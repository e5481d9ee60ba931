//! The licenses of everything that is linked or run.

use super::Offence;
use crate::metadata::Package;

/// Permissive licenses; the same list as in `deny.toml`.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
];

pub(super) fn check(packages: &[Package]) -> Vec<Offence> {
    let mut offences = Vec::new();
    for Package {
        name,
        version,
        license,
    } in packages
    {
        let path = format!("Cargo.lock ({name} {version})");
        let Some(license) = license else {
            offences.push(Offence::new(
                path,
                "no license is declared",
                "use another package",
            ));
            continue;
        };
        match is_allowed(license) {
            Ok(true) => {}
            Ok(false) => {
                let wrong =
                    format!("the license {license:?} is not on the list of permissive ones");
                offences.push(Offence::new(path, wrong, "use another package"));
            }
            Err(problem) => {
                let wrong = format!("the license {license:?} cannot be read, {problem}");
                offences.push(Offence::new(path, wrong, "use another package"));
            }
        }
    }
    offences
}

/// Whether an SPDX expression can be met with licenses of [`ALLOWED`] alone.
///
/// `AND` binds tighter than `OR`; a slash is the old way to write `OR`.
fn is_allowed(expression: &str) -> Result<bool, String> {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let mut tokens = Tokens {
        rest: spaced.split_whitespace().collect(),
    };
    let allowed = tokens.alternatives()?;
    match tokens.rest.first() {
        None => Ok(allowed),
        Some(token) => Err(format!("{token} is not expected")),
    }
}

/// What is left of an expression.
struct Tokens<'a> {
    rest: Vec<&'a str>,
}

impl Tokens<'_> {
    fn alternatives(&mut self) -> Result<bool, String> {
        let mut allowed = self.conjunction()?;
        while self.skip("OR") {
            allowed |= self.conjunction()?;
        }
        Ok(allowed)
    }

    fn conjunction(&mut self) -> Result<bool, String> {
        let mut allowed = self.license()?;
        while self.skip("AND") {
            allowed &= self.license()?;
        }
        Ok(allowed)
    }

    fn license(&mut self) -> Result<bool, String> {
        if self.skip("(") {
            let allowed = self.alternatives()?;
            return if self.skip(")") {
                Ok(allowed)
            } else {
                Err("a ) is missing".to_owned())
            };
        }
        let name = self.name()?;
        if self.skip("WITH") {
            let exception = self.name()?;
            return Ok(ALLOWED.contains(&format!("{name} WITH {exception}").as_str()));
        }
        Ok(ALLOWED.contains(&name.as_str()))
    }

    fn name(&mut self) -> Result<String, String> {
        match self.rest.first() {
            Some(&token) if !["(", ")", "AND", "OR", "WITH"].contains(&token) => {
                self.rest.remove(0);
                Ok(token.to_owned())
            }
            _ => Err("a name is missing".to_owned()),
        }
    }

    fn skip(&mut self, token: &str) -> bool {
        let found = self.rest.first() == Some(&token);
        if found {
            self.rest.remove(0);
        }
        found
    }
}

#[cfg(test)]
mod tests;
