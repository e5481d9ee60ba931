//! Log-probabilities of tokens, in the form of OpenAI's completions.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::model::Model;
use crate::progress::Written;

/// `ln p` of the tokens of a prompt, and the likeliest in the place of each.
pub(crate) type PromptScores = Vec<(f64, Vec<(u32, f64)>)>;

/// Log-probabilities in the form of OpenAI's completions.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Logprobs {
    tokens: Vec<String>,
    /// In nats; the first token of an echoed prompt has none.
    token_logprobs: Vec<Option<f64>>,
    top_logprobs: Option<Vec<Option<BTreeMap<String, f64>>>>,
    /// Where each token begins in the text, in characters.
    text_offset: Vec<usize>,
}

/// Log-probabilities of the tokens of a choice, with so many likeliest ones in the place of each: of
/// an echoed prompt with its scores, and of the answer.
pub(crate) fn logprobs(
    model: &Model,
    n: usize,
    echo: Option<(&[u32], &PromptScores)>,
    written: Option<&Written>,
) -> Logprobs {
    let mut logprobs = Logprobs {
        tokens: Vec::new(),
        token_logprobs: Vec::new(),
        top_logprobs: (n > 0).then(Vec::new),
        text_offset: Vec::new(),
    };
    let mut offset = 0;
    let text = |id: u32| model.llada.tokenizer.decode(&[id], false);
    let text = |id: u32| text(id).unwrap_or_default();
    let mut push = |id: u32, log_p: Option<f64>, top: Option<BTreeMap<String, f64>>| {
        let token = text(id);
        logprobs.text_offset.push(offset);
        offset += token.chars().count();
        logprobs.tokens.push(token);
        logprobs.token_logprobs.push(log_p);
        if let Some(all) = &mut logprobs.top_logprobs {
            all.push(top);
        }
    };
    if let Some((ids, scores)) = echo {
        // The first token has none before it.
        let scores = std::iter::once(None).chain(scores.iter().map(Some));
        for (&id, score) in ids.iter().zip(scores) {
            let top = score.map(|(_, top)| {
                let top = top.iter().map(|&(id, log_p)| (text(id), log_p));
                top.collect()
            });
            push(id, score.map(|(log_p, _)| *log_p), top);
        }
    }
    if let Some(written) = written {
        for &(id, log_p) in &written.token_logprobs {
            let top = BTreeMap::from([(text(id), log_p)]);
            push(id, Some(log_p), Some(top));
        }
    }
    logprobs
}
