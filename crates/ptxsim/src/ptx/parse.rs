//! Tokens to statements.

use super::lex::{Token, lex};
use super::{Arg, Func, Init, Inst, Module, PtxError, Stmt, StmtKind, Var, VarSpace};

/// Parses the text of a module.
pub(crate) fn parse(source: &str) -> Result<Module, PtxError> {
    let tokens = lex(source)?;
    let mut parser = Parser {
        tokens,
        at: 0,
        lines: source.lines().collect(),
    };
    parser.module()
}

struct Parser<'a> {
    tokens: Vec<(Token, u32)>,
    at: usize,
    lines: Vec<&'a str>,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn line(&self) -> u32 {
        let at = self.at.min(self.tokens.len().saturating_sub(1));
        self.tokens.get(at).map_or(0, |&(_, line)| line)
    }

    fn text_of(&self, line: u32) -> String {
        self.lines
            .get(line.saturating_sub(1) as usize)
            .map_or("", |text| text.trim())
            .to_owned()
    }

    fn error<T>(&self, reason: impl Into<String>) -> Result<T, PtxError> {
        let line = self.line();
        Err(PtxError {
            line,
            text: self.text_of(line),
            reason: reason.into(),
        })
    }

    fn next(&mut self) -> Result<Token, PtxError> {
        match self.tokens.get(self.at) {
            Some((token, _)) => {
                self.at += 1;
                Ok(token.clone())
            }
            None => self.error("the text ends early"),
        }
    }

    fn take(&mut self, mark: char) -> bool {
        let found = self.peek() == Some(&Token::Mark(mark));
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, mark: char) -> Result<(), PtxError> {
        if self.take(mark) {
            Ok(())
        } else {
            self.error(format!("expected `{mark}`"))
        }
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(w)) if w == word);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self) -> Result<String, PtxError> {
        match self.next()? {
            Token::Word(word) => Ok(word),
            _ => {
                self.at -= 1;
                self.error("expected a name")
            }
        }
    }

    fn int(&mut self) -> Result<i64, PtxError> {
        let negative = self.take('-');
        match self.next()? {
            Token::Int(value) => Ok(if negative { -value } else { value }),
            _ => {
                self.at -= 1;
                self.error("expected a whole number")
            }
        }
    }

    fn small(&mut self) -> Result<u32, PtxError> {
        let value = self.int()?;
        u32::try_from(value).or_else(|_| self.error("the number is out of range"))
    }

    fn size(&mut self) -> Result<usize, PtxError> {
        let value = self.int()?;
        usize::try_from(value).or_else(|_| self.error("the number is out of range"))
    }

    fn skip_past(&mut self, mark: char) -> Result<(), PtxError> {
        while self.next()? != Token::Mark(mark) {}
        Ok(())
    }

    fn module(&mut self) -> Result<Module, PtxError> {
        let mut module = Module::default();
        while self.peek().is_some() {
            if self.take(';') {
                continue;
            }
            let word = self.word()?;
            match word.as_str() {
                ".version" => {
                    self.next()?;
                }
                ".target" => {
                    self.next()?;
                    while self.take(',') {
                        self.next()?;
                    }
                }
                ".address_size" => {
                    if self.int()? != 64 {
                        return self.error("only 64-bit addresses are known");
                    }
                }
                ".file" => {
                    let number = self.small()?;
                    if let Token::Text(name) = self.next()? {
                        module.files.insert(number, name);
                    }
                    while self.take(',') {
                        self.next()?;
                    }
                }
                ".section" => {
                    self.word()?;
                    self.skip_past('}')?;
                }
                ".visible" | ".extern" | ".weak" | ".common" => {}
                ".alias" | ".pragma" => self.skip_past(';')?,
                ".entry" | ".func" => {
                    let func = self.func(word == ".entry")?;
                    module.funcs.push(func);
                }
                ".global" | ".const" | ".shared" => {
                    let vars = self.variables(space(&word))?;
                    module.vars.extend(vars);
                }
                _ => {
                    self.at -= 1;
                    return self.error("unknown directive");
                }
            }
        }
        Ok(module)
    }

    fn func(&mut self, entry: bool) -> Result<Func, PtxError> {
        let rets = if self.peek() == Some(&Token::Mark('(')) {
            self.params()?
        } else {
            Vec::new()
        };
        let name = self.word()?;
        let params = if self.peek() == Some(&Token::Mark('(')) {
            self.params()?
        } else {
            Vec::new()
        };
        let mut max_threads = None;
        loop {
            if self.take(';') {
                return Ok(Func {
                    name,
                    entry,
                    rets,
                    params,
                    max_threads,
                    body: None,
                });
            }
            if self.take('{') {
                break;
            }
            let word = self.word()?;
            let mut values = Vec::new();
            while matches!(self.peek(), Some(Token::Int(_))) || self.take(',') {
                values.push(self.small()?);
            }
            if matches!(word.as_str(), ".maxntid" | ".reqntid") {
                max_threads = Some(values.iter().product());
            }
        }
        let body = self.body()?;
        Ok(Func {
            name,
            entry,
            rets,
            params,
            max_threads,
            body: Some(body),
        })
    }

    fn params(&mut self) -> Result<Vec<Var>, PtxError> {
        self.expect('(')?;
        let mut params = Vec::new();
        while !self.take(')') {
            if self.take(',') {
                continue;
            }
            let kind = self.word()?;
            if kind != ".param" {
                return self.error("only parameters in `.param` space are known");
            }
            let (align, element) = self.declared_type()?;
            params.push(self.variable(VarSpace::Param, align, element)?);
        }
        Ok(params)
    }

    /// The part of a declaration before the name: attributes, alignment, type. Gives alignment and size.
    fn declared_type(&mut self) -> Result<(usize, usize), PtxError> {
        let (mut align, mut element, mut vector) = (None, None, 1);
        while let Some(Token::Word(word)) = self.peek() {
            if !word.starts_with('.') {
                break;
            }
            let word = self.word()?;
            match word.as_str() {
                ".align" => align = Some(self.size()?),
                ".ptr" | ".global" | ".const" | ".shared" | ".local" => {}
                ".attribute" => self.skip_past(')')?,
                ".v2" => vector = 2,
                ".v4" => vector = 4,
                _ => match type_bytes(&word) {
                    Some(bytes) => element = Some(bytes),
                    None => return self.error(format!("unknown type {word}")),
                },
            }
        }
        let Some(element) = element else {
            return self.error("a declaration without a type");
        };
        Ok((align.unwrap_or(element * vector), element * vector))
    }

    fn variable(&mut self, space: VarSpace, align: usize, element: usize) -> Result<Var, PtxError> {
        let name = self.word()?;
        let mut bytes = element;
        while self.take('[') {
            if self.take(']') {
                bytes = 0;
            } else {
                bytes *= self.size()?;
                self.expect(']')?;
            }
        }
        let init = if self.take('=') {
            self.initializer()?
        } else {
            Vec::new()
        };
        if bytes == 0 && !init.is_empty() {
            bytes = init.len() * element;
        }
        Ok(Var {
            name,
            space,
            align,
            element,
            bytes,
            init,
        })
    }

    fn variables(&mut self, space: VarSpace) -> Result<Vec<Var>, PtxError> {
        let (align, element) = self.declared_type()?;
        let mut vars = vec![self.variable(space, align, element)?];
        while self.take(',') {
            vars.push(self.variable(space, align, element)?);
        }
        self.expect(';')?;
        Ok(vars)
    }

    fn initializer(&mut self) -> Result<Vec<Init>, PtxError> {
        if self.take('{') {
            let mut values = Vec::new();
            while !self.take('}') {
                if !self.take(',') {
                    values.extend(self.initializer()?);
                }
            }
            return Ok(values);
        }
        let negative = self.take('-');
        let value = match self.next()? {
            Token::Int(value) => Init::Int(if negative { -value } else { value }),
            Token::F32(bits) => Init::F32(bits),
            Token::F64(bits) => Init::F64(bits),
            Token::Word(word) if word == "generic" => {
                self.expect('(')?;
                let name = self.word()?;
                self.expect(')')?;
                Init::Address(name, if self.take('+') { self.int()? } else { 0 })
            }
            Token::Word(name) => Init::Address(name, if self.take('+') { self.int()? } else { 0 }),
            _ => {
                self.at -= 1;
                return self.error("unknown initializer");
            }
        };
        Ok(vec![value])
    }

    fn body(&mut self) -> Result<Vec<Stmt>, PtxError> {
        let mut stmts = Vec::new();
        let mut depth = 1;
        loop {
            let line = self.line();
            if self.take(';') {
                continue;
            }
            if self.take('{') {
                depth += 1;
                stmts.push(Stmt {
                    line,
                    kind: StmtKind::Open,
                });
            } else if self.take('}') {
                depth -= 1;
                if depth == 0 {
                    return Ok(stmts);
                }
                stmts.push(Stmt {
                    line,
                    kind: StmtKind::Close,
                });
            } else {
                self.statement(line, &mut stmts)?;
            }
        }
    }

    fn statement(&mut self, line: u32, stmts: &mut Vec<Stmt>) -> Result<(), PtxError> {
        if self.peek() == Some(&Token::Mark('@')) {
            let kind = StmtKind::Inst(self.instruction(line)?);
            stmts.push(Stmt { line, kind });
            return Ok(());
        }
        let word = self.word()?;
        match word.as_str() {
            ".reg" => {
                let ty = self.word()?;
                self.registers(&ty, line, stmts)?;
            }
            // Inline assembly is often written without blanks.
            _ if word.starts_with(".reg.") => self.registers(&word[4..], line, stmts)?,
            ".local" | ".shared" | ".param" | ".const" | ".global" => {
                for var in self.variables(space(&word))? {
                    stmts.push(Stmt {
                        line,
                        kind: StmtKind::Var(var),
                    });
                }
            }
            ".loc" => {
                let (file, number) = (self.small()?, self.small()?);
                self.int()?;
                while self.take(',') {
                    if self.word()? == "inlined_at" {
                        // The place of the call: the line of the function itself says more.
                        self.int()?;
                        self.int()?;
                        self.int()?;
                    } else {
                        self.word()?;
                        if self.take('+') {
                            self.int()?;
                        }
                    }
                }
                stmts.push(Stmt {
                    line,
                    kind: StmtKind::Loc { file, line: number },
                });
            }
            ".pragma" => self.skip_past(';')?,
            _ if self.take(':') => {
                if self.take_word(".branchtargets") {
                    let mut targets = vec![self.word()?];
                    while self.take(',') {
                        targets.push(self.word()?);
                    }
                    self.expect(';')?;
                    stmts.push(Stmt {
                        line,
                        kind: StmtKind::BranchTargets {
                            name: word,
                            targets,
                        },
                    });
                } else if self.take_word(".callprototype") {
                    self.skip_past(';')?;
                } else {
                    stmts.push(Stmt {
                        line,
                        kind: StmtKind::Label(word),
                    });
                }
            }
            _ if word.starts_with('.') => {
                self.at -= 1;
                return self.error("unknown directive");
            }
            _ => {
                self.at -= 1;
                let kind = StmtKind::Inst(self.instruction(line)?);
                stmts.push(Stmt { line, kind });
            }
        }
        Ok(())
    }

    fn registers(&mut self, ty: &str, line: u32, stmts: &mut Vec<Stmt>) -> Result<(), PtxError> {
        loop {
            let name = self.word()?;
            let count = if self.take('<') {
                let count = self.small()?;
                self.expect('>')?;
                count
            } else {
                0
            };
            stmts.push(Stmt {
                line,
                kind: StmtKind::Reg {
                    ty: ty.to_owned(),
                    name,
                    count,
                },
            });
            if !self.take(',') {
                return self.expect(';');
            }
        }
    }

    fn instruction(&mut self, line: u32) -> Result<Inst, PtxError> {
        let guard = if self.take('@') {
            let negated = self.take('!');
            Some((self.word()?, negated))
        } else {
            None
        };
        let op = self.word()?;
        let mut args = Vec::new();
        while !self.take(';') {
            if !self.take(',') {
                args.push(self.arg()?);
            }
        }
        Ok(Inst {
            guard,
            op,
            args,
            text: self.text_of(line),
        })
    }

    fn arg(&mut self) -> Result<Arg, PtxError> {
        let first = self.simple_arg()?;
        if self.take('|') {
            let second = self.simple_arg()?;
            return Ok(Arg::Pair(Box::new(first), Box::new(second)));
        }
        Ok(first)
    }

    fn args_until(&mut self, end: char) -> Result<Vec<Arg>, PtxError> {
        let mut args = Vec::new();
        while !self.take(end) {
            if !self.take(',') {
                args.push(self.arg()?);
            }
        }
        Ok(args)
    }

    fn simple_arg(&mut self) -> Result<Arg, PtxError> {
        let negative = self.take('-');
        match self.next()? {
            Token::Word(name) => {
                if self.take('+') {
                    let offset = self.int()?;
                    return Ok(Arg::Mem {
                        base: Box::new(Arg::Name(name)),
                        offset,
                    });
                }
                Ok(Arg::Name(name))
            }
            Token::Int(value) => Ok(Arg::Int(if negative {
                value.wrapping_neg()
            } else {
                value
            })),
            Token::F32(bits) => Ok(Arg::F32(if negative { bits ^ (1 << 31) } else { bits })),
            Token::F64(bits) => Ok(Arg::F64(if negative { bits ^ (1 << 63) } else { bits })),
            Token::Mark('!') => Ok(Arg::Not(Box::new(self.simple_arg()?))),
            Token::Mark('{') => Ok(Arg::Vec(self.args_until('}')?)),
            Token::Mark('(') => Ok(Arg::List(self.args_until(')')?)),
            Token::Mark('[') => self.memory_arg(),
            _ => {
                self.at -= 1;
                self.error("unknown operand")
            }
        }
    }

    fn memory_arg(&mut self) -> Result<Arg, PtxError> {
        let base = match self.next()? {
            Token::Word(name) => Arg::Name(name),
            Token::Int(value) => Arg::Int(value),
            _ => {
                self.at -= 1;
                return self.error("unknown address");
            }
        };
        // The sign of `[a-4]` belongs to the number, and `[a+-4]` has both.
        let signed = self.take('+') || self.peek() == Some(&Token::Mark('-'));
        let offset = if signed { self.int()? } else { 0 };
        self.expect(']')?;
        Ok(Arg::Mem {
            base: Box::new(base),
            offset,
        })
    }
}

fn space(word: &str) -> VarSpace {
    match word {
        ".const" => VarSpace::Const,
        ".shared" => VarSpace::Shared,
        ".local" => VarSpace::Local,
        ".param" => VarSpace::Param,
        _ => VarSpace::Global,
    }
}

/// Bytes of a fundamental type; a predicate has none.
pub(crate) fn type_bytes(ty: &str) -> Option<usize> {
    Some(match ty.trim_start_matches('.') {
        "b8" | "u8" | "s8" => 1,
        "b16" | "u16" | "s16" | "f16" | "bf16" => 2,
        "b32" | "u32" | "s32" | "f32" | "f16x2" | "bf16x2" | "tf32" => 4,
        "b64" | "u64" | "s64" | "f64" => 8,
        "b128" => 16,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
