//! One instruction: opcode, modifiers and operands.

use super::operands::{Operands, special, split};
use super::{Class, Result, Scope};
use crate::inst::{
    Atomic, BoolOp, Cmp, Compared, F1, F2, F3, G1, G2, G3, HalfOp, HalfType, Inst, MmaKind, Num,
    Place, Rounding, S32, SPred, Shift64, Shuffle, Space, Vote,
};

mod arithmetic;
mod memory;

/// The opcode with its modifiers, and the operands as text.
pub(super) struct Call<'a> {
    pub(super) op: &'a str,
    pub(super) modifiers: Vec<&'a str>,
    pub(super) operands: Vec<String>,
}

impl Call<'_> {
    pub(super) fn has(&self, modifier: &str) -> bool {
        self.modifiers.contains(&modifier)
    }

    /// The operand at a place.
    pub(super) fn at(&self, i: usize) -> Result<&str> {
        let operand = self.operands.get(i).map(String::as_str);
        operand.ok_or_else(|| "too few operands".to_owned())
    }

    /// The last modifier that names a type.
    pub(super) fn kind(&self) -> Result<Kind> {
        let kinds = self.modifiers.iter().rev().find_map(|name| Kind::of(name));
        kinds.ok_or_else(|| "no type is given".to_owned())
    }
}

/// A type by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Pred,
    Bits(u32),
    Unsigned(u32),
    Signed(u32),
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    F32,
    F64,
}

impl Kind {
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "pred" => Self::Pred,
            "b8" => Self::Bits(8),
            "b16" => Self::Bits(16),
            "b32" => Self::Bits(32),
            "b64" => Self::Bits(64),
            "u8" => Self::Unsigned(8),
            "u16" => Self::Unsigned(16),
            "u32" => Self::Unsigned(32),
            "u64" => Self::Unsigned(64),
            "s8" => Self::Signed(8),
            "s16" => Self::Signed(16),
            "s32" => Self::Signed(32),
            "s64" => Self::Signed(64),
            "f16" => Self::F16,
            "f16x2" => Self::F16x2,
            "bf16" => Self::Bf16,
            "bf16x2" => Self::Bf16x2,
            "f32" => Self::F32,
            "f64" => Self::F64,
            _ => return None,
        })
    }

    pub(super) fn bits(self) -> u32 {
        match self {
            Self::Pred => 1,
            Self::Bits(n) | Self::Unsigned(n) | Self::Signed(n) => n,
            Self::F16 | Self::Bf16 => 16,
            Self::F16x2 | Self::Bf16x2 | Self::F32 => 32,
            Self::F64 => 64,
        }
    }

    pub(super) fn is_signed(self) -> bool {
        matches!(self, Self::Signed(_))
    }

    fn half(self) -> Option<(HalfType, bool)> {
        Some(match self {
            Self::F16 => (HalfType::F16, false),
            Self::F16x2 => (HalfType::F16, true),
            Self::Bf16 => (HalfType::Bf16, false),
            Self::Bf16x2 => (HalfType::Bf16, true),
            _ => return None,
        })
    }
}

/// Decodes `@!p op.mod.type d, a, b`.
pub(super) fn instruction(
    text: &str,
    scope: &mut Scope,
    dynamic: u64,
) -> Result<(Inst, Option<SPred>)> {
    let mut o = Operands { scope, dynamic };
    let (guard, text) = match text.strip_prefix('@') {
        Some(rest) => {
            let (name, rest) = rest
                .split_once(char::is_whitespace)
                .ok_or("a guard alone")?;
            (Some(o.predicate(name)?), rest.trim_start())
        }
        None => (None, text),
    };
    let (code, operands) = match text.split_once(char::is_whitespace) {
        Some((code, operands)) => (code, operands.trim()),
        None => (text, ""),
    };
    let mut words = code.split('.').filter(|word| !word.is_empty());
    let call = Call {
        op: words.next().ok_or("no opcode")?,
        modifiers: words.collect(),
        operands: split(operands),
    };
    let inst = decode(&call, &mut o)?;
    Ok((inst, guard))
}

fn unknown() -> String {
    "the interpreter does not know this instruction".to_owned()
}

fn decode(call: &Call<'_>, o: &mut Operands<'_>) -> Result<Inst> {
    match call.op {
        "ld" | "ldu" | "st" | "atom" | "red" | "cvta" | "isspacep" | "cp" | "ldmatrix" | "mma"
        | "prefetch" | "prefetchu" | "createpolicy" => memory::decode(call, o),
        "mov" => mov(call, o),
        "bra" => branch(call, o),
        "brx" => {
            let table = call.at(1)?;
            let labels = o
                .scope
                .tables
                .get(table)
                .cloned()
                .ok_or("a table that is not there")?;
            let of = |label: &String| {
                let target = o.scope.labels.get(label).copied();
                target.ok_or_else(|| format!("the label {label} is not there"))
            };
            let targets = labels.iter().map(of).collect::<Result<_>>()?;
            Ok(Inst::BranchIndexed(o.s32(call.at(0)?)?, targets))
        }
        "ret" | "exit" => Ok(Inst::Exit),
        "trap" | "brkpt" => Ok(Inst::Trap),
        "bar" | "barrier" => barrier(call, o),
        "membar" | "fence" | "nanosleep" | "pmevent" | "griddepcontrol" => Ok(Inst::Fence),
        "shfl" => shuffle(call, o),
        "vote" => vote(call, o),
        "match" if call.has("any") => {
            let (d, a) = (o.d32(call.at(0)?)?, o.s32(call.at(1)?)?);
            Ok(Inst::MatchAny(d, a, o.s32(call.at(2)?)?))
        }
        "activemask" => Ok(Inst::ActiveMask(o.d32(call.at(0)?)?)),
        "redux" => redux(call, o),
        "setp" => compare(call, o),
        "selp" => select(call, o),
        "cvt" => convert(call, o),
        _ => arithmetic::decode(call, o),
    }
}

fn mov(call: &Call<'_>, o: &mut Operands<'_>) -> Result<Inst> {
    let (to, from) = (call.at(0)?, call.at(1)?);
    if let Some(special) = special(from) {
        return Ok(match o.class(to) {
            Some(Class::B64) => Inst::ReadSpecial64(o.d64(to)?, special),
            _ => Inst::ReadSpecial(o.d32(to)?, special),
        });
    }
    let parts = |text: &str| split(text.trim_matches(['{', '}']));
    match (to.starts_with('{'), from.starts_with('{')) {
        (true, true) => Err(unknown()),
        (true, false) => unpack(&parts(to), from, o),
        (false, true) => pack(to, &parts(from), o),
        (false, false) if call.kind()? == Kind::Pred => {
            let d = o.dpred(to)?;
            match super::operands::integer(from) {
                Some(bits) => Ok(Inst::PredConstant(d, bits != 0)),
                None => Ok(Inst::PredMove(d, o.predicate(from)?)),
            }
        }
        (false, false) => match o.class(to) {
            Some(Class::B64) => Ok(Inst::Wide1(G1::Move, o.d64(to)?, o.s64(from)?)),
            _ => Ok(Inst::Map1(F1::Move, o.d32(to)?, o.s32(from)?)),
        },
    }
}

fn pack(to: &str, parts: &[String], o: &mut Operands<'_>) -> Result<Inst> {
    let is_wide = o.class(to) == Some(Class::B64);
    match (is_wide, parts) {
        (true, [low, high]) => Ok(Inst::Pack64(o.d64(to)?, o.s32(low)?, o.s32(high)?)),
        (true, [a, b, c, d]) => {
            let parts = [o.s32(a)?, o.s32(b)?, o.s32(c)?, o.s32(d)?];
            Ok(Inst::Pack64x4(o.d64(to)?, parts))
        }
        (false, [low, high]) => Ok(Inst::Pack32(o.d32(to)?, o.s32(low)?, o.s32(high)?)),
        _ => Err(unknown()),
    }
}

fn unpack(parts: &[String], from: &str, o: &mut Operands<'_>) -> Result<Inst> {
    let is_wide = o.class(from) == Some(Class::B64);
    match (is_wide, parts) {
        (true, [low, high]) => Ok(Inst::Unpack64(o.d32(low)?, o.d32(high)?, o.s64(from)?)),
        (true, [a, b, c, d]) => {
            let parts = [o.d32(a)?, o.d32(b)?, o.d32(c)?, o.d32(d)?];
            Ok(Inst::Unpack64x4(parts, o.s64(from)?))
        }
        (false, [low, high]) => Ok(Inst::Unpack32(o.d32(low)?, o.d32(high)?, o.s32(from)?)),
        _ => Err(unknown()),
    }
}

fn branch(call: &Call<'_>, o: &Operands<'_>) -> Result<Inst> {
    let label = call.at(0)?;
    let target = o.scope.labels.get(label).copied();
    Ok(Inst::Branch(target.ok_or_else(|| {
        format!("the label {label} is not there")
    })?))
}

fn barrier(call: &Call<'_>, o: &Operands<'_>) -> Result<Inst> {
    if call.has("warp") {
        return Ok(Inst::SyncWarp(o.s32(call.at(0)?)?));
    }
    if !call.has("sync") || call.has("cluster") {
        return Err(unknown());
    }
    let threads = call.operands.get(1).map(|n| o.s32(n)).transpose()?;
    Ok(Inst::Barrier(o.s32(call.at(0)?)?, threads))
}

fn shuffle(call: &Call<'_>, o: &mut Operands<'_>) -> Result<Inst> {
    let mode = match call.modifiers.get(1) {
        Some(&"up") => Shuffle::Up,
        Some(&"down") => Shuffle::Down,
        Some(&"bfly") => Shuffle::Butterfly,
        Some(&"idx") => Shuffle::Index,
        _ => return Err(unknown()),
    };
    let (d, valid) = match call.at(0)?.split_once('|') {
        Some((d, valid)) => (o.d32(d)?, Some(o.dpred(valid)?)),
        None => (o.d32(call.at(0)?)?, None),
    };
    let [a, b, c, mask] = [1, 2, 3, 4].map(|i| call.at(i).and_then(|name| o.s32(name)));
    let (a, b, c, mask) = (a?, b?, c?, mask?);
    Ok(Inst::Shuffle {
        mode,
        d,
        valid,
        a,
        b,
        c,
        mask,
    })
}

fn vote(call: &Call<'_>, o: &mut Operands<'_>) -> Result<Inst> {
    let mode = match call.modifiers.get(1) {
        Some(&"all") => Vote::All,
        Some(&"any") => Vote::Any,
        Some(&"uni") => Vote::Uniform,
        Some(&"ballot") => Vote::Ballot,
        _ => return Err(unknown()),
    };
    let d = match mode {
        Vote::Ballot => o.d32(call.at(0)?)?,
        _ => o.dpred(call.at(0)?)?,
    };
    let (a, mask) = (o.predicate(call.at(1)?)?, o.s32(call.at(2)?)?);
    Ok(Inst::Vote { mode, d, a, mask })
}

fn redux(call: &Call<'_>, o: &mut Operands<'_>) -> Result<Inst> {
    let signed = call.kind()?.is_signed();
    let f = match (call.modifiers.get(1), signed) {
        (Some(&"add"), _) => F2::Add,
        (Some(&"min"), true) => F2::MinS,
        (Some(&"min"), false) => F2::MinU,
        (Some(&"max"), true) => F2::MaxS,
        (Some(&"max"), false) => F2::MaxU,
        (Some(&"and"), _) => F2::And,
        (Some(&"or"), _) => F2::Or,
        (Some(&"xor"), _) => F2::Xor,
        _ => return Err(unknown()),
    };
    let (d, a) = (o.d32(call.at(0)?)?, o.s32(call.at(1)?)?);
    Ok(Inst::Reduce(f, d, a, o.s32(call.at(2)?)?))
}

fn compare(call: &Call<'_>, o: &mut Operands<'_>) -> Result<Inst> {
    let kind = call.kind()?;
    let cmp = match *call.modifiers.first().unwrap_or(&"") {
        "eq" => Cmp::Eq,
        "ne" => Cmp::Ne,
        "lt" | "lo" => Cmp::Lt,
        "le" | "ls" => Cmp::Le,
        "gt" | "hi" => Cmp::Gt,
        "ge" | "hs" => Cmp::Ge,
        "equ" => Cmp::Equ,
        "neu" => Cmp::Neu,
        "ltu" => Cmp::Ltu,
        "leu" => Cmp::Leu,
        "gtu" => Cmp::Gtu,
        "geu" => Cmp::Geu,
        "num" => Cmp::Num,
        "nan" => Cmp::Nan,
        _ => return Err(unknown()),
    };
    let combine = call.modifiers.iter().find_map(|name| match *name {
        "and" => Some(BoolOp::And),
        "or" => Some(BoolOp::Or),
        "xor" => Some(BoolOp::Xor),
        _ => None,
    });
    let (d, complement) = match call.at(0)?.split_once('|') {
        Some((d, complement)) => (o.dpred(d)?, Some(o.dpred(complement)?)),
        None => (o.dpred(call.at(0)?)?, None),
    };
    let (a, b) = (call.at(1)?, call.at(2)?);
    let what = match kind {
        Kind::Bits(16) | Kind::Unsigned(16) | Kind::Unsigned(32) | Kind::Bits(32) => {
            Compared::U32(o.s32(a)?, o.s32(b)?)
        }
        Kind::Signed(32) => Compared::S32(o.s32(a)?, o.s32(b)?),
        Kind::Signed(16) => Compared::S16(o.s32(a)?, o.s32(b)?),
        Kind::F32 => Compared::F32(o.s32(a)?, o.s32(b)?),
        Kind::F16 => Compared::Half(HalfType::F16, o.s32(a)?, o.s32(b)?),
        Kind::Bf16 => Compared::Half(HalfType::Bf16, o.s32(a)?, o.s32(b)?),
        Kind::Bits(64) | Kind::Unsigned(64) => Compared::U64(o.s64(a)?, o.s64(b)?),
        Kind::Signed(64) => Compared::S64(o.s64(a)?, o.s64(b)?),
        Kind::F64 => Compared::F64(o.s64(a)?, o.s64(b)?),
        _ => return Err(unknown()),
    };
    // 16-bit constants are sign-extended in the text, registers hold no higher bits.
    let low = |x: S32| match x {
        S32::I(bits) => S32::I(bits & 0xffff),
        S32::R(_) => x,
    };
    let what = match what {
        Compared::U32(a, b) if kind.bits() == 16 => Compared::U32(low(a), low(b)),
        what => what,
    };
    let combine = match combine {
        Some(op) => Some((op, o.predicate(call.at(3)?)?)),
        None => None,
    };
    Ok(Inst::Compare {
        cmp,
        what,
        d,
        complement,
        combine,
    })
}

fn select(call: &Call<'_>, o: &mut Operands<'_>) -> Result<Inst> {
    let p = o.predicate(call.at(3)?)?;
    let (a, b) = (call.at(1)?, call.at(2)?);
    match call.kind()?.bits() {
        64 => Ok(Inst::Select64(o.d64(call.at(0)?)?, o.s64(a)?, o.s64(b)?, p)),
        _ => Ok(Inst::Select32(o.d32(call.at(0)?)?, o.s32(a)?, o.s32(b)?, p)),
    }
}

fn number(kind: Kind) -> Result<Num> {
    Ok(match kind {
        Kind::Unsigned(8) | Kind::Bits(8) => Num::U8,
        Kind::Unsigned(16) | Kind::Bits(16) => Num::U16,
        Kind::Unsigned(32) | Kind::Bits(32) => Num::U32,
        Kind::Unsigned(64) | Kind::Bits(64) => Num::U64,
        Kind::Signed(8) => Num::S8,
        Kind::Signed(16) => Num::S16,
        Kind::Signed(32) => Num::S32,
        Kind::Signed(64) => Num::S64,
        Kind::F16 => Num::F16,
        Kind::Bf16 => Num::Bf16,
        Kind::F32 => Num::F32,
        Kind::F64 => Num::F64,
        _ => return Err(unknown()),
    })
}

fn convert(call: &Call<'_>, o: &mut Operands<'_>) -> Result<Inst> {
    let kinds: Vec<Kind> = call
        .modifiers
        .iter()
        .filter_map(|name| Kind::of(name))
        .collect();
    let [to, from] = kinds[..] else {
        return Err(unknown());
    };
    let relu = call.has("relu");
    if let Some((half, true)) = to.half() {
        let (d, a, b) = (
            o.d32(call.at(0)?)?,
            o.s32(call.at(1)?)?,
            o.s32(call.at(2)?)?,
        );
        if from != Kind::F32 || !call.has("rn") {
            return Err(unknown());
        }
        return Ok(Inst::ConvertPair(half, relu, d, a, b));
    }
    let integral = ["rni", "rzi", "rmi", "rpi"]
        .iter()
        .any(|name| call.has(name));
    let rounding = call.modifiers.iter().find_map(|name| match *name {
        "rn" | "rni" => Some(Rounding::Near),
        "rz" | "rzi" => Some(Rounding::Zero),
        "rm" | "rmi" => Some(Rounding::Down),
        "rp" | "rpi" => Some(Rounding::Up),
        _ => None,
    });
    Ok(Inst::Convert {
        from: number(from)?,
        to: number(to)?,
        rounding: rounding.unwrap_or(Rounding::Near),
        integral,
        saturate: call.has("sat"),
        relu,
        d: o.place(call.at(0)?)?,
        a: o.place(call.at(1)?)?,
    })
}
