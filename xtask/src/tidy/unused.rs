//! What is public is used: a public item of an inner crate that no code but tests mentions is an
//! offence.
//!
//! The search is for words: an item is used where its name stands in code that is no test, of its
//! own package or of one that depends on it, other than in definitions, `use` items and the headers
//! of `impl` blocks. What these packages call alike, a local variable say, hides an unused item.

mod tokens;

use std::collections::{BTreeMap, BTreeSet};

use super::layers::TEST_TOOLS;
use super::{File, GENERATED, Offence};
use crate::metadata::Member;
use tokens::{Token, is_word, tokens};

/// The crate whose users are elsewhere; they are shown its use by the code of the readme.
const FACADE: &str = "llada";
const README: &str = "README.md";

const HERE: &str = "xtask/src/tidy/unused.rs";

/// An item that stays although only tests use it, and why.
#[derive(Debug)]
pub(super) struct Exception {
    name: &'static str,
    package: &'static str,
    reason: &'static str,
}

pub(super) const EXCEPTIONS: &[Exception] = &[
    Exception {
        name: "by_logits",
        package: "llada-diffusion",
        reason: "for predictors of other programs, which have nothing but logits",
    },
    Exception {
        name: "losses_by_logits",
        package: "llada-diffusion",
        reason: "for predictors of other programs, which have nothing but logits",
    },
    Exception {
        name: "chain_rule",
        package: "llada-diffusion",
        reason: "eq. 15 of the paper, the likelihood in any order of tokens, for programs",
    },
    Exception {
        name: "n_passes",
        package: "llada-diffusion",
        reason: "what a likelihood will take, known before it starts, for programs",
    },
    Exception {
        name: "is_random",
        package: "llada-diffusion",
        reason: "says which estimates have a standard error, for programs",
    },
    Exception {
        name: "decode_until",
        package: "llada-text",
        reason: "it is the reference's `generate_until`, which a golden records",
    },
    Exception {
        name: "evaluate",
        package: "llada-train",
        reason: "what a run measures, for programs that train by themselves",
    },
];

/// A public item of an inner crate.
#[derive(Debug)]
struct Item<'a> {
    name: &'a str,
    package: &'a str,
    path: &'a str,
    line: usize,
}

pub(super) fn check(files: &[File], members: &[Member], exceptions: &[Exception]) -> Vec<Offence> {
    let (items, used) = search(files, members);
    let (mut offences, mut is_needed) = (Vec::new(), vec![false; exceptions.len()]);
    for item in &items {
        let mut users = users(item.package, members).into_iter();
        if users.any(|user| used.get(user).is_some_and(|used| used.contains(item.name))) {
            continue;
        }
        if let Some(at) = exceptions.iter().position(|except| except.is_for(item)) {
            is_needed[at] = true;
            continue;
        }
        let path = format!("{}:{}", item.path, item.line);
        let wrong = format!("{} is public, and only tests use it", item.name);
        let fix = format!("delete it, make it private, or except it in {HERE} with a reason");
        offences.push(Offence::new(path, wrong, fix));
    }
    for (exception, _) in exceptions
        .iter()
        .zip(is_needed)
        .filter(|(_, needed)| !needed)
    {
        let Exception {
            name,
            package,
            reason,
        } = exception;
        let wrong = match items.iter().any(|item| exception.is_for(item)) {
            true => format!("{name} of {package} is excepted ({reason}), but it is used"),
            false => format!("{name} is excepted, which is no public item of {package}"),
        };
        offences.push(Offence::new(HERE, wrong, "remove the exception"));
    }
    offences
}

/// The public items of inner crates, and the words of each package that may be uses.
fn search<'a>(
    files: &'a [File],
    members: &'a [Member],
) -> (Vec<Item<'a>>, BTreeMap<&'a str, BTreeSet<&'a str>>) {
    let (mut items, mut used) = (Vec::new(), BTreeMap::<_, BTreeSet<_>>::new());
    for file in files {
        let (path, text) = (&file.path[..], file.text.as_deref().unwrap_or_default());
        if is_test(path) || text.starts_with(GENERATED) {
            continue;
        }
        let (package, code): (_, Vec<Token<'_>>) = if path == README {
            (FACADE, rust_blocks(text).flat_map(tokens).collect())
        } else if let Some(package) = package_of(path, members).filter(|_| path.ends_with(".rs")) {
            (package, tokens(text))
        } else {
            continue;
        };
        let found = Mentions::of(&code);
        used.entry(package).or_default().extend(found.used);
        if path.starts_with("crates/") && path.contains("/src/") && package != FACADE {
            // A macro names its items where it is called.
            let public = found.public.into_iter().filter(|(name, _)| is_word(name));
            items.extend(public.map(|(name, line)| Item {
                name,
                package,
                path,
                line,
            }));
        }
    }
    (items, used)
}

impl Exception {
    fn is_for(&self, item: &Item<'_>) -> bool {
        (self.package, self.name) == (item.package, item.name)
    }
}

/// The package in whose folder a file is.
fn package_of<'a>(path: &str, members: &'a [Member]) -> Option<&'a str> {
    let is_inside = |member: &&Member| {
        let inside = path.strip_prefix(&member.dir[..]);
        inside.is_some_and(|inside| inside.starts_with('/'))
    };
    members
        .iter()
        .find(is_inside)
        .map(|member| &member.name[..])
}

/// A package and those that depend on it, on others that do, and so on.
fn users<'a>(package: &'a str, members: &'a [Member]) -> BTreeSet<&'a str> {
    let (mut found, mut next) = (BTreeSet::new(), vec![package]);
    while let Some(package) = next.pop() {
        if found.insert(package) {
            let uses = |member: &&Member| member.dependencies.iter().any(|d| d.name == package);
            next.extend(members.iter().filter(uses).map(|member| &member.name[..]));
        }
    }
    found
}

/// Tests, what only tests use, and the examples of inner crates.
fn is_test(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    let package = match parts[..] {
        ["crates", package, ..] => package,
        _ => "",
    };
    parts
        .iter()
        .any(|part| ["tests", "tests.rs"].contains(part))
        || TEST_TOOLS.contains(&package)
        || parts.contains(&"examples") && package != FACADE
}

/// The code blocks of a document that are Rust.
fn rust_blocks(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split("```").skip(1).step_by(2);
    parts.filter_map(|block| block.strip_prefix("rust"))
}

/// What a file defines and mentions.
#[derive(Debug, Default)]
struct Mentions<'a> {
    /// Public items, with their lines.
    public: Vec<(&'a str, usize)>,
    /// Words that may be uses.
    used: BTreeSet<&'a str>,
}

impl<'a> Mentions<'a> {
    fn of(code: &[Token<'a>]) -> Self {
        let mut found = Self::default();
        let word = |at: usize| code.get(at).map_or("", |token| token.text);
        let mut at = 0;
        while at < code.len() {
            let before = if at == 0 { "" } else { word(at - 1) };
            match word(at) {
                "#" if word(at + 1) == "[" && word(at + 2) == "cfg" => {
                    let end = skip_to(code, at, &["]"]);
                    let condition = code[at..end].iter().map(|token| token.text);
                    let condition: Vec<&str> = condition.collect();
                    let of_tests = condition.contains(&"test") && !condition.contains(&"not");
                    at = if of_tests {
                        end_of_item(code, end)
                    } else {
                        end
                    };
                    continue;
                }
                // `use<'a>` is a bound.
                "use" if word(at + 1) != "<" => {
                    at = skip_to(code, at, &[";"]);
                    continue;
                }
                // Elsewhere `impl` is a type.
                "impl" if ["", "}", ";", "]", "{", "unsafe"].contains(&before) => {
                    at = skip_to(code, at, &["{"]);
                    continue;
                }
                "pub" if word(at + 1) != "(" => {
                    let is_modifier = |text: &str| ["unsafe", "async", "extern"].contains(&text);
                    let mut kind = at + 1;
                    while is_modifier(word(kind)) || (word(kind), word(kind + 1)) == ("const", "fn")
                    {
                        kind += 1;
                    }
                    if word(kind) != "mod" && is_definition(word(kind)) {
                        let name = code.get(kind + 1).map(|token| (token.text, token.line));
                        found.public.extend(name);
                    }
                }
                text => {
                    if !is_definition(before) && tokens::is_word(text) {
                        found.used.insert(text);
                    }
                }
            }
            at += 1;
        }
        found
    }
}

/// Whether a name that follows is defined.
fn is_definition(keyword: &str) -> bool {
    let keywords = [
        "fn", "struct", "enum", "union", "trait", "type", "const", "static", "mod",
    ];
    keywords.contains(&keyword)
}

/// The token after the next one of `ends`.
fn skip_to(code: &[Token<'_>], from: usize, ends: &[&str]) -> usize {
    let mut rest = code[from..].iter();
    match rest.position(|token| ends.contains(&token.text)) {
        Some(distance) => from + distance + 1,
        None => code.len(),
    }
}

/// The token after an item: after a semicolon, or after the block that begins first.
fn end_of_item(code: &[Token<'_>], from: usize) -> usize {
    let start = skip_to(code, from, &[";", "{"]);
    let mut depth = usize::from(code[start - 1].text == "{");
    let mut at = start;
    while depth > 0 && at < code.len() {
        match code[at].text {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests;
