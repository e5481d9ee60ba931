//! Loads, stores, atomics, asynchronous copies and matrices.

use super::{
    Atomic, Call, HalfType, Inst, Kind, MmaKind, Operands, Place, Result, S32, Space, unknown,
};

pub(super) fn decode(call: &Call<'_>, o: &mut Operands<'_>) -> Result<Inst> {
    match call.op {
        "ld" | "ldu" => load(call, o),
        "st" => store(call, o),
        "atom" | "red" => atomic(call, o),
        "cvta" => cvta(call, o),
        "isspacep" => {
            let (d, a) = (o.dpred(call.at(0)?)?, o.s64(call.at(1)?)?);
            Ok(Inst::IsSpace(space(call)?, d, a))
        }
        "cp" => cp_async(call, o),
        "ldmatrix" => ldmatrix(call, o),
        "mma" => mma(call, o),
        "prefetch" | "prefetchu" => Ok(Inst::Nothing),
        _ => Err(unknown()),
    }
}

fn space(call: &Call<'_>) -> Result<Space> {
    for modifier in &call.modifiers {
        match *modifier {
            "global" | "const" => return Ok(Space::Global),
            "shared" | "shared::cta" => return Ok(Space::Shared),
            "local" => return Ok(Space::Local),
            _ => {}
        }
    }
    Ok(Space::Generic)
}

fn load(call: &Call<'_>, o: &Operands<'_>) -> Result<Inst> {
    let kind = call.kind()?;
    let (bytes, signed) = (kind.bits() / 8, kind.is_signed());
    let to = o.places(call.at(0)?)?;
    // A cache policy may follow the address.
    let address = o.address(call.at(1)?)?;
    if call.has("param") {
        return Ok(Inst::LoadParameter {
            address,
            bytes,
            signed,
            to,
        });
    }
    let space = space(call)?;
    Ok(Inst::Load {
        space,
        bytes,
        signed,
        to,
        address,
    })
}

fn store(call: &Call<'_>, o: &Operands<'_>) -> Result<Inst> {
    if call.has("param") {
        return Err(unknown());
    }
    let bytes = call.kind()?.bits() / 8;
    let from = o
        .places(call.at(1)?)?
        .into_iter()
        .map(|place| place.ok_or_else(unknown));
    Ok(Inst::Store {
        space: space(call)?,
        bytes,
        from: from.collect::<Result<Vec<Place>>>()?,
        address: o.address(call.at(0)?)?,
    })
}

fn atomic(call: &Call<'_>, o: &Operands<'_>) -> Result<Inst> {
    let kind = call.kind()?;
    let signed = kind.is_signed();
    let op = call.modifiers.iter().find_map(|name| {
        Some(match *name {
            "add" if kind == Kind::F32 => Atomic::AddF,
            "add" if kind != Kind::F64 && kind.half().is_none() => Atomic::Add,
            "min" if signed => Atomic::MinS,
            "min" => Atomic::MinU,
            "max" if signed => Atomic::MaxS,
            "max" => Atomic::MaxU,
            "and" => Atomic::And,
            "or" => Atomic::Or,
            "xor" => Atomic::Xor,
            "exch" => Atomic::Exchange,
            "cas" => Atomic::CompareExchange,
            _ => return None,
        })
    });
    let op = op.ok_or_else(unknown)?;
    let first = usize::from(call.op == "atom");
    let d = match call.op {
        "atom" if call.at(0)? != "_" => Some(o.place(call.at(0)?)?),
        _ => None,
    };
    let c = match op {
        Atomic::CompareExchange => Some(o.place(call.at(first + 2)?)?),
        _ => None,
    };
    Ok(Inst::Atomic {
        op,
        space: space(call)?,
        wide: kind.bits() == 64,
        d,
        address: o.address(call.at(first)?)?,
        b: o.place(call.at(first + 1)?)?,
        c,
    })
}

fn cvta(call: &Call<'_>, o: &mut Operands<'_>) -> Result<Inst> {
    let (d, a) = (o.d64(call.at(0)?)?, o.s64(call.at(1)?)?);
    let space = space(call)?;
    match call.has("to") {
        true => Ok(Inst::FromGeneric(space, d, a)),
        false => Ok(Inst::ToGeneric(space, d, a)),
    }
}

fn cp_async(call: &Call<'_>, o: &Operands<'_>) -> Result<Inst> {
    if !call.has("async") || call.has("bulk") || call.has("mbarrier") {
        return Err(unknown());
    }
    if call.has("commit_group") {
        return Ok(Inst::CpAsyncCommit);
    }
    if call.has("wait_all") {
        return Ok(Inst::CpAsyncWait(0));
    }
    let constant = |i: usize| -> Result<u32> {
        let bits = super::super::operands::integer(call.at(i)?);
        bits.and_then(|bits| u32::try_from(bits).ok())
            .ok_or_else(|| "a constant".to_owned())
    };
    if call.has("wait_group") {
        return Ok(Inst::CpAsyncWait(constant(0)?));
    }
    let source_bytes = match call.operands.get(3) {
        Some(name) => Some(o.s32(name)?),
        None => None,
    };
    Ok(Inst::CpAsync {
        bytes: constant(2)?,
        shared: o.address(call.at(0)?)?,
        global: o.address(call.at(1)?)?,
        source_bytes,
    })
}

fn ldmatrix(call: &Call<'_>, o: &mut Operands<'_>) -> Result<Inst> {
    let names = super::split(call.at(0)?.trim_matches(['{', '}']));
    let mut d = [0; 4];
    for (d, name) in d.iter_mut().zip(&names) {
        *d = o.d32(name)?;
    }
    if !call.has("m8n8") || call.kind()?.bits() != 16 || !matches!(names.len(), 1 | 2 | 4) {
        return Err(unknown());
    }
    Ok(Inst::LdMatrix {
        n: names.len(),
        transposed: call.has("trans"),
        d,
        address: o.address(call.at(1)?)?,
    })
}

fn mma(call: &Call<'_>, o: &Operands<'_>) -> Result<Inst> {
    let kinds: Vec<&str> = call
        .modifiers
        .iter()
        .copied()
        .filter(|m| Kind::of(m).is_some())
        .collect();
    let half = match kinds[..] {
        ["f32", "bf16", "bf16", "f32"] => HalfType::Bf16,
        ["f32", "f16", "f16", "f32"] => HalfType::F16,
        _ => return Err(unknown()),
    };
    if !call.has("row") || !call.has("col") {
        return Err(unknown());
    }
    let kind = match (call.has("m16n8k16"), call.has("m16n8k8")) {
        (true, _) => MmaKind::K16(half),
        (_, true) => MmaKind::K8(half),
        _ => return Err(unknown()),
    };
    let group = |i: usize| -> Result<Vec<S32>> {
        let names = super::split(call.at(i)?.trim_matches(['{', '}']));
        names.iter().map(|name| o.s32(name)).collect()
    };
    let (d, mut a, mut b, c) = (group(0)?, group(1)?, group(2)?, group(3)?);
    a.resize(4, S32::I(0));
    b.resize(2, S32::I(0));
    let registers = d.iter().map(|d| match d {
        S32::R(at) => Ok(*at),
        S32::I(_) => Err(unknown()),
    });
    let d: Vec<u32> = registers.collect::<Result<_>>()?;
    let shape = |_| "the number of operands of mma".to_owned();
    Ok(Inst::Mma {
        kind,
        d: d.try_into().map_err(shape)?,
        a: a.try_into().map_err(|_| shape(Vec::new()))?,
        b: b.try_into().map_err(|_| shape(Vec::new()))?,
        c: c.try_into().map_err(|_| shape(Vec::new()))?,
    })
}
