//! The reasoning of an answer, between `<think>` and `</think>`, and the rest.

use super::Marked;
use crate::Tokenizer;

/// How the reasoning of an answer is told from the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reasoning {
    /// Whether the prompt ends with its beginning.
    is_begun: bool,
}

/// The two parts of an answer; without reasoning it is all content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// What the model reasoned before it answered.
    pub reasoning: String,
    /// The answer.
    pub content: String,
}

impl Parts {
    /// A text without reasoning.
    pub(super) fn content(text: &Marked) -> Self {
        Self {
            reasoning: String::new(),
            content: text.shown(0..text.text().len()),
        }
    }
}

impl Reasoning {
    /// What it begins with, in the template or in the answer.
    pub const BEGIN: &str = "<think>";
    /// What it ends with.
    pub const END: &str = "</think>";

    /// The tokens of [`Self::END`], if a tokenizer has any.
    #[must_use]
    pub fn end_ids(tokenizer: &Tokenizer) -> Option<Vec<u32>> {
        match tokenizer.token_to_id(Self::END) {
            Some(id) => Some(vec![id]),
            None => {
                let ids = tokenizer.encode_strict(Self::END).ok()?;
                (!ids.is_empty()).then_some(ids)
            }
        }
    }

    /// That of answers to a prompt. `None`: the prompt begins none, and the model has no token for
    /// its end.
    #[must_use]
    pub fn of(tokenizer: &Tokenizer, prompt: &[u32]) -> Option<Self> {
        /// Tokens in which the beginning and a line end are found, even of bytes.
        const TAIL: usize = 16;
        let tail = &prompt[prompt.len().saturating_sub(TAIL)..];
        let tail = tokenizer.decode(tail, false).unwrap_or_default();
        let is_begun = tail.trim_end().ends_with(Self::BEGIN);
        (is_begun || tokenizer.token_to_id(Self::END).is_some()).then_some(Self { is_begun })
    }

    /// The parts of a whole answer. Where neither the prompt nor the answer begins reasoning, all
    /// before its end is reasoning.
    pub(super) fn split(self, answer: &Marked) -> Parts {
        self.parts(answer, true)
    }

    /// The parts of an answer, or of the beginning of one, of which no later text takes anything
    /// back: text that nothing has announced as reasoning is content, with the mark that ends it.
    pub(super) fn split_streamed(self, answer: &Marked) -> Parts {
        self.parts(answer, false)
    }

    /// Leaves out of the beginning of an answer what may be the beginning of a mark.
    pub(super) fn hold(self, answer: &mut Marked) {
        if !self.is_begun && Self::BEGIN.starts_with(answer.text().trim_start()) {
            answer.cut(0);
        }
        answer.hold([Self::END].into_iter());
    }

    fn parts(self, answer: &Marked, is_whole: bool) -> Parts {
        let text = answer.text();
        let own = text.len() - text.trim_start().len();
        let begun = match text[own..].starts_with(Self::BEGIN) {
            true => Some(own + Self::BEGIN.len()),
            false => self.is_begun.then_some(0),
        };
        let start = begun.unwrap_or(0);
        let end = text[start..].find(Self::END).map(|at| start + at);
        let shown = |from, to| answer.shown(from..to);
        match (begun, end) {
            (None, Some(end)) if !is_whole => {
                let rest = shown(end + Self::END.len(), text.len());
                Parts {
                    reasoning: String::new(),
                    content: shown(0, end) + Self::END + &rest,
                }
            }
            (None, None) => Parts::content(answer),
            (_, Some(end)) => Parts {
                reasoning: shown(start, end).trim().to_owned(),
                content: shown(end + Self::END.len(), text.len())
                    .trim_start()
                    .to_owned(),
            },
            (Some(start), None) => Parts {
                reasoning: shown(start, text.len()).trim().to_owned(),
                content: String::new(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    //! Tests of the parts of an answer.

    use super::*;

    const PLAIN: Reasoning = Reasoning { is_begun: false };
    const BEGUN: Reasoning = Reasoning { is_begun: true };

    fn marked(text: &str) -> Marked {
        Marked::plain(text.to_owned())
    }

    #[track_caller]
    fn check(reasoning: Reasoning, text: &str, whole: [&str; 2], streamed: [&str; 2]) {
        let parts = |[reasoning, content]: [&str; 2]| Parts {
            reasoning: reasoning.to_owned(),
            content: content.to_owned(),
        };
        assert_eq!(reasoning.split(&marked(text)), parts(whole));
        assert_eq!(reasoning.split_streamed(&marked(text)), parts(streamed));
    }

    #[test]
    fn reasoning_is_begun_by_the_template_or_the_answer() {
        let both = ["so", "it is"];
        check(PLAIN, "<think>\nso\n</think>\n\nit is", both, both);
        check(PLAIN, "\n<think>so</think>it is", both, both);
        check(BEGUN, "so\n</think>\n\nit is", both, both);
        check(BEGUN, "<think>so</think>it is", both, both);
        check(PLAIN, "it is", ["", "it is"], ["", "it is"]);
        check(BEGUN, "so", ["so", ""], ["so", ""]);
        check(
            PLAIN,
            "<think>\n\n</think>\n\nit is",
            ["", "it is"],
            ["", "it is"],
        );
        // Nobody knew that it was reasoning.
        check(PLAIN, "so</think>it is", both, ["", "so</think>it is"]);
    }

    #[test]
    fn a_stream_takes_nothing_back() {
        for (reasoning, text) in [
            (PLAIN, " <think> so \n it</think>\n\n <b> is </thinking> "),
            (BEGUN, "\n so < </thin </think> it <think> "),
            (PLAIN, "<thing> so</think> it"),
            (PLAIN, "<"),
        ] {
            let mut given = Parts::default();
            for (end, _) in text.char_indices() {
                let mut settled = marked(&text[..end]);
                reasoning.hold(&mut settled);
                let parts = reasoning.split_streamed(&settled);
                assert!(
                    parts.reasoning.starts_with(&given.reasoning),
                    "{text} {end}"
                );
                assert!(parts.content.starts_with(&given.content), "{text} {end}");
                given = parts;
            }
            let whole = reasoning.split_streamed(&marked(text));
            assert!(whole.reasoning.starts_with(&given.reasoning), "{text}");
            assert!(whole.content.starts_with(&given.content), "{text}");
        }
    }
}
