//! Tokens of PTX text.

use super::PtxError;

/// One token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// An identifier, directive, opcode or register, dots included.
    Word(String),
    Int(i64),
    F32(u32),
    F64(u64),
    Text(String),
    Mark(char),
}

/// Splits `source` into tokens, each with its line, numbered from 1. Comments are dropped.
pub(crate) fn lex(source: &str) -> Result<Vec<(Token, u32)>, PtxError> {
    let bytes = source.as_bytes();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let rest = &bytes[at..];
        match rest[0] {
            b'\n' => {
                line += 1;
                at += 1;
            }
            c if c.is_ascii_whitespace() => at += 1,
            b'/' if rest.starts_with(b"//") => {
                at += rest.iter().position(|&c| c == b'\n').unwrap_or(rest.len());
            }
            b'/' if rest.starts_with(b"/*") => {
                let end = rest
                    .windows(2)
                    .position(|w| w == b"*/")
                    .map_or(rest.len(), |p| p + 2);
                line += count_newlines(&rest[..end]);
                at += end;
            }
            b'"' => {
                let end = rest[1..]
                    .iter()
                    .position(|&c| c == b'"')
                    .map_or(rest.len(), |p| p + 2);
                let inner = &source[at + 1..at + end - 1];
                tokens.push((Token::Text(inner.to_owned()), line));
                at += end;
            }
            c if is_word(c) => {
                let end = word_end(rest);
                let word = &source[at..at + end];
                let token = if c.is_ascii_digit() {
                    number(word).ok_or_else(|| PtxError {
                        line,
                        text: word.to_owned(),
                        reason: "not a number".to_owned(),
                    })?
                } else {
                    Token::Word(word.to_owned())
                };
                tokens.push((token, line));
                at += end;
            }
            c => {
                tokens.push((Token::Mark(char::from(c)), line));
                at += 1;
            }
        }
    }
    Ok(tokens)
}

fn count_newlines(text: &[u8]) -> u32 {
    u32::try_from(text.iter().filter(|&&c| c == b'\n').count()).unwrap_or(u32::MAX)
}

fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'_' | b'$' | b'%' | b'.')
}

/// A word ends at the first byte that is not part of one; `::` is part of one, `:` is not.
fn word_end(rest: &[u8]) -> usize {
    let mut end = 0;
    while end < rest.len() {
        if is_word(rest[end]) {
            end += 1;
        } else if rest[end..].starts_with(b"::") {
            end += 2;
        } else {
            break;
        }
    }
    end
}

/// `0x1F`, `017`, `0b1`, `12U`, `0f3F800000`, `0d3FF0000000000000`, `1.5`.
fn number(word: &str) -> Option<Token> {
    let lower = word.to_ascii_lowercase();
    if let Some(hex) = lower.strip_prefix("0f") {
        return u32::from_str_radix(hex, 16).ok().map(Token::F32);
    }
    if let Some(hex) = lower.strip_prefix("0d") {
        return u64::from_str_radix(hex, 16).ok().map(Token::F64);
    }
    if lower.contains('.') && !lower.starts_with("0x") {
        return lower
            .parse::<f64>()
            .ok()
            .map(|value| Token::F64(value.to_bits()));
    }
    let digits = lower.trim_end_matches('u');
    let value = if let Some(hex) = digits.strip_prefix("0x") {
        u64::from_str_radix(hex, 16).ok()?
    } else if let Some(bits) = digits.strip_prefix("0b") {
        u64::from_str_radix(bits, 2).ok()?
    } else {
        digits.parse().ok()?
    };
    Some(Token::Int(value.cast_signed()))
}
