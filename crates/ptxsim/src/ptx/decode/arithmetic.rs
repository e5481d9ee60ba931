//! Arithmetic and logic.

use super::{
    BoolOp, Call, F1, F2, F3, G1, G2, G3, HalfOp, Inst, Kind, Operands, Result, S32, Shift64,
    unknown,
};

pub(super) fn decode(call: &Call<'_>, o: &mut Operands<'_>) -> Result<Inst> {
    let kind = call.kind()?;
    if kind == Kind::Pred {
        return predicates(call, o);
    }
    match call.op {
        "add" | "sub" | "addc" | "subc" if call.op.len() == 4 || call.has("cc") => {
            return carry(call, o, kind);
        }
        "mul" | "mad" if call.has("wide") => return wide(call, o, kind),
        "shl" | "shr" if kind.bits() == 64 => {
            let shift = match (call.op, kind.is_signed()) {
                ("shl", _) => Shift64::Left,
                (_, true) => Shift64::RightS,
                (_, false) => Shift64::RightU,
            };
            let (d, a) = (o.d64(call.at(0)?)?, o.s64(call.at(1)?)?);
            return Ok(Inst::Shift64(shift, d, a, o.s32(call.at(2)?)?));
        }
        "popc" | "clz" if kind.bits() == 64 => {
            let f = if call.op == "popc" { F1::Popc } else { F1::Clz };
            return Ok(Inst::Count64(f, o.d32(call.at(0)?)?, o.s64(call.at(1)?)?));
        }
        "bfi" => {
            let (position, length) = (o.s32(call.at(3)?)?, o.s32(call.at(4)?)?);
            return Ok(match kind.bits() {
                64 => {
                    let (d, a, b) = (
                        o.d64(call.at(0)?)?,
                        o.s64(call.at(1)?)?,
                        o.s64(call.at(2)?)?,
                    );
                    Inst::Bfi64(d, a, b, position, length)
                }
                _ => {
                    let (d, a, b) = (
                        o.d32(call.at(0)?)?,
                        o.s32(call.at(1)?)?,
                        o.s32(call.at(2)?)?,
                    );
                    Inst::Bfi32(d, a, b, position, length)
                }
            });
        }
        _ => {}
    }
    match kind.bits() {
        64 => wide_function(call, o, kind),
        16 if kind.half().is_none() => narrow(call, o, kind),
        _ => function(call, o, kind),
    }
}

fn predicates(call: &Call<'_>, o: &mut Operands<'_>) -> Result<Inst> {
    let d = o.dpred(call.at(0)?)?;
    let a = o.predicate(call.at(1)?)?;
    let op = match call.op {
        "not" => return Ok(Inst::PredNot(d, a)),
        "and" => BoolOp::And,
        "or" => BoolOp::Or,
        "xor" => BoolOp::Xor,
        _ => return Err(unknown()),
    };
    Ok(Inst::PredBool(op, d, a, o.predicate(call.at(2)?)?))
}

fn carry(call: &Call<'_>, o: &Operands<'_>, kind: Kind) -> Result<Inst> {
    Ok(Inst::AddCarry {
        wide: kind.bits() == 64,
        subtract: call.op.starts_with("sub"),
        carry_in: call.op.len() == 4,
        carry_out: call.has("cc"),
        d: o.place(call.at(0)?)?,
        a: o.place(call.at(1)?)?,
        b: o.place(call.at(2)?)?,
    })
}

fn wide(call: &Call<'_>, o: &mut Operands<'_>, kind: Kind) -> Result<Inst> {
    let (a, b) = (o.s32(call.at(1)?)?, o.s32(call.at(2)?)?);
    if kind.bits() == 16 {
        if call.op == "mad" {
            return Err(unknown());
        }
        return Ok(Inst::MulWide16(kind.is_signed(), o.d32(call.at(0)?)?, a, b));
    }
    let term = match call.op {
        "mad" => Some(o.s64(call.at(3)?)?),
        _ => None,
    };
    Ok(Inst::MulWide(
        kind.is_signed(),
        o.d64(call.at(0)?)?,
        a,
        b,
        term,
    ))
}

/// Functions of 16-bit integers.
fn narrow(call: &Call<'_>, o: &mut Operands<'_>, kind: Kind) -> Result<Inst> {
    let signed = kind.is_signed();
    let f = match call.op {
        "add" => F2::Add,
        "sub" => F2::Sub,
        "mul" if call.has("lo") => F2::MulLo,
        "div" if signed => F2::DivS,
        "div" => F2::DivU,
        "rem" if signed => F2::RemS,
        "rem" => F2::RemU,
        "min" if signed => F2::MinS,
        "min" => F2::MinU,
        "max" if signed => F2::MaxS,
        "max" => F2::MaxU,
        "and" => F2::And,
        "or" => F2::Or,
        "xor" => F2::Xor,
        "shl" => F2::Shl,
        "shr" if signed => F2::ShrS,
        "shr" => F2::ShrU,
        "neg" | "not" => {
            let (d, a) = (o.d32(call.at(0)?)?, o.s32(call.at(1)?)?);
            return Ok(match call.op {
                "neg" => Inst::Narrow2(F2::Sub, d, S32::I(0), a, true),
                _ => Inst::Narrow2(F2::Xor, d, a, S32::I(0xffff), false),
            });
        }
        _ => return Err(unknown()),
    };
    let (d, a, b) = (
        o.d32(call.at(0)?)?,
        o.s32(call.at(1)?)?,
        o.s32(call.at(2)?)?,
    );
    Ok(Inst::Narrow2(f, d, a, b, signed))
}

fn wide_function(call: &Call<'_>, o: &mut Operands<'_>, kind: Kind) -> Result<Inst> {
    let (float, signed) = (kind == Kind::F64, kind.is_signed());
    let one = match (call.op, float) {
        ("neg", false) => Some(G1::Neg),
        ("abs", false) => Some(G1::Abs),
        ("not", _) => Some(G1::Not),
        ("brev", _) => Some(G1::Brev),
        ("neg", true) => Some(G1::NegD),
        ("abs", true) => Some(G1::AbsD),
        ("rcp", _) if call.has("approx") => Some(G1::RcpApprox),
        ("rcp", _) => Some(G1::Rcp),
        ("sqrt", _) => Some(G1::Sqrt),
        ("rsqrt", _) => Some(G1::RsqrtApprox),
        _ => None,
    };
    let d = o.d64(call.at(0)?)?;
    let a = o.s64(call.at(1)?)?;
    if let Some(one) = one {
        return Ok(Inst::Wide1(one, d, a));
    }
    let b = o.s64(call.at(2)?)?;
    // Only rounding to nearest, but for division by slow paths, which ask for others.
    let plain = !["rz", "rm", "rp"].iter().any(|name| call.has(name));
    let two = match (call.op, float) {
        ("add", false) => G2::Add,
        ("sub", false) => G2::Sub,
        ("mul", false) if call.has("hi") && signed => G2::MulHiS,
        ("mul", false) if call.has("hi") => G2::MulHiU,
        ("mul", false) => G2::MulLo,
        ("div", false) if signed => G2::DivS,
        ("div", false) => G2::DivU,
        ("rem", _) if signed => G2::RemS,
        ("rem", _) => G2::RemU,
        ("min", false) if signed => G2::MinS,
        ("min", false) => G2::MinU,
        ("max", false) if signed => G2::MaxS,
        ("max", false) => G2::MaxU,
        ("and", _) => G2::And,
        ("or", _) => G2::Or,
        ("xor", _) => G2::Xor,
        ("add", true) if plain => G2::AddD,
        ("sub", true) if plain => G2::SubD,
        ("mul", true) if plain => G2::MulD,
        ("div", true) if plain => G2::DivD,
        ("min", true) => G2::MinD,
        ("max", true) => G2::MaxD,
        // The sign is that of the first operand.
        ("copysign", true) => G2::CopySign,
        ("mad", false) if call.has("lo") => {
            return Ok(Inst::Wide3(G3::MadLo, d, a, b, o.s64(call.at(3)?)?));
        }
        ("fma" | "mad", true) if plain => {
            return Ok(Inst::Wide3(G3::FmaD, d, a, b, o.s64(call.at(3)?)?));
        }
        _ => return Err(unknown()),
    };
    Ok(Inst::Wide2(two, d, a, b))
}

fn one(call: &Call<'_>, kind: Kind) -> Option<F1> {
    let float = kind == Kind::F32;
    Some(match call.op {
        "neg" if kind.half().is_some() => F1::NegPair,
        "abs" if kind.half().is_some() => F1::AbsPair,
        "neg" if float => F1::NegF,
        "abs" if float => F1::AbsF,
        "neg" => F1::Neg,
        "abs" => F1::Abs,
        "not" => F1::Not,
        "popc" => F1::Popc,
        "clz" => F1::Clz,
        "brev" => F1::Brev,
        "bfind" if kind.is_signed() && !call.has("shiftamt") => F1::BfindS,
        "bfind" if !call.has("shiftamt") => F1::BfindU,
        "rcp" => F1::Rcp,
        "sqrt" => F1::Sqrt,
        "rsqrt" => F1::Rsqrt,
        "ex2" if float => F1::Ex2,
        "lg2" => F1::Lg2,
        "sin" => F1::Sin,
        "cos" => F1::Cos,
        "tanh" if float => F1::Tanh,
        _ => return None,
    })
}

fn function(call: &Call<'_>, o: &mut Operands<'_>, kind: Kind) -> Result<Inst> {
    let d = o.d32(call.at(0)?)?;
    let a = o.s32(call.at(1)?)?;
    if let Some(one) = one(call, kind) {
        return Ok(Inst::Map1(one, d, a));
    }
    let b = o.s32(call.at(2)?)?;
    if let Some(two) = two(call, kind) {
        return Ok(Inst::Map2(two, d, a, b));
    }
    let three = three(call, kind)?;
    Ok(Inst::Map3(three, d, a, b, o.s32(call.at(3)?)?))
}

fn two(call: &Call<'_>, kind: Kind) -> Option<F2> {
    let (float, signed) = (kind == Kind::F32, kind.is_signed());
    let plain = !["rz", "rm", "rp", "sat"].iter().any(|name| call.has(name));
    if let Some((half, pair)) = kind.half() {
        let nan = call.has("NaN");
        let op = match call.op {
            "add" if plain => HalfOp::Add,
            "sub" if plain => HalfOp::Sub,
            "mul" if plain => HalfOp::Mul,
            "min" if nan => HalfOp::MinNan,
            "max" if nan => HalfOp::MaxNan,
            "min" => HalfOp::Min,
            "max" => HalfOp::Max,
            _ => return None,
        };
        return Some(F2::Half(op, half, pair));
    }
    Some(match call.op {
        "add" if float && plain => F2::AddF,
        "sub" if float && plain => F2::SubF,
        "mul" if float && plain => F2::MulF,
        "div" if float => F2::DivF,
        "min" if float && call.has("NaN") => F2::MinNanF,
        "max" if float && call.has("NaN") => F2::MaxNanF,
        "min" if float => F2::MinF,
        "max" if float => F2::MaxF,
        "copysign" => F2::CopySign,
        _ if float => return None,
        "add" => F2::Add,
        "sub" => F2::Sub,
        "mul" if call.has("hi") && signed => F2::MulHiS,
        "mul" if call.has("hi") => F2::MulHiU,
        "mul" => F2::MulLo,
        "div" if signed => F2::DivS,
        "div" => F2::DivU,
        "rem" if signed => F2::RemS,
        "rem" => F2::RemU,
        "min" if signed => F2::MinS,
        "min" => F2::MinU,
        "max" if signed => F2::MaxS,
        "max" => F2::MaxU,
        "and" => F2::And,
        "or" => F2::Or,
        "xor" => F2::Xor,
        "shl" => F2::Shl,
        "shr" if signed => F2::ShrS,
        "shr" => F2::ShrU,
        _ => return None,
    })
}

fn three(call: &Call<'_>, kind: Kind) -> Result<F3> {
    let (float, signed) = (kind == Kind::F32, kind.is_signed());
    if let Some((half, pair)) = kind.half() {
        return match call.op {
            "fma" if !call.has("relu") && !call.has("sat") => Ok(F3::Half(half, pair)),
            _ => Err(unknown()),
        };
    }
    Ok(match call.op {
        "fma" | "mad" if float && call.has("sat") => return Err(unknown()),
        "fma" | "mad" if float && call.has("rm") => F3::FmaDown,
        "fma" | "mad" if float && call.has("rp") => F3::FmaUp,
        "fma" | "mad" if float && call.has("rz") => F3::FmaZero,
        "fma" | "mad" if float => F3::Fma,
        "mad" if call.has("hi") && signed => F3::MadHiS,
        "mad" if call.has("hi") => F3::MadHiU,
        "mad" => F3::MadLo,
        "bfe" if signed => F3::BfeS,
        "bfe" => F3::BfeU,
        "lop3" => {
            let table = call.at(4)?;
            let bits = super::super::operands::integer(table).ok_or("a table of lop3")?;
            F3::Lop3(bits as u8)
        }
        "shf" => {
            let wrap = call.has("wrap");
            match call.modifiers.first() {
                Some(&"l") => F3::ShfLeft { wrap },
                Some(&"r") => F3::ShfRight { wrap },
                _ => return Err(unknown()),
            }
        }
        "prmt" if call.modifiers.len() == 1 => F3::Prmt,
        "sad" if !signed => F3::Sad,
        _ => return Err(unknown()),
    })
}
