//! Cutting a text into statements.

use std::iter::Peekable;
use std::str::Chars;

use super::Statement;

/// Directives that end with their line, not with a semicolon.
const LINES: [&str; 6] = [
    ".loc",
    ".file",
    ".version",
    ".target",
    ".address_size",
    ".section",
];

/// Reads characters into the current statement.
struct Cutter<'a> {
    chars: Peekable<Chars<'a>>,
    line: u32,
    current: String,
    /// Line on which it began.
    start: u32,
    /// Braces around operands that are open.
    depth: u32,
    statements: Vec<Statement>,
}

/// Statements up to their semicolon, brace, colon or line's end; comments are left out.
pub(super) fn statements(text: &str) -> Vec<Statement> {
    let mut cutter = Cutter {
        chars: text.chars().peekable(),
        line: 1,
        current: String::new(),
        start: 1,
        depth: 0,
        statements: Vec::new(),
    };
    while let Some(c) = cutter.chars.next() {
        if cutter.current.trim().is_empty() {
            cutter.start = cutter.line;
        }
        cutter.take(c);
    }
    cutter.statements
}

impl Cutter<'_> {
    fn take(&mut self, c: char) {
        match c {
            '/' if self.chars.next_if_eq(&'/').is_some() => {
                while self.chars.next_if(|&c| c != '\n').is_some() {}
            }
            '/' if self.chars.next_if_eq(&'*').is_some() => self.skip_comment(),
            '"' => self.quotation(),
            '\n' => {
                self.line += 1;
                let text = self.current.trim();
                match self.depth == 0 && LINES.iter().any(|line| text.starts_with(line)) {
                    true => self.end(),
                    false => self.current.push(' '),
                }
            }
            '{' if self.depth == 0 && !self.opens_operand() => self.brace("{"),
            '}' if self.depth == 0 => self.brace("}"),
            '{' => {
                self.depth += 1;
                self.current.push(c);
            }
            '}' => {
                self.depth -= 1;
                self.current.push(c);
            }
            ';' => self.end(),
            ':' if self.ends_label() => {
                self.current.push(':');
                self.end();
            }
            _ => self.current.push(c),
        }
    }

    fn end(&mut self) {
        let text = std::mem::take(&mut self.current).trim().to_owned();
        let line = self.start;
        if !text.is_empty() {
            self.statements.push(Statement { line, text });
        }
    }

    fn brace(&mut self, brace: &str) {
        self.end();
        let (line, text) = (self.line, brace.to_owned());
        self.statements.push(Statement { line, text });
    }

    fn skip_comment(&mut self) {
        let mut last = ' ';
        for c in self.chars.by_ref() {
            self.line += u32::from(c == '\n');
            if last == '*' && c == '/' {
                return;
            }
            last = c;
        }
    }

    fn quotation(&mut self) {
        self.current.push('"');
        while let Some(c) = self.chars.next_if(|&c| c != '\n') {
            self.current.push(c);
            if c == '"' {
                return;
            }
        }
    }

    /// Whether a brace here begins an operand: after an opcode, a comma or a sign.
    fn opens_operand(&self) -> bool {
        let text = self.current.trim();
        let of_code = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':');
        let is_opcode = !text.is_empty() && !text.starts_with('.') && text.chars().all(of_code);
        let is_guarded = text.starts_with('@') && text.split_whitespace().count() == 2;
        text.ends_with([',', '=', '(']) || is_opcode || is_guarded
    }

    /// Whether a colon here ends a label; those of modifiers come in pairs.
    fn ends_label(&mut self) -> bool {
        let is_pair = self.chars.peek() == Some(&':') || self.current.ends_with(':');
        self.depth == 0 && !is_pair && !self.current.trim().contains(' ')
    }
}
