//! Words and signs of Rust source, without comments and literals.

/// A word or a sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    /// Counted from 1.
    pub(super) line: usize,
}

pub(super) fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let (mut found, mut rest, mut line) = (Vec::new(), text, 1);
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => 1 + string(&rest[1..]),
            '\'' => char_or_lifetime(rest),
            _ if first.is_alphanumeric() || first == '_' => {
                let is_end = |c: char| !c.is_alphanumeric() && c != '_';
                let len = rest.find(is_end).unwrap_or(rest.len());
                match literal_after(&rest[..len], &rest[len..]) {
                    Some(literal) => len + literal,
                    None => {
                        let text = &rest[..len];
                        found.push(Token { text, line });
                        len
                    }
                }
            }
            _ => {
                let text = &rest[..first.len_utf8()];
                if !first.is_whitespace() {
                    found.push(Token { text, line });
                }
                text.len()
            }
        };
        line += rest[..len].matches('\n').count();
        rest = &rest[len..];
    }
    found
}

/// Bytes of a comment, which may have others in it.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// Bytes up to the end of a string that has begun.
fn string(text: &str) -> usize {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return at + 1,
            '\\' => {
                chars.next();
            }
            _ => {}
        }
    }
    text.len()
}

/// Bytes of a character with its quotes; of a lifetime the quote.
fn char_or_lifetime(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    let is_escaped = chars.next().is_some_and(|(_, c)| c == '\\');
    if is_escaped {
        chars.next();
        let end = chars.find(|(_, c)| *c == '\'');
        return end.map_or(text.len(), |(at, _)| at + 1);
    }
    match chars.next() {
        Some((at, '\'')) => at + 1,
        _ => 1,
    }
}

/// Bytes of a literal whose prefix was `word`.
fn literal_after(word: &str, text: &str) -> Option<usize> {
    match word {
        "b" if text.starts_with('\'') => Some(char_or_lifetime(text)),
        "b" | "c" if text.starts_with('"') => Some(1 + string(&text[1..])),
        "r" | "br" | "cr" => {
            let hashes = text.len() - text.trim_start_matches('#').len();
            let body = text[hashes..].strip_prefix('"')?;
            let end = format!("\"{}", &text[..hashes]);
            let len = body.find(&end).map_or(body.len(), |at| at + end.len());
            Some(hashes + 1 + len)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
