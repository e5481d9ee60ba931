//! The text of an answer in which stop texts and marks are looked for: the reference looks for them
//! with special tokens written out, and what is shown has none.

use std::ops::Range;

use crate::{Result, Tokenizer};

/// A text with its special tokens written out, and where these are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marked {
    text: String,
    /// Bytes of special tokens, ascending.
    special: Vec<Range<usize>>,
}

impl Marked {
    /// A text without special tokens.
    #[must_use]
    pub fn plain(text: String) -> Self {
        let special = Vec::new();
        Self { text, special }
    }

    /// The text of tokens.
    ///
    /// # Errors
    /// If the tokenizer rejects them.
    pub fn of(tokenizer: &Tokenizer, ids: &[u32]) -> Result<Self> {
        let whole = tokenizer.decode(ids, false)?;
        if whole == tokenizer.decode(ids, true)? {
            return Ok(Self::plain(whole));
        }
        let is_special = |id: &u32| -> Result<bool> {
            let is_hidden = tokenizer.decode(&[*id], true)?.is_empty();
            Ok(is_hidden && !tokenizer.decode(&[*id], false)?.is_empty())
        };
        let flags: Vec<bool> = ids.iter().map(is_special).collect::<Result<_>>()?;
        let (mut marked, mut start) = (Self::default(), 0);
        for run in flags.chunk_by(|a, b| a == b) {
            let from = marked.text.len();
            let ids = &ids[start..start + run.len()];
            marked.text.push_str(&tokenizer.decode(ids, false)?);
            if run[0] {
                marked.special.push(from..marked.text.len());
            }
            start += run.len();
        }
        Ok(marked)
    }

    /// Without the beginning of a character that is not whole yet.
    #[must_use]
    pub fn of_whole_characters(mut self) -> Self {
        let whole = self.text.trim_end_matches(char::REPLACEMENT_CHARACTER);
        self.cut(whole.len());
        self
    }

    /// The text with special tokens.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is shown of a part, bytes of [`Self::text`]: all but special tokens.
    ///
    /// # Panics
    /// If the part is not of whole characters of the text.
    #[must_use]
    pub fn shown(&self, part: Range<usize>) -> String {
        let (mut shown, mut from) = (String::new(), part.start);
        for special in &self.special {
            if special.end <= from || special.start >= part.end {
                continue;
            }
            shown.push_str(&self.text[from..special.start.max(from)]);
            from = special.end.min(part.end);
        }
        shown + &self.text[from..part.end]
    }

    /// Leaves out what comes from a place on.
    pub(super) fn cut(&mut self, at: usize) {
        self.text.truncate(at);
        self.special.retain(|special| special.start < at);
        if let Some(last) = self.special.last_mut() {
            last.end = last.end.min(at);
        }
    }

    /// Leaves out the first of some texts and what comes after it; whether there was one.
    pub fn end_before(&mut self, stops: &[String]) -> bool {
        let stops = stops.iter().filter(|stop| !stop.is_empty());
        let first = stops.filter_map(|stop| self.text.find(stop)).min();
        if let Some(at) = first {
            self.cut(at);
        }
        first.is_some()
    }

    /// Leaves out what may be the beginning of one of some texts.
    pub(super) fn hold<'t>(&mut self, texts: impl Iterator<Item = &'t str>) {
        let text = &self.text;
        let begins = |wanted: &str| {
            let longest = wanted.len().saturating_sub(1).min(text.len());
            let is_begin = |n: &usize| wanted.is_char_boundary(*n) && text.ends_with(&wanted[..*n]);
            (1..=longest).rev().find(is_begin).unwrap_or(0)
        };
        let held = texts.map(begins).max().unwrap_or(0);
        self.cut(self.text.len() - held);
    }
}

#[cfg(test)]
mod tests {
    //! Tests of texts with special tokens.

    use super::*;

    /// Letters, and one special token `<|end|>`.
    fn tokenizer() -> Tokenizer {
        let file = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
            "added_tokens": [{
                "id": 3, "content": "<|end|>", "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            }],
            "pre_tokenizer": null, "post_processor": null, "decoder": { "type": "Fuse" },
            "model": {
                "type": "BPE", "vocab": { "a": 0, "b": 1, "c": 2, "<|end|>": 3 }, "merges": [],
            },
        });
        Tokenizer::from_bytes(file.to_string().as_bytes()).expect("a tokenizer")
    }

    fn of(ids: &[u32]) -> Marked {
        Marked::of(&tokenizer(), ids).expect("tokens")
    }

    fn whole(marked: &Marked) -> String {
        marked.shown(0..marked.text().len())
    }

    #[test]
    fn special_tokens_are_found_and_not_shown() {
        let marked = of(&[0, 3, 1, 1, 3, 3, 2]);
        assert_eq!(marked.text(), "a<|end|>bb<|end|><|end|>c");
        assert_eq!(whole(&marked), "abbc");
        assert_eq!(marked.shown(3..9), "b");
        assert_eq!(marked.shown(2..6), "");
        let mut cut = marked.clone();
        cut.cut(4);
        assert_eq!((cut.text(), whole(&cut)), ("a<|e", "a".to_owned()));
        assert_eq!(of(&[0, 1]), Marked::plain("ab".to_owned()));
    }

    #[test]
    fn an_answer_ends_before_its_first_stop() {
        let check = |stops: &[&str], text: &str, is_stopped: bool| {
            let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
            let mut marked = of(&[0, 1, 3, 2, 1]);
            assert_eq!(marked.end_before(&stops), is_stopped, "{stops:?}");
            assert_eq!(whole(&marked), text, "{stops:?}");
        };
        check(&[], "abcb", false);
        check(&["", "cc"], "abcb", false);
        check(&["b"], "a", true);
        check(&["c", "<|end|>"], "ab", true);
        // Characters of both sides of a special token.
        check(&["bc"], "abcb", false);
        check(&["|>c"], "ab", true);
    }

    #[test]
    fn what_may_become_a_stop_is_held() {
        let check = |text: &str, texts: &[&str], held: &str| {
            let mut marked = Marked::plain(text.to_owned());
            marked.hold(texts.iter().copied());
            assert_eq!(marked.text(), held);
        };
        check("abcd", &["cdx", "dab"], "ab");
        check("abcd", &["abcd"], "abcd");
        check("春夏", &["夏天"], "春");
        check("ab\u{fffd}", &[], "ab\u{fffd}");
        assert_eq!(
            Marked::plain("ab\u{fffd}".to_owned())
                .of_whole_characters()
                .text(),
            "ab"
        );
    }
}
