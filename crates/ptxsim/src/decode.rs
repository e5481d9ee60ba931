//! Statements to decoded instructions: resolves names, expands calls, and refuses what it does not know.

mod convert;
mod float;
mod flow;
mod int;
mod memory;
mod moves;
mod operand;
mod warp;

use std::collections::BTreeMap;

use crate::isa::{Inst, Kernel, NONE, Op, Reg};
use crate::ptx::{self, Arg, Func, Module, PtxError, Stmt, StmtKind, Var, VarSpace};

/// Addresses of the module's variables in global and constant memory.
pub(crate) type Addresses = BTreeMap<String, u64>;

/// Why one instruction was refused.
type Result<T> = std::result::Result<T, String>;

/// Register file of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Pred,
    /// 16 or 32 bits.
    Word,
    Long,
}

#[derive(Debug, Clone, Copy)]
enum Symbol {
    Reg(Class, Reg),
    Shared(u32),
    /// Shared memory behind all static variables: the address is known last.
    DynamicShared,
    Local(u32),
    Param(u32),
    Global(u64),
}

/// Names of one `{ }` block.
#[derive(Default)]
struct Scope {
    names: BTreeMap<String, Symbol>,
    /// `%r<10>`: prefix to class, first register and count.
    ranges: BTreeMap<String, (Class, Reg, u32)>,
    tables: BTreeMap<String, Vec<String>>,
}

/// The part of a label's name that tells the expansions of a function apart.
type LabelKey = (u32, String);

/// What an expansion of a function needs to know of itself.
#[derive(Clone, Copy)]
struct Frame {
    number: u32,
    inlined: bool,
}

struct Decoder<'m> {
    module: &'m Module,
    addresses: &'m Addresses,
    kernel: Kernel,
    scopes: Vec<Scope>,
    words: BTreeMap<u32, Reg>,
    longs: BTreeMap<u64, Reg>,
    special_regs: BTreeMap<String, Reg>,
    /// Constants that wait for the address of dynamic shared memory.
    dynamic: Vec<(Class, Reg, i64)>,
    module_shared: BTreeMap<String, u32>,
    labels: BTreeMap<LabelKey, u32>,
    /// Branches to fill in: instruction, and the labels of its targets.
    fixups: Vec<(usize, Vec<LabelKey>)>,
    frame: Frame,
    frames: u32,
    /// Names of the functions being expanded.
    stack: Vec<String>,
    guard: Reg,
    negated: bool,
    line: u32,
    loc: (u32, u32),
}

/// Decodes an entry of a module.
pub(crate) fn decode(
    module: &Module,
    func: &Func,
    addresses: &Addresses,
) -> std::result::Result<Kernel, PtxError> {
    let mut decoder = Decoder {
        module,
        addresses,
        kernel: Kernel {
            name: func.name.clone(),
            max_threads: func.max_threads.unwrap_or(1024),
            ..Kernel::default()
        },
        scopes: vec![Scope::default()],
        words: BTreeMap::new(),
        longs: BTreeMap::new(),
        special_regs: BTreeMap::new(),
        dynamic: Vec::new(),
        module_shared: BTreeMap::new(),
        labels: BTreeMap::new(),
        fixups: Vec::new(),
        frame: Frame {
            number: 0,
            inlined: false,
        },
        frames: 1,
        stack: vec![func.name.clone()],
        guard: NONE,
        negated: false,
        line: 0,
        loc: (0, 0),
    };
    decoder.kernel.files.clone_from(&module.files);
    let mut offset = 0_usize;
    for param in &func.params {
        offset = offset.next_multiple_of(param.align);
        decoder.kernel.params.push((offset, param.bytes));
        let at = u32::try_from(offset).unwrap_or(u32::MAX);
        decoder.bind(&param.name, Symbol::Param(at));
        offset += param.bytes;
    }
    decoder.kernel.param_bytes = offset;
    let body = func.body.as_deref().unwrap_or_default();
    decoder.statements(body)?;
    decoder.guard = NONE;
    decoder.push(Op::Exit);
    decoder.finish()
}

impl Decoder<'_> {
    fn statements(&mut self, stmts: &[Stmt]) -> std::result::Result<(), PtxError> {
        for stmt in stmts {
            self.line = stmt.line;
            self.statement(stmt)?;
        }
        Ok(())
    }

    fn statement(&mut self, stmt: &Stmt) -> std::result::Result<(), PtxError> {
        let refuse = |text: &str, reason: String| PtxError {
            line: stmt.line,
            text: text.to_owned(),
            reason,
        };
        match &stmt.kind {
            StmtKind::Open => self.scopes.push(Scope::default()),
            StmtKind::Close => {
                self.scopes.pop();
            }
            StmtKind::Label(name) => {
                let at = self.here();
                self.labels.insert((self.frame.number, name.clone()), at);
            }
            StmtKind::Reg { ty, name, count } => {
                self.declare_registers(ty, name, *count)
                    .map_err(|reason| refuse(name, reason))?;
            }
            StmtKind::Var(var) => self.declare(var),
            StmtKind::Loc { file, line } => {
                // Line 0 is the compiler's own code: keep the line before it.
                if *line != 0 {
                    self.loc = (*file, *line);
                }
            }
            StmtKind::BranchTargets { name, targets } => {
                self.scope().tables.insert(name.clone(), targets.clone());
            }
            StmtKind::Inst(inst) => {
                if inst.op.starts_with("call") {
                    return self.call(inst).map_err(|error| {
                        if error.line == 0 {
                            refuse(&inst.text, error.reason)
                        } else {
                            error
                        }
                    });
                }
                self.instruction(inst)
                    .map_err(|reason| refuse(&inst.text, reason))?;
            }
        }
        Ok(())
    }

    fn instruction(&mut self, inst: &ptx::Inst) -> Result<()> {
        (self.guard, self.negated) = match &inst.guard {
            Some((name, negated)) => (self.pred(&Arg::Name(name.clone()))?, *negated),
            None => (NONE, false),
        };
        let parts: Vec<&str> = inst.op.split('.').collect();
        let args = inst.args.as_slice();
        let known = self.decode_int(&parts, args)?
            || self.decode_float(&parts, args)?
            || self.decode_memory(&parts, args)?
            || self.decode_flow(&parts, args)?
            || self.decode_warp(&parts, args)?;
        if known {
            Ok(())
        } else {
            Err("unknown instruction".to_owned())
        }
    }

    fn push(&mut self, op: Op) {
        let inst = Inst {
            op,
            guard: self.guard,
            negated: self.negated,
            line: self.line,
            loc: self.loc,
        };
        self.kernel.code.push(inst);
    }

    fn here(&self) -> u32 {
        u32::try_from(self.kernel.code.len()).unwrap_or(u32::MAX)
    }

    fn scope(&mut self) -> &mut Scope {
        if self.scopes.is_empty() {
            self.scopes.push(Scope::default());
        }
        let last = self.scopes.len() - 1;
        &mut self.scopes[last]
    }

    fn bind(&mut self, name: &str, symbol: Symbol) {
        self.scope().names.insert(name.to_owned(), symbol);
    }

    fn declare_registers(&mut self, ty: &str, name: &str, count: u32) -> Result<()> {
        let class = match ty {
            ".pred" => Class::Pred,
            _ => match ptx::parse_type_bytes(ty) {
                Some(1..=4) => Class::Word,
                Some(8) => Class::Long,
                _ => return Err(format!("registers of type {ty} are not known")),
            },
        };
        let first = self.allocate(class, count.max(1));
        if count == 0 {
            self.bind(name, Symbol::Reg(class, first));
        } else {
            self.scope()
                .ranges
                .insert(name.to_owned(), (class, first, count));
        }
        Ok(())
    }

    fn allocate(&mut self, class: Class, count: u32) -> Reg {
        let file = match class {
            Class::Pred => &mut self.kernel.n_pred,
            Class::Word => &mut self.kernel.n32,
            Class::Long => &mut self.kernel.n64,
        };
        let first = *file;
        *file += count as usize;
        u32::try_from(first).unwrap_or(u32::MAX)
    }

    fn temp(&mut self) -> Reg {
        self.allocate(Class::Word, 1)
    }

    fn temp_long(&mut self) -> Reg {
        self.allocate(Class::Long, 1)
    }

    fn temp_pred(&mut self) -> Reg {
        self.allocate(Class::Pred, 1)
    }

    /// Gives a variable of a body its place.
    fn declare(&mut self, var: &Var) {
        let symbol = match var.space {
            VarSpace::Shared => self.place_shared(var),
            _ => {
                let at = self.kernel.local_bytes.next_multiple_of(var.align.max(1));
                self.kernel.local_bytes = at + var.bytes;
                Symbol::Local(u32::try_from(at).unwrap_or(u32::MAX))
            }
        };
        self.bind(&var.name, symbol);
    }

    fn place_shared(&mut self, var: &Var) -> Symbol {
        if var.bytes == 0 {
            return Symbol::DynamicShared;
        }
        let at = self.kernel.static_shared.next_multiple_of(var.align.max(1));
        self.kernel.static_shared = at + var.bytes;
        Symbol::Shared(u32::try_from(at).unwrap_or(u32::MAX))
    }

    fn lookup(&mut self, name: &str) -> Result<Symbol> {
        let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let number: Option<u32> = name[prefix.len()..].parse().ok();
        for scope in self.scopes.iter().rev() {
            if let Some(&symbol) = scope.names.get(name) {
                return Ok(symbol);
            }
            if let (Some(&(class, first, count)), Some(number)) = (scope.ranges.get(prefix), number)
                && number < count
            {
                return Ok(Symbol::Reg(class, first + number));
            }
        }
        if let Some(&at) = self.module_shared.get(name) {
            return Ok(Symbol::Shared(at));
        }
        if let Some(&address) = self.addresses.get(name) {
            return Ok(Symbol::Global(address));
        }
        if let Some(var) = self.module.vars.iter().find(|var| var.name == name) {
            let symbol = self.place_shared(var);
            if let Symbol::Shared(at) = symbol {
                self.module_shared.insert(name.to_owned(), at);
            }
            return Ok(symbol);
        }
        if let Some(&reg) = self.special_regs.get(name) {
            return Ok(Symbol::Reg(Class::Word, reg));
        }
        if let Some(special) = operand::special(name) {
            let reg = self.temp();
            self.kernel.specials.push((special, reg));
            self.special_regs.insert(name.to_owned(), reg);
            return Ok(Symbol::Reg(Class::Word, reg));
        }
        Err(format!("unknown name {name}"))
    }

    fn finish(mut self) -> std::result::Result<Kernel, PtxError> {
        let dynamic = self.kernel.static_shared.next_multiple_of(16);
        let at = i64::try_from(dynamic).unwrap_or(i64::MAX);
        for (class, reg, offset) in std::mem::take(&mut self.dynamic) {
            match class {
                Class::Long => self
                    .kernel
                    .const64
                    .push((reg, (at + offset).cast_unsigned())),
                _ => self.kernel.const32.push((reg, low_word(at + offset))),
            }
        }
        for (index, keys) in std::mem::take(&mut self.fixups) {
            let mut targets = Vec::with_capacity(keys.len());
            for key in keys {
                let Some(&target) = self.labels.get(&key) else {
                    let line = self.kernel.code[index].line;
                    return Err(PtxError {
                        line,
                        text: key.1,
                        reason: "unknown label".to_owned(),
                    });
                };
                targets.push(target);
            }
            match &mut self.kernel.code[index].op {
                Op::Bra { target } => *target = targets[0],
                Op::Brx { table, .. } => *table = targets.into_boxed_slice(),
                _ => {}
            }
        }
        crate::registers::share(&mut self.kernel);
        Ok(self.kernel)
    }
}

fn low_word(value: i64) -> u32 {
    (value.cast_unsigned() & 0xffff_ffff) as u32
}

fn address_of(symbol: Symbol) -> u64 {
    match symbol {
        Symbol::Shared(at) | Symbol::Local(at) | Symbol::Param(at) => u64::from(at),
        Symbol::Global(address) => address,
        Symbol::Reg(..) | Symbol::DynamicShared => 0,
    }
}
