//! Operands: registers, constants, symbols and addresses.

use super::{Class, Decoder, Result, Symbol, address_of, low_word};
use crate::isa::{Addr, Cmp, NONE, Op, Reg, Special, Ty};
use crate::ptx::Arg;

impl Decoder<'_> {
    pub(super) fn word_const(&mut self, value: u32) -> Reg {
        if let Some(&reg) = self.words.get(&value) {
            return reg;
        }
        let reg = self.temp();
        self.words.insert(value, reg);
        self.kernel.const32.push((reg, value));
        reg
    }

    pub(super) fn long_const(&mut self, value: u64) -> Reg {
        if let Some(&reg) = self.longs.get(&value) {
            return reg;
        }
        let reg = self.temp_long();
        self.longs.insert(value, reg);
        self.kernel.const64.push((reg, value));
        reg
    }

    /// An operand of up to 32 bits.
    pub(super) fn word(&mut self, arg: &Arg) -> Result<Reg> {
        match arg {
            Arg::Int(value) => Ok(self.word_const(low_word(*value))),
            Arg::F32(bits) => Ok(self.word_const(*bits)),
            Arg::F64(bits) => Ok(self.word_const(narrow(*bits))),
            Arg::Name(name) if name == "_" => Ok(NONE),
            Arg::Name(name) if name == "WARP_SZ" => Ok(self.word_const(32)),
            _ => match self.symbol_of(arg)? {
                (Symbol::Reg(Class::Word, reg), _) => Ok(reg),
                (Symbol::Reg(..), _) => Err("an operand has the wrong width".to_owned()),
                (Symbol::DynamicShared, offset) => {
                    let reg = self.temp();
                    self.dynamic.push((Class::Word, reg, offset));
                    Ok(reg)
                }
                (symbol, offset) => {
                    let value = address_of(symbol).wrapping_add_signed(offset);
                    Ok(self.word_const(low_word(value.cast_signed())))
                }
            },
        }
    }

    /// An operand of 64 bits.
    pub(super) fn long(&mut self, arg: &Arg) -> Result<Reg> {
        match arg {
            Arg::Int(value) => Ok(self.long_const(value.cast_unsigned())),
            Arg::F64(bits) => Ok(self.long_const(*bits)),
            Arg::F32(bits) => Ok(self.long_const(f64::from(f32::from_bits(*bits)).to_bits())),
            Arg::Name(name) if name == "_" => Ok(NONE),
            _ => match self.symbol_of(arg)? {
                (Symbol::Reg(Class::Long, reg), _) => Ok(reg),
                (Symbol::Reg(..), _) => Err("an operand has the wrong width".to_owned()),
                (Symbol::DynamicShared, offset) => {
                    let reg = self.temp_long();
                    self.dynamic.push((Class::Long, reg, offset));
                    Ok(reg)
                }
                (symbol, offset) => {
                    Ok(self.long_const(address_of(symbol).wrapping_add_signed(offset)))
                }
            },
        }
    }

    pub(super) fn pred(&mut self, arg: &Arg) -> Result<Reg> {
        match arg {
            Arg::Name(name) if name == "_" => Ok(NONE),
            Arg::Name(name) => match self.lookup(name)? {
                Symbol::Reg(Class::Pred, reg) => Ok(reg),
                _ => Err(format!("{name} is no predicate")),
            },
            Arg::Int(value) => {
                // A constant predicate: `0 != 0` or `1 != 0`, computed where it is used.
                let p = self.temp_pred();
                let (a, zero) = (self.word_const(u32::from(*value != 0)), self.word_const(0));
                let (guard, negated) = (self.guard, self.negated);
                self.guard = NONE;
                self.push(Op::Setp {
                    cmp: Cmp::Ne,
                    ty: Ty::U32,
                    p,
                    q: NONE,
                    a,
                    b: zero,
                    with: None,
                });
                (self.guard, self.negated) = (guard, negated);
                Ok(p)
            }
            _ => Err("expected a predicate".to_owned()),
        }
    }

    /// A predicate that may be negated.
    pub(super) fn signed_pred(&mut self, arg: &Arg) -> Result<(Reg, bool)> {
        match arg {
            Arg::Not(inner) => Ok((self.pred(inner)?, true)),
            _ => Ok((self.pred(arg)?, false)),
        }
    }

    pub(super) fn symbol_of(&mut self, arg: &Arg) -> Result<(Symbol, i64)> {
        match arg {
            Arg::Name(name) => Ok((self.lookup(name)?, 0)),
            Arg::Mem { base, offset } => match base.as_ref() {
                Arg::Name(name) => Ok((self.lookup(name)?, *offset)),
                _ => Err("unknown operand".to_owned()),
            },
            _ => Err("unknown operand".to_owned()),
        }
    }

    pub(super) fn is_long(&mut self, arg: &Arg) -> bool {
        matches!(self.symbol_of(arg), Ok((Symbol::Reg(Class::Long, _), _)))
    }

    pub(super) fn is_pred(&mut self, arg: &Arg) -> bool {
        matches!(self.symbol_of(arg), Ok((Symbol::Reg(Class::Pred, _), _)))
    }

    /// `[base + offset]`, and the space that a symbol as a base implies.
    pub(super) fn addr(&mut self, arg: &Arg) -> Result<(Addr, Option<Symbol>)> {
        let Arg::Mem { base, offset } = arg else {
            return Err("expected an address".to_owned());
        };
        let name = match base.as_ref() {
            Arg::Name(name) => name,
            Arg::Int(value) => {
                return Ok((
                    Addr {
                        base: NONE,
                        wide: true,
                        offset: value + offset,
                    },
                    None,
                ));
            }
            _ => return Err("unknown address".to_owned()),
        };
        Ok(match self.lookup(name)? {
            Symbol::Reg(Class::Long, base) => (
                Addr {
                    base,
                    wide: true,
                    offset: *offset,
                },
                None,
            ),
            Symbol::Reg(Class::Word, base) => (
                Addr {
                    base,
                    wide: false,
                    offset: *offset,
                },
                None,
            ),
            Symbol::Reg(Class::Pred, _) => return Err("a predicate is no address".to_owned()),
            symbol @ Symbol::DynamicShared => {
                let base = self.temp();
                self.dynamic.push((Class::Word, base, 0));
                (
                    Addr {
                        base,
                        wide: false,
                        offset: *offset,
                    },
                    Some(symbol),
                )
            }
            symbol => {
                let offset = address_of(symbol).cast_signed().wrapping_add(*offset);
                (
                    Addr {
                        base: NONE,
                        wide: true,
                        offset,
                    },
                    Some(symbol),
                )
            }
        })
    }
}

/// An `f64` constant where an `f32` is meant: decimal literals are read as `f64`.
fn narrow(bits: u64) -> u32 {
    (f64::from_bits(bits) as f32).to_bits()
}

pub(super) fn special(name: &str) -> Option<Special> {
    let axis = |rest: &str| match rest {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    let (head, rest) = name.split_once('.').unwrap_or((name, ""));
    Some(match head {
        "%tid" => Special::Tid(axis(rest)?),
        "%ntid" => Special::Ntid(axis(rest)?),
        "%ctaid" | "%clusterid" => Special::Ctaid(axis(rest)?),
        "%nctaid" | "%nclusterid" => Special::Nctaid(axis(rest)?),
        "%cluster_ctaid" => Special::Zero,
        "%cluster_nctaid" => Special::One,
        "%laneid" => Special::LaneId,
        "%warpid" => Special::WarpId,
        "%nwarpid" => Special::NwarpId,
        "%lanemask_eq" => Special::LaneMaskEq,
        "%lanemask_lt" => Special::LaneMaskLt,
        "%lanemask_le" => Special::LaneMaskLe,
        "%lanemask_gt" => Special::LaneMaskGt,
        "%lanemask_ge" => Special::LaneMaskGe,
        "%dynamic_smem_size" => Special::DynamicSmem,
        "%total_smem_size" => Special::TotalSmem,
        "%smid" | "%gridid" | "%cluster_ctarank" => Special::Zero,
        "%nsmid" | "%cluster_nctarank" => Special::One,
        _ => return None,
    })
}
