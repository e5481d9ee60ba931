//! From PTX text to decoded kernels.
//!
//! Everything is decoded when a module is loaded: what the interpreter does not know is an error
//! with its line, never a surprise in the middle of a run.

mod decode;
mod directives;
mod operands;
mod text;

use std::collections::BTreeMap;
use std::fmt;

use crate::inst::{Kernel, Module, Step, Variable};

/// What is wrong with a text, and where.
#[derive(Debug)]
pub(crate) struct ParseError {
    pub(crate) line: u32,
    pub(crate) text: String,
    pub(crate) what: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTX line {}: {}: {}", self.line, self.what, self.text)
    }
}

pub(crate) type Result<T> = std::result::Result<T, String>;

/// A statement of the text: up to its semicolon, brace or colon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) line: u32,
    pub(crate) text: String,
}

/// Registers by class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Pred,
    B16,
    B32,
    B64,
}

/// What a name stands for inside a kernel.
#[derive(Debug, Clone)]
pub(crate) enum Symbol {
    /// Class and index in its bank.
    Register(Class, u32),
    /// `%r<n>`: a family of registers, its class, first index and count.
    Family(Class, u32, u32),
    /// Offset in shared memory.
    Shared(u64),
    /// Offset in local memory.
    Local(u64),
    /// Offset in the parameters.
    Parameter(u32),
    /// Address of a variable of the module.
    Global(u64),
}

/// Everything that is known while a kernel is read.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    /// Names, the innermost block last.
    names: Vec<BTreeMap<String, Symbol>>,
    /// Registers of the three banks.
    pub(crate) n_registers: [usize; 3],
    pub(crate) labels: BTreeMap<String, u32>,
    /// Labels of `.branchtargets`.
    pub(crate) tables: BTreeMap<String, Vec<String>>,
}

impl Scope {
    fn declare(&mut self, name: &str, symbol: Symbol) {
        if let Some(names) = self.names.last_mut() {
            names.insert(name.to_owned(), symbol);
        }
    }

    /// Registers of a class, `n` in a row.
    pub(crate) fn registers(&mut self, class: Class, n: u32) -> u32 {
        let bank = match class {
            Class::B16 | Class::B32 => 0,
            Class::B64 => 1,
            Class::Pred => 2,
        };
        let first = self.n_registers[bank];
        self.n_registers[bank] += n as usize;
        first as u32
    }

    pub(crate) fn find(&self, name: &str) -> Option<Symbol> {
        for names in self.names.iter().rev() {
            if let Some(symbol) = names.get(name) {
                return Some(symbol.clone());
            }
            let digits = name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
            if digits < name.len()
                && let Some(Symbol::Family(class, first, n)) = names.get(&name[..digits])
                && let Ok(index) = name[digits..].parse::<u32>()
                && index < *n
            {
                return Some(Symbol::Register(*class, first + index));
            }
        }
        None
    }
}

/// Decodes a module. `allocate(bytes, align)` gives addresses to its variables.
pub(crate) fn parse(
    text: &str,
    allocate: &mut dyn FnMut(u64, u64) -> u64,
) -> std::result::Result<Module, ParseError> {
    let statements = text::statements(text);
    let mut reader = Reader {
        statements: &statements,
        at: 0,
        module: Module::default(),
        outer: BTreeMap::new(),
        shared_bytes: 0,
    };
    reader.module(allocate).map_err(|what| {
        let at = reader
            .at
            .saturating_sub(1)
            .min(statements.len().saturating_sub(1));
        let (line, text) = match statements.get(at) {
            Some(statement) => (statement.line, statement.text.clone()),
            None => (0, String::new()),
        };
        ParseError { line, text, what }
    })?;
    Ok(reader.module)
}

struct Reader<'a> {
    statements: &'a [Statement],
    at: usize,
    module: Module,
    /// Names of the module's variables.
    outer: BTreeMap<String, Symbol>,
    /// Shared memory of variables outside of kernels.
    shared_bytes: u64,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<Statement> {
        let statement = self.statements.get(self.at).cloned();
        self.at += 1;
        statement
    }

    fn module(&mut self, allocate: &mut dyn FnMut(u64, u64) -> u64) -> Result<()> {
        while let Some(statement) = self.next() {
            let text = &statement.text;
            let first = text.split_whitespace().next().unwrap_or("");
            match first {
                ".version" | ".target" | ".address_size" | "}" | ".pragma" => {}
                ".file" => self.file(text),
                ".section" => self.skip_block(),
                _ if text.contains(".entry ") => self.kernel(text)?,
                _ if text.contains(".func ") => {
                    return Err("device functions that are not inlined are not supported".into());
                }
                _ if text.contains(".global ") || text.contains(".const ") => {
                    let variable = directives::variable(text)?;
                    let address = allocate(variable.bytes, variable.align);
                    self.outer
                        .insert(variable.name.clone(), Symbol::Global(address));
                    self.module.globals.push((variable, address));
                }
                _ if text.contains(".shared ") => {
                    let variable = directives::variable(text)?;
                    let offset = self.shared_bytes.next_multiple_of(variable.align.max(1));
                    // One without a size is the dynamic memory: where the kernel's own ends.
                    let symbol = match variable.bytes {
                        0 => Symbol::Shared(DYNAMIC),
                        _ => Symbol::Shared(offset),
                    };
                    self.outer.insert(variable.name, symbol);
                    self.shared_bytes = offset + variable.bytes;
                }
                _ => return Err("an unknown directive".into()),
            }
        }
        Ok(())
    }

    fn file(&mut self, text: &str) {
        let mut words = text.split_whitespace().skip(1);
        let number = words.next().and_then(|n| n.parse().ok());
        let name = text.split('"').nth(1);
        if let (Some(number), Some(name)) = (number, name) {
            self.module.files.push((number, name.to_owned()));
        }
    }

    fn skip_block(&mut self) {
        while let Some(statement) = self.next() {
            if statement.text == "}" {
                return;
            }
        }
    }

    fn kernel(&mut self, header: &str) -> Result<()> {
        let (name, parameters) = directives::header(header)?;
        let mut scope = Scope::default();
        scope.names.push(self.outer.clone());
        scope.names.push(BTreeMap::new());
        let (mut offsets, mut parameter_bytes) = (Vec::new(), 0_u32);
        for parameter in &parameters {
            let align = u32::try_from(parameter.align.max(1)).map_err(|_| "an alignment")?;
            let bytes = u32::try_from(parameter.bytes).map_err(|_| "a size")?;
            let offset = parameter_bytes.next_multiple_of(align);
            scope.declare(&parameter.name, Symbol::Parameter(offset));
            offsets.push((offset, bytes));
            parameter_bytes = offset + bytes;
        }
        let mut kernel = Kernel {
            name,
            parameters: offsets,
            parameter_bytes,
            steps: Vec::new(),
            n_registers: [0; 3],
            shared_bytes: self.shared_bytes,
            local_bytes: 0,
            max_threads: directives::max_threads(header),
        };
        let body = self.body()?;
        self.declarations(&body, &mut scope, &mut kernel)?;
        self.instructions(&body, &mut scope, &mut kernel)?;
        kernel.n_registers = scope.n_registers;
        self.module.kernels.push(kernel);
        Ok(())
    }

    /// The statements up to the brace that closes the kernel, with where each is.
    fn body(&mut self) -> Result<Vec<(usize, Statement)>> {
        let (mut depth, mut body) = (0_u32, Vec::new());
        while let Some(statement) = self.next() {
            match &*statement.text {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Ok(body);
            }
            if !(statement.text == "{" && body.is_empty() && depth == 1) {
                body.push((self.at, statement));
            }
        }
        Err("the kernel has no end".into())
    }

    /// Labels, and variables of the kernel; the same walk as [`Self::instructions`].
    fn declarations(
        &mut self,
        body: &[(usize, Statement)],
        scope: &mut Scope,
        kernel: &mut Kernel,
    ) -> Result<()> {
        let mut index = 0;
        let mut last_label = String::new();
        for (at, statement) in body {
            self.at = *at;
            let text = &*statement.text;
            if let Some(label) = text.strip_suffix(':') {
                scope.labels.insert(label.to_owned(), index);
                last_label = label.to_owned();
            } else if text.starts_with(".shared") || text.starts_with(".local") {
                let variable: Variable = directives::variable(text)?;
                let is_shared = text.starts_with(".shared");
                let total = match is_shared {
                    true => &mut kernel.shared_bytes,
                    false => &mut kernel.local_bytes,
                };
                let offset = total.next_multiple_of(variable.align.max(1));
                *total = offset + variable.bytes;
                let symbol = match is_shared {
                    true => Symbol::Shared(offset),
                    false => Symbol::Local(offset),
                };
                scope.declare(&variable.name, symbol);
            } else if let Some(list) = text.strip_prefix(".branchtargets") {
                let labels = list.split(',').map(|label| label.trim().to_owned());
                scope.tables.insert(last_label.clone(), labels.collect());
            } else if !text.starts_with('.') && text != "{" && text != "}" {
                index += 1;
            }
        }
        // Dynamic shared memory follows, as aligned as any type needs.
        kernel.shared_bytes = kernel.shared_bytes.next_multiple_of(16);
        Ok(())
    }

    fn instructions(
        &mut self,
        body: &[(usize, Statement)],
        scope: &mut Scope,
        kernel: &mut Kernel,
    ) -> Result<()> {
        let mut source = None;
        for (at, statement) in body {
            self.at = *at;
            let text = &*statement.text;
            match text.split_whitespace().next().unwrap_or("") {
                "{" => scope.names.push(BTreeMap::new()),
                "}" => {
                    scope.names.pop();
                }
                ".reg" => directives::registers(text, scope)?,
                ".loc" => source = directives::location(text),
                ".pragma" | ".shared" | ".local" | ".branchtargets" => {}
                _ if text.ends_with(':') => {}
                _ if text.starts_with('.') => return Err("an unknown directive".into()),
                _ => {
                    let (inst, guard) = decode::instruction(text, scope, kernel.shared_bytes)?;
                    let line = statement.line;
                    kernel.steps.push(Step {
                        inst,
                        guard,
                        line,
                        source,
                    });
                }
            }
        }
        Ok(())
    }
}

/// Stands for the end of a kernel's static shared memory until that is known.
pub(crate) const DYNAMIC: u64 = u64::MAX;
