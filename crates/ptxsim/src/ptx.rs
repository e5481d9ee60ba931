//! The text of a PTX module, as statements: names are not resolved and opcodes are not understood yet.

pub(crate) mod fatbin;
pub(crate) mod lex;
mod parse;

pub(crate) use parse::parse;
pub(crate) use parse::type_bytes as parse_type_bytes;

use std::collections::BTreeMap;

/// Why a module was refused: the line of the PTX, its text, and what is wrong with it.
#[derive(Debug, Clone)]
pub(crate) struct PtxError {
    pub(crate) line: u32,
    pub(crate) text: String,
    pub(crate) reason: String,
}

impl std::fmt::Display for PtxError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "PTX line {}: {}: `{}`",
            self.line, self.reason, self.text
        )
    }
}

/// A parsed module.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// The source files that `.loc` names, by number.
    pub(crate) files: BTreeMap<u32, String>,
    pub(crate) vars: Vec<Var>,
    pub(crate) funcs: Vec<Func>,
}

/// Where a variable lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VarSpace {
    Global,
    Const,
    Shared,
    Local,
    Param,
}

/// One value of an initializer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Init {
    Int(i64),
    F32(u32),
    F64(u64),
    /// The address of a variable.
    Address(String, i64),
}

/// A declared variable or parameter.
#[derive(Debug, Clone)]
pub(crate) struct Var {
    pub(crate) name: String,
    pub(crate) space: VarSpace,
    pub(crate) align: usize,
    /// Bytes of one element.
    pub(crate) element: usize,
    /// Bytes in all; 0 for an array without a size (dynamic shared memory).
    pub(crate) bytes: usize,
    pub(crate) init: Vec<Init>,
}

/// A kernel or device function. A prototype has no body.
#[derive(Debug)]
pub(crate) struct Func {
    pub(crate) name: String,
    pub(crate) entry: bool,
    pub(crate) rets: Vec<Var>,
    pub(crate) params: Vec<Var>,
    /// The product of `.maxntid` or `.reqntid`, if there is one.
    pub(crate) max_threads: Option<u32>,
    pub(crate) body: Option<Vec<Stmt>>,
}

/// One statement of a body.
#[derive(Debug)]
pub(crate) struct Stmt {
    pub(crate) line: u32,
    pub(crate) kind: StmtKind,
}

#[derive(Debug)]
pub(crate) enum StmtKind {
    Open,
    Close,
    Label(String),
    /// `.reg .b32 %r<10>` or `.reg .b32 a, b`: type, name, count (0 for a single name).
    Reg {
        ty: String,
        name: String,
        count: u32,
    },
    Var(Var),
    /// `.loc file line`.
    Loc {
        file: u32,
        line: u32,
    },
    /// `name: .branchtargets a, b`.
    BranchTargets {
        name: String,
        targets: Vec<String>,
    },
    Inst(Inst),
}

/// One instruction.
#[derive(Debug)]
pub(crate) struct Inst {
    /// Predicate, and whether it is negated.
    pub(crate) guard: Option<(String, bool)>,
    pub(crate) op: String,
    pub(crate) args: Vec<Arg>,
    pub(crate) text: String,
}

/// One operand.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Arg {
    Name(String),
    Int(i64),
    F32(u32),
    F64(u64),
    /// `[base + offset]`.
    Mem {
        base: Box<Arg>,
        offset: i64,
    },
    /// `{a, b}`.
    Vec(Vec<Arg>),
    /// `d|p`.
    Pair(Box<Arg>, Box<Arg>),
    /// `!p`.
    Not(Box<Arg>),
    /// `(a, b)` of a call.
    List(Vec<Arg>),
}
