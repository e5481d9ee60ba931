//! What an answer is as a text: where it ends, and what of it is reasoning.

mod marked;
mod reasoning;

use crate::{Result, Tokenizer};

pub use marked::Marked;
pub use reasoning::{Parts, Reasoning};

/// What is looked for in the text of an answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct AnswerForm<'a> {
    /// It ends before the first of them.
    pub stops: &'a [String],
    /// How reasoning is told from the rest; `None`: all is one text.
    pub reasoning: Option<Reasoning>,
}

impl AnswerForm<'_> {
    /// The text of tokens; where nothing is looked for in it, without special tokens.
    ///
    /// # Errors
    /// If the tokenizer rejects them.
    pub fn marked(&self, tokenizer: &Tokenizer, ids: &[u32]) -> Result<Marked> {
        match self.stops.is_empty() && self.reasoning.is_none() {
            true => tokenizer.decode(ids, true).map(Marked::plain),
            false => Marked::of(tokenizer, ids),
        }
    }

    /// Leaves out of the beginning of an answer what may be the beginning of a stop or of a mark of
    /// reasoning, so that nothing that is given of it is taken back.
    pub fn hold(&self, text: &mut Marked) {
        text.hold(self.stops.iter().map(String::as_str));
        if let Some(reasoning) = self.reasoning {
            reasoning.hold(text);
        }
    }

    /// The parts of a whole answer. Where neither the prompt nor the answer begins reasoning, all
    /// before its end is reasoning.
    #[must_use]
    pub fn parts(&self, answer: &Marked) -> Parts {
        match self.reasoning {
            Some(reasoning) => reasoning.split(answer),
            None => Parts::content(answer),
        }
    }

    /// The parts of an answer, or of the beginning of one, of which no later text takes anything
    /// back: text that nothing has announced as reasoning is content, with the mark that ends it.
    #[must_use]
    pub fn streamed(&self, answer: &Marked) -> Parts {
        match self.reasoning {
            Some(reasoning) => reasoning.split_streamed(answer),
            None => Parts::content(answer),
        }
    }
}
