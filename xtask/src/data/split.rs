//! Held-out poems, and poems that are versions of one another.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use super::clean::{clauses, is_han};

/// One poem in so many is held out.
const HELD_OUT_SHARE: u64 = 100;
/// Fewest characters that two neighboring clauses must have to tell a poem.
const MIN_COUPLET: usize = 10;
/// Fewest characters of a clause of which two tell a poem.
const MIN_CLAUSE: usize = 5;

/// The FNV-1a hash of `bytes`, 64 bits.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The characters of a poem without punctuation, by which poems are compared.
pub(crate) fn key(poem: &str) -> String {
    poem.chars()
        .filter(|&character| is_han(character))
        .collect()
}

/// Whether the poem is held out: a matter of its characters alone, not of the other poems.
pub(crate) fn is_held_out(poem: &str) -> bool {
    // The low bits of FNV-1a depend on few bits of the text.
    (fnv1a(key(poem).as_bytes()) >> 32).is_multiple_of(HELD_OUT_SHARE)
}

/// Poems by their clauses, to find versions of them.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    couplets: BTreeSet<String>,
    clauses: BTreeMap<String, Vec<usize>>,
    n_poems: usize,
}

impl Versions {
    /// Adds a poem.
    pub(crate) fn add(&mut self, poem: &str) {
        self.couplets.extend(couplets(poem));
        for clause in long_clauses(poem) {
            self.clauses
                .entry(clause.to_owned())
                .or_default()
                .push(self.n_poems);
        }
        self.n_poems += 1;
    }

    /// Whether `poem` has a whole couplet of at least ten characters, or two clauses of at least
    /// five, in common with one of the poems.
    pub(crate) fn has_version_of(&self, poem: &str) -> bool {
        if couplets(poem).any(|couplet| self.couplets.contains(&couplet)) {
            return true;
        }
        let mut shared = BTreeSet::new();
        let found: BTreeSet<&str> = long_clauses(poem).collect();
        found
            .into_iter()
            .filter_map(|clause| self.clauses.get(clause))
            .flat_map(|poems| poems.iter().copied().collect::<BTreeSet<usize>>())
            .any(|other| !shared.insert(other))
    }
}

/// Each two neighboring clauses in one, if they are long enough.
fn couplets(poem: &str) -> impl Iterator<Item = String> {
    let clauses: Vec<String> = clauses(poem).into_iter().map(key).collect();
    let pairs: Vec<String> = clauses.windows(2).map(<[String]>::concat).collect();
    pairs
        .into_iter()
        .filter(|pair| pair.chars().count() >= MIN_COUPLET)
}

fn long_clauses(poem: &str) -> impl Iterator<Item = &str> {
    clauses(poem)
        .into_iter()
        .filter(|clause| clause.chars().count() >= MIN_CLAUSE)
}
