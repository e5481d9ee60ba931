//! The source of a template, written in the words of minijinja.

use minijinja::Error;
use minijinja::machinery::{Token, tokenize};

use super::environment::syntax;

/// The function that stands for `%`.
pub(super) const MODULO: &str = "_modulo";

/// The function that stands for `+`, where a template marks texts as safe.
pub(super) const ADD: &str = "_add";

/// Filters whose result is safe: a text that is added to it is escaped.
const SAFE: [&str; 4] = ["safe", "escape", "e", "forceescape"];

/// Turns what transformers' environment has and minijinja has not into what it has:
///
/// - every line ends with one LF, as Jinja reads it;
/// - `{% generation %}`, which marks what the assistant says, is a scope of its own (`with`);
/// - the newline after `{% raw %}` stays;
/// - `a % b`, which formats a text in Python, is a call of [`MODULO`];
/// - a sign `+` is left out;
/// - `a + b` is one of [`ADD`], where a template has a filter such as `safe`.
///
/// A source that has none of them, or that is no template at all, is returned as it is; what is
/// wrong with it is said when it is rendered.
pub(super) fn prepare(source: &str) -> String {
    let source = keep_raw_lines(&source.replace("\r\n", "\n").replace('\r', "\n"));
    match edits(&source) {
        Ok(edits) => apply(&source, edits),
        Err(_) => source,
    }
}

/// Doubles a newline after `{% raw %}`: `trim_blocks` takes one away, which Jinja2 leaves.
fn keep_raw_lines(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let name = tag[2..].trim_start_matches(['-', '+']).trim_start();
        let end = name.strip_prefix("raw").map(str::trim_start);
        match end.and_then(|end| end.strip_prefix("%}")) {
            Some(text) => {
                let (tag, body) = tag.split_at(tag.len() - text.len());
                // What is inside is no tag.
                let length = body.find("endraw").unwrap_or(body.len());
                out.push_str(tag);
                out.push_str(if body.starts_with('\n') { "\n" } else { "" });
                out.push_str(&body[..length]);
                rest = &body[length..];
            }
            None => {
                out.push_str("{%");
                rest = &tag[2..];
            }
        }
    }
    out + rest
}

/// A stretch of the source, and what takes its place.
#[derive(Debug)]
struct Edit {
    start: usize,
    end: usize,
    text: String,
    /// Place among the edits that begin at the same byte.
    rank: isize,
}

fn apply(source: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| (edit.start, edit.rank));
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    for edit in edits {
        out.push_str(&source[at..edit.start]);
        out.push_str(&edit.text);
        at = edit.end;
    }
    out + &source[at..]
}

fn edits(source: &str) -> Result<Vec<Edit>, Error> {
    let tokens = tokenize(source, false, syntax()?).collect::<Result<Vec<_>, _>>()?;
    let has_safe_texts = tokens.windows(2).any(|pair| {
        matches!(&pair[0].0, Token::Pipe)
            && matches!(&pair[1].0, Token::Ident(name) if SAFE.contains(name))
    });
    let mut edits = Vec::new();
    for (at, (token, span)) in tokens.iter().enumerate() {
        let mut edit = |start: u32, end: u32, text: String, rank: isize| {
            let (start, end) = (start as usize, end as usize);
            edits.push(Edit {
                start,
                end,
                text,
                rank,
            });
        };
        let (function, level) = match token {
            Token::Ident(name @ ("generation" | "endgeneration"))
                if at > 0 && matches!(tokens[at - 1].0, Token::BlockStart) =>
            {
                let text = name.replace("generation", "with");
                edit(span.start_offset, span.end_offset, text, 0);
                continue;
            }
            Token::Plus if is_sign(&tokens, at) => {
                edit(span.start_offset, span.end_offset, String::new(), 0);
                continue;
            }
            Token::Mod => (MODULO, Level::Product),
            Token::Plus if has_safe_texts => (ADD, Level::Sum),
            _ => continue,
        };
        let first = left_operand(&tokens, at, level);
        let last = right_operand(&tokens, at, level);
        // Where several calls begin or end, the longer one is outside.
        let length = isize::try_from(last - first).unwrap_or(isize::MAX);
        let (start, end) = (tokens[first].1.start_offset, tokens[last].1.end_offset);
        edit(start, start, format!("{function}("), -length);
        edit(span.start_offset, span.end_offset, ",".to_owned(), 0);
        edit(end, end, ")".to_owned(), isize::MIN + length);
    }
    Ok(edits)
}

/// How tightly an operator binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Product,
    Sum,
}

type Tokens<'a> = [(Token<'a>, minijinja::machinery::Span)];

/// Where the chain of products or sums begins whose last operator so far is the token `at`.
fn left_operand(tokens: &Tokens<'_>, at: usize, level: Level) -> usize {
    let mut depth = 0;
    let mut first = at;
    while first > 0 {
        let (token, _) = &tokens[first - 1];
        if is_close(token) {
            depth += 1;
        } else if depth > 0 {
            depth -= usize::from(is_open(token));
        } else if ends_operand(token) && !is_sign(tokens, first - 1) {
            let is_inside = matches!(token, Token::Plus | Token::Minus | Token::Tilde);
            if level == Level::Product || !is_inside {
                break;
            }
        }
        first -= 1;
    }
    first
}

/// The last token of the operand after the operator `at`.
fn right_operand(tokens: &Tokens<'_>, at: usize, level: Level) -> usize {
    let mut depth = 0;
    let mut last = at;
    while let Some((token, _)) = tokens.get(last + 1) {
        let is_inside = match level {
            Level::Product => false,
            Level::Sum => matches!(token, Token::Tilde),
        };
        let is_next = level == Level::Product
            && matches!(
                token,
                Token::Mul | Token::Div | Token::FloorDiv | Token::Mod
            );
        if is_open(token) {
            depth += 1;
        } else if depth > 0 {
            depth -= usize::from(is_close(token));
        } else if is_next || (ends_operand(token) && !is_inside && !is_sign(tokens, last + 1)) {
            break;
        }
        last += 1;
    }
    last
}

/// Whether the token is a plus or minus that belongs to the operand after it.
fn is_sign(tokens: &Tokens<'_>, at: usize) -> bool {
    matches!(tokens[at].0, Token::Plus | Token::Minus) && at > 0 && !ends_value(&tokens[at - 1].0)
}

/// Tokens after which an operator comes, not an operand.
fn ends_value(token: &Token<'_>) -> bool {
    match token {
        Token::Ident(_) => !ends_operand(token),
        Token::Str(_) | Token::String(_) | Token::Int(_) | Token::Int128(_) | Token::Float(_) => {
            true
        }
        _ => is_close(token),
    }
}

fn is_open(token: &Token<'_>) -> bool {
    matches!(
        token,
        Token::ParenOpen | Token::BracketOpen | Token::BraceOpen
    )
}

fn is_close(token: &Token<'_>) -> bool {
    matches!(
        token,
        Token::ParenClose | Token::BracketClose | Token::BraceClose
    )
}

/// Tokens that bind less than a product, so that its operands end there.
fn ends_operand(token: &Token<'_>) -> bool {
    match token {
        Token::Ident(word) => matches!(
            *word,
            "and" | "or" | "not" | "in" | "is" | "if" | "else" | "elif" | "set" | "recursive"
        ),
        Token::Plus
        | Token::Minus
        | Token::Tilde
        | Token::Comma
        | Token::Colon
        | Token::Assign
        | Token::Eq
        | Token::Ne
        | Token::Gt
        | Token::Gte
        | Token::Lt
        | Token::Lte
        | Token::VariableStart
        | Token::VariableEnd
        | Token::BlockStart
        | Token::BlockEnd
        | Token::TemplateData(_) => true,
        _ => is_open(token) || is_close(token),
    }
}
