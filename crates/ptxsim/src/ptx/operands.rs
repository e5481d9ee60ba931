//! Operands: registers, constants, addresses.

use super::{Class, DYNAMIC, Result, Scope, Symbol};
use crate::inst::{Address, Base, Cmp, Place, S32, S64, SPred, Special};

/// Resolves the operands of one instruction.
pub(super) struct Operands<'a> {
    pub(super) scope: &'a mut Scope,
    /// Where dynamic shared memory begins.
    pub(super) dynamic: u64,
}

/// A decimal, hexadecimal or floating-point constant, by its bits.
pub(super) fn integer(text: &str) -> Option<u64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let digits = digits.trim_end_matches('U');
    let value = if let Some(hex) = digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        u64::from_str_radix(hex, 16).ok()?
    } else if let Some(bits) = digits.strip_prefix("0f").or(digits.strip_prefix("0F")) {
        u64::from_str_radix(bits, 16).ok()?
    } else if let Some(bits) = digits.strip_prefix("0d").or(digits.strip_prefix("0D")) {
        u64::from_str_radix(bits, 16).ok()?
    } else {
        digits.parse::<u64>().ok()?
    };
    Some(if negative {
        value.wrapping_neg()
    } else {
        value
    })
}

/// Cuts at the commas that are outside of brackets.
pub(super) fn split(text: &str) -> Vec<String> {
    let (mut parts, mut depth, mut current) = (Vec::new(), 0_i32, String::new());
    for c in text.chars() {
        match c {
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(current.trim().to_owned());
                current.clear();
                continue;
            }
            _ => {}
        }
        current.push(c);
    }
    if !current.trim().is_empty() {
        parts.push(current.trim().to_owned());
    }
    parts
}

fn no_operand(name: &str) -> String {
    format!("the operand {name} is not known here")
}

impl Operands<'_> {
    /// Bits of a symbol's address in its own space.
    fn address_of(&self, symbol: &Symbol) -> Option<u64> {
        match symbol {
            Symbol::Shared(DYNAMIC) => Some(self.dynamic),
            Symbol::Shared(at) | Symbol::Local(at) | Symbol::Global(at) => Some(*at),
            Symbol::Parameter(at) => Some(u64::from(*at)),
            Symbol::Register(..) | Symbol::Family(..) => None,
        }
    }

    fn constant(&self, name: &str) -> Option<u64> {
        if let Some(bits) = integer(name) {
            return Some(bits);
        }
        if name == "WARP_SZ" {
            return Some(32);
        }
        // `name+8`: an address in an expression.
        let (symbol, offset) = match name.split_once('+') {
            Some((symbol, offset)) => (symbol, integer(offset)?),
            None => (name, 0),
        };
        let symbol = self.scope.find(symbol)?;
        Some(self.address_of(&symbol)?.wrapping_add(offset))
    }

    pub(super) fn s32(&self, name: &str) -> Result<S32> {
        match self.scope.find(name) {
            Some(Symbol::Register(Class::B16 | Class::B32, at)) => Ok(S32::R(at)),
            Some(Symbol::Register(..)) => Err(format!("{name} is no register of 32 bits")),
            _ => {
                let bits = self.constant(name).ok_or_else(|| no_operand(name))?;
                Ok(S32::I(bits as u32))
            }
        }
    }

    pub(super) fn s64(&self, name: &str) -> Result<S64> {
        match self.scope.find(name) {
            Some(Symbol::Register(Class::B64, at)) => Ok(S64::R(at)),
            Some(Symbol::Register(..)) => Err(format!("{name} is no register of 64 bits")),
            _ => Ok(S64::I(self.constant(name).ok_or_else(|| no_operand(name))?)),
        }
    }

    pub(super) fn predicate(&self, name: &str) -> Result<SPred> {
        let (negated, bare) = match name.strip_prefix('!') {
            Some(bare) => (true, bare),
            None => (false, name),
        };
        match self.scope.find(bare) {
            Some(Symbol::Register(Class::Pred, register)) => Ok(SPred { register, negated }),
            _ => Err(format!("{bare} is no predicate")),
        }
    }

    /// The class of a register.
    pub(super) fn class(&self, name: &str) -> Option<Class> {
        match self.scope.find(name) {
            Some(Symbol::Register(class, _)) => Some(class),
            _ => None,
        }
    }

    /// A destination in the 32-bit bank; `_` is a register that nobody reads.
    pub(super) fn d32(&mut self, name: &str) -> Result<u32> {
        if name == "_" {
            return Ok(self.scope.registers(Class::B32, 1));
        }
        match self.s32(name)? {
            S32::R(at) => Ok(at),
            S32::I(_) => Err(format!("{name} is no register")),
        }
    }

    pub(super) fn d64(&mut self, name: &str) -> Result<u32> {
        if name == "_" {
            return Ok(self.scope.registers(Class::B64, 1));
        }
        match self.s64(name)? {
            S64::R(at) => Ok(at),
            S64::I(_) => Err(format!("{name} is no register")),
        }
    }

    pub(super) fn dpred(&mut self, name: &str) -> Result<u32> {
        if name == "_" {
            return Ok(self.scope.registers(Class::Pred, 1));
        }
        Ok(self.predicate(name)?.register)
    }

    /// A register of any class but predicates, or a constant.
    pub(super) fn place(&self, name: &str) -> Result<Place> {
        match self.scope.find(name) {
            Some(Symbol::Register(Class::B16, at)) => Ok(Place::B16(at)),
            Some(Symbol::Register(Class::B32, at)) => Ok(Place::B32(at)),
            Some(Symbol::Register(Class::B64, at)) => Ok(Place::B64(at)),
            Some(Symbol::Register(Class::Pred, _)) => Err(format!("{name} is a predicate")),
            _ => {
                let bits = self.constant(name).ok_or_else(|| no_operand(name))?;
                Ok(Place::Constant(bits))
            }
        }
    }

    /// `{a, b}` or `a`.
    pub(super) fn places(&self, text: &str) -> Result<Vec<Option<Place>>> {
        let inner = text.trim_start_matches('{').trim_end_matches('}');
        let place = |name: String| match &*name {
            "_" => Ok(None),
            name => Ok(Some(self.place(name)?)),
        };
        split(inner).into_iter().map(place).collect()
    }

    /// `[base+offset]`.
    pub(super) fn address(&self, text: &str) -> Result<Address> {
        let inner = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'));
        let inner = inner.ok_or_else(|| format!("{text} is no address"))?.trim();
        let (base, offset) = match inner.split_once('+') {
            Some((base, offset)) => {
                let bits = integer(offset.trim()).ok_or("an offset is no number")?;
                (base.trim(), bits as i64)
            }
            None => (inner, 0),
        };
        match self.scope.find(base) {
            Some(Symbol::Register(Class::B64, at)) => Ok(Address {
                base: Base::R64(at),
                offset,
            }),
            Some(Symbol::Register(Class::B32, at)) => Ok(Address {
                base: Base::R32(at),
                offset,
            }),
            _ => {
                let start = self.constant(base).ok_or_else(|| no_operand(base))?;
                Ok(Address {
                    base: Base::None,
                    offset: (start as i64).wrapping_add(offset),
                })
            }
        }
    }
}

/// A special register by its name.
pub(super) fn special(name: &str) -> Option<Special> {
    let axis = |name: &str| ["x", "y", "z"].iter().position(|axis| *axis == name);
    if let Some((register, of)) = name.strip_prefix('%')?.split_once('.') {
        let axis = axis(of)?;
        return match register {
            "tid" => Some(Special::Tid(axis)),
            "ntid" => Some(Special::Ntid(axis)),
            "ctaid" => Some(Special::Ctaid(axis)),
            "nctaid" => Some(Special::Nctaid(axis)),
            "clusterid" => Some(Special::Ctaid(axis)),
            "nclusterid" => Some(Special::Nctaid(axis)),
            "cluster_ctaid" => Some(Special::Constant(0)),
            "cluster_nctaid" => Some(Special::Constant(1)),
            _ => None,
        };
    }
    match name {
        "%laneid" => Some(Special::LaneId),
        "%warpid" => Some(Special::WarpId),
        "%lanemask_eq" => Some(Special::LaneMask(Cmp::Eq)),
        "%lanemask_lt" => Some(Special::LaneMask(Cmp::Lt)),
        "%lanemask_le" => Some(Special::LaneMask(Cmp::Le)),
        "%lanemask_gt" => Some(Special::LaneMask(Cmp::Gt)),
        "%lanemask_ge" => Some(Special::LaneMask(Cmp::Ge)),
        "%clock" | "%clock_hi" | "%clock64" | "%globaltimer" | "%globaltimer_lo" => {
            Some(Special::Clock)
        }
        "%smid" => Some(Special::Constant(0)),
        "%nsmid" => Some(Special::Constant(1)),
        _ => None,
    }
}
