//! Texts as ids, with what of them is unknown.

use crate::error::{Error, Result};

/// The ids of a text, and what of it the vocabulary lacks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoded {
    /// The ids.
    pub ids: Vec<u32>,
    /// Those of them that stand for something unknown, ascending.
    pub unknown: Vec<Unknown>,
}

/// A part of a text that is not in the vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// Index of its token.
    pub at: usize,
    /// Its place in the text, counted in characters from 1.
    pub position: usize,
    /// What stands there.
    pub text: String,
}

impl Encoded {
    /// The ids, if all of the text is known.
    ///
    /// # Errors
    /// [`Error::UnknownCharacter`] with the first character that is not.
    pub fn strict(self) -> Result<Vec<u32>> {
        match self.unknown.first() {
            Some(unknown) => Err(Error::UnknownCharacter {
                character: unknown.text.chars().next().unwrap_or_default(),
                position: unknown.position,
            }),
            None => Ok(self.ids),
        }
    }

    /// Checks that something of the text is known.
    ///
    /// # Errors
    /// [`Error::UnknownText`] if nothing is.
    pub fn check(self) -> Result<Self> {
        match self.unknown.len() == self.ids.len() && !self.ids.is_empty() {
            true => Err(Error::UnknownText {
                text: self
                    .unknown
                    .iter()
                    .map(|unknown| &*unknown.text)
                    .take(12)
                    .collect(),
            }),
            false => Ok(self),
        }
    }
}
