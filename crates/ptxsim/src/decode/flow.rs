//! Branches, calls, barriers and fences.

use super::{Decoder, Frame, Result, Scope, Symbol};
use crate::isa::{Int1, Logic, NONE, Op};
use crate::ptx::{self, Arg, PtxError};

impl Decoder<'_> {
    /// Decodes control flow and synchronization; false if it is none.
    pub(super) fn decode_flow(&mut self, parts: &[&str], args: &[Arg]) -> Result<bool> {
        match parts[0] {
            "bra" => {
                let Some(Arg::Name(label)) = args.first() else {
                    return Err("expected a label".to_owned());
                };
                self.branch(vec![label.clone()], Op::Bra { target: 0 });
            }
            "brx" => {
                let [index, Arg::Name(table)] = args else {
                    return Err("expected a table".to_owned());
                };
                let index = self.word(index)?;
                let targets = self
                    .scopes
                    .iter()
                    .rev()
                    .find_map(|scope| scope.tables.get(table).cloned());
                let targets = targets.ok_or_else(|| format!("unknown table {table}"))?;
                self.branch(
                    targets,
                    Op::Brx {
                        index,
                        table: Box::default(),
                    },
                );
            }
            "ret" if self.frame.inlined => {
                self.branch(vec!["return".to_owned()], Op::Bra { target: 0 });
            }
            "ret" | "exit" => self.push(Op::Exit),
            "trap" => self.push(Op::Trap),
            "brkpt" | "nanosleep" | "pmevent" | "setmaxnreg" | "griddepcontrol" => {
                self.push(Op::Nop);
            }
            "membar" | "fence" => self.push(Op::Nop),
            "bar" | "barrier" => return self.barrier(parts, args),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn branch(&mut self, labels: Vec<String>, op: Op) {
        let number = self.frame.number;
        let keys = labels.into_iter().map(|label| (number, label)).collect();
        self.fixups.push((self.kernel.code.len(), keys));
        self.push(op);
    }

    fn barrier(&mut self, parts: &[&str], args: &[Arg]) -> Result<bool> {
        let parts: Vec<&str> = parts
            .iter()
            .copied()
            .filter(|part| *part != "cta")
            .collect();
        match parts.get(1) {
            Some(&"warp") => {
                let mask = self.word(&args[0])?;
                self.push(Op::SyncWarp { mask });
            }
            Some(&kind @ ("sync" | "arrive")) => {
                let id = self.word(&args[0])?;
                let count = args.get(1).map_or(Ok(NONE), |arg| self.word(arg))?;
                self.push(Op::Bar {
                    id,
                    count,
                    arrive: kind == "arrive",
                });
            }
            Some(&"red") => {
                if args.len() != 3 {
                    return Err("bar.red with a number of threads is not known".to_owned());
                }
                let id = self.word(&args[1])?;
                let (a, negated) = self.signed_pred(&args[2])?;
                let (f, d) = match parts[2] {
                    "popc" => (None, self.word(&args[0])?),
                    "and" => (Some(Logic::And), self.pred(&args[0])?),
                    _ => (Some(Logic::Or), self.pred(&args[0])?),
                };
                self.push(Op::BarRed {
                    f,
                    id,
                    d,
                    a,
                    negated,
                });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Expands a call in place; the parameters are the caller's `.param` variables.
    pub(super) fn call(&mut self, inst: &ptx::Inst) -> std::result::Result<(), PtxError> {
        let refuse = |reason: String| PtxError {
            line: 0,
            text: String::new(),
            reason,
        };
        let mut lists = Vec::new();
        let mut name = None;
        for arg in &inst.args {
            match arg {
                Arg::List(list) => lists.push((name.is_some(), list)),
                Arg::Name(callee) if name.is_none() => name = Some(callee.clone()),
                _ => {}
            }
        }
        let name = name.ok_or_else(|| refuse("a call without a name".to_owned()))?;
        let found = self
            .module
            .funcs
            .iter()
            .find(|func| func.name == name && func.body.is_some());
        let Some(func) = found else {
            if name == "__assertfail" {
                return self.assertion(inst).map_err(refuse);
            }
            return Err(refuse(format!(
                "the called function {name} has no body (calls by address are not known)"
            )));
        };
        if self.stack.contains(&name) {
            return Err(refuse(format!("{name} is recursive, which is not known")));
        }
        if inst.guard.is_some() {
            return Err(refuse("a call under a predicate is not known".to_owned()));
        }
        (self.guard, self.negated) = (NONE, false);
        let mut scope = Scope::default();
        for (is_param, actuals) in lists {
            let formals = if is_param { &func.params } else { &func.rets };
            for (formal, actual) in formals.iter().zip(actuals) {
                let (symbol @ Symbol::Local(_), _) = self.symbol_of(actual).map_err(refuse)? else {
                    return Err(refuse(
                        "a parameter of a call is no .param variable".to_owned(),
                    ));
                };
                scope.names.insert(formal.name.clone(), symbol);
            }
        }
        let frame = std::mem::replace(
            &mut self.frame,
            Frame {
                number: self.frames,
                inlined: true,
            },
        );
        self.frames += 1;
        let scopes = std::mem::replace(&mut self.scopes, vec![scope]);
        self.stack.push(name);
        let (line, loc) = (self.line, self.loc);
        self.statements(func.body.as_deref().unwrap_or_default())?;
        let end = self.here();
        self.labels
            .insert((self.frame.number, "return".to_owned()), end);
        (self.guard, self.negated) = (NONE, false);
        self.push(Op::Nop);
        self.stack.pop();
        self.scopes = scopes;
        self.frame = frame;
        (self.line, self.loc) = (line, loc);
        Ok(())
    }

    fn assertion(&mut self, inst: &ptx::Inst) -> Result<()> {
        (self.guard, self.negated) = match &inst.guard {
            Some((name, negated)) => (self.pred(&Arg::Name(name.clone()))?, *negated),
            None => (NONE, false),
        };
        self.push(Op::Trap);
        let zero = self.word_const(0);
        let d = self.temp();
        self.push(Op::Int1 {
            f: Int1::Mov,
            d,
            a: zero,
        });
        Ok(())
    }
}
