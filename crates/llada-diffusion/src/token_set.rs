//! Sets of tokens.

/// A set of token ids, a bit for each id of a vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSet {
    words: Vec<u64>,
}

impl TokenSet {
    /// The ids below `vocab_size` that `is_in` accepts.
    #[must_use]
    pub fn new(vocab_size: usize, is_in: impl Fn(u32) -> bool) -> Self {
        let mut words = vec![0; vocab_size.div_ceil(64)];
        for (at, id) in (0..vocab_size).zip(0..) {
            words[at / 64] |= u64::from(is_in(id)) << (at % 64);
        }
        Self { words }
    }

    /// Whether the set has this id.
    #[must_use]
    pub fn contains(&self, id: u32) -> bool {
        let word = self.words.get(id as usize / 64).copied().unwrap_or(0);
        word >> (id % 64) & 1 == 1
    }

    /// The ids, ascending.
    pub fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        let words = self.words.iter().zip((0..).step_by(64));
        words.flat_map(|(&word, start)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let at = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(start + at)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::TokenSet;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let ids = [0, 1, 63, 64, 127, 128, 199];
        let set = TokenSet::new(200, |id| ids.contains(&id));
        assert_eq!(set.ids().collect::<Vec<_>>(), ids);
        for id in 0..300 {
            assert_eq!(set.contains(id), ids.contains(&id), "{id}");
        }
        let none = TokenSet::new(0, |_| true);
        assert_eq!((none.ids().next(), none.contains(0)), (None, false));
        assert_eq!(TokenSet::new(65, |_| true).ids().count(), 65);
    }
}
