//! The tokens of a model that can stand in a value of JSON.

use llada_diffusion::TokenSet;
use llada_sample::Policy;
use llada_text::{Tokenizer, Unknown};

use super::number::NumberRule;
use super::{Result, StructuredError};

/// The tokens of a model that can stand in a value of JSON: made once for each model, as every token
/// is decoded for it.
#[derive(Debug)]
pub struct JsonVocabulary {
    /// `[V]`: the text of each token that can stand inside of a string, of the others nothing.
    texts: Vec<Box<str>>,
    /// `[V]`: characters of the texts.
    lengths: Vec<usize>,
    /// Tokens of digits, signs and points, with their texts.
    digits: Vec<(u32, String)>,
    /// Tokens after which nothing of a string counts: the EOS and, if it is one token, the quote.
    ends: Vec<u32>,
    eos_token_id: u32,
    /// Whether each text is a single character.
    is_character_level: bool,
}

impl JsonVocabulary {
    /// # Errors
    /// [`StructuredError::Characters`] if the tokenizer lacks the quote or a digit.
    pub(crate) fn new(tokenizer: &Tokenizer, policy: &Policy) -> Result<Self> {
        let vocab_size = policy.info.vocab_size;
        let quote = encode(tokenizer, "\"")?;
        encode(tokenizer, "0123456789")?;
        let further = [policy.unk_token_id, policy.eot_token_id];
        let mut never: Vec<u32> = policy.ends().chain(further.into_iter().flatten()).collect();
        never.push(policy.info.mask_token_id);
        let mut texts: Vec<Box<str>> = vec![Box::default(); vocab_size];
        let mut digits = Vec::new();
        let ids = 0..u32::try_from(vocab_size).unwrap_or(u32::MAX);
        for id in ids.filter(|id| !never.contains(id)) {
            // Between quotes, as some decoders leave out spaces at the ends of a text.
            let ids = [&quote[..], &[id], &quote].concat();
            let text = tokenizer.decode(&ids, true)?;
            let Some(text) = text.strip_prefix('"').and_then(|x| x.strip_suffix('"')) else {
                continue;
            };
            if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || "-.".contains(c)) {
                digits.push((id, text.to_owned()));
            }
            // A part of a character becomes U+FFFD.
            let is_safe =
                |c: char| !c.is_control() && !['"', '\\', char::REPLACEMENT_CHARACTER].contains(&c);
            if text.chars().all(is_safe) {
                texts[id as usize] = text.into();
            }
        }
        let is_single = |text: &str| digits.iter().any(|(_, found)| found == text);
        let missing = ('0'..='9').filter(|digit| !is_single(&digit.to_string()));
        let missing: String = missing.collect();
        if !missing.is_empty() {
            return Err(StructuredError::Characters { missing });
        }
        let mut ends = vec![policy.info.eos_token_id];
        ends.extend(quote.first().filter(|_| quote.len() == 1));
        let lengths: Vec<usize> = texts.iter().map(|text| text.chars().count()).collect();
        Ok(Self {
            digits,
            ends,
            eos_token_id: policy.info.eos_token_id,
            is_character_level: lengths.iter().all(|&length| length <= 1),
            texts,
            lengths,
        })
    }

    /// Checks that all characters of a number have tokens; digits have.
    pub(super) fn check(&self, rule: &NumberRule) -> Result<()> {
        let is_missing = |c: &char| !self.digits.iter().any(|(_, text)| text.chars().eq([*c]));
        let missing: String = rule.characters().filter(is_missing).collect();
        match missing.is_empty() {
            true => Ok(()),
            false => Err(StructuredError::Characters { missing }),
        }
    }

    /// The tokens of a string that may have so many characters more, and its ends if it may end.
    pub(super) fn string(&self, room: usize, may_end: bool) -> TokenSet {
        TokenSet::new(self.texts.len(), |id| {
            let length = self.lengths[id as usize];
            (1..=room).contains(&length) || may_end && self.ends.contains(&id)
        })
    }

    /// The tokens that `begins` accepts after a part of a number, and those that end it: the EOS, and
    /// the token that follows a number.
    pub(super) fn number(
        &self,
        begins: impl Fn(&str) -> bool,
        ends: Option<Option<u32>>,
    ) -> Option<TokenSet> {
        let mut ids: Vec<u32> = (self.digits.iter())
            .filter(|(_, text)| begins(text))
            .map(|(id, _)| *id)
            .collect();
        if ids.is_empty() {
            return None;
        }
        if let Some(next) = ends {
            ids.extend(next);
            ids.push(self.eos_token_id);
        }
        ids.sort_unstable();
        let is_in = |id| ids.binary_search(&id).is_ok();
        Some(TokenSet::new(self.texts.len(), is_in))
    }

    /// The text of a token of a number; `None` for one that ends it.
    pub(super) fn digits(&self, id: u32) -> Option<&str> {
        let found = self.digits.iter().find(|(digits, _)| *digits == id);
        found.map(|(_, text)| &**text)
    }

    /// The text of a token of a string, and its characters; `None` for one that ends it.
    pub(super) fn text(&self, id: u32) -> Option<(&str, usize)> {
        let at = id as usize;
        let length = *self.lengths.get(at)?;
        (length > 0).then(|| (&*self.texts[at], length))
    }

    /// Masks of a string of `length` characters.
    pub(super) fn masks_of(&self, length: usize) -> usize {
        match self.is_character_level {
            true => length,
            false => length.div_ceil(2),
        }
    }
}

/// The ids of a fixed text of JSON.
///
/// # Errors
/// [`StructuredError::Characters`] with all characters that the vocabulary lacks.
pub(super) fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let encoded = tokenizer.encode_keeping(text)?;
    let unknown = encoded
        .unknown
        .iter()
        .flat_map(|Unknown { text, .. }| text.chars());
    let mut missing: Vec<char> = unknown.collect();
    missing.sort_unstable();
    missing.dedup();
    match missing.is_empty() {
        true => Ok(encoded.ids),
        false => Err(StructuredError::Characters {
            missing: missing.into_iter().collect(),
        }),
    }
}
