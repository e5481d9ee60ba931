//! Loads, stores, atomics, asynchronous copies and matrices.

use crate::alu;
use crate::block::Block;
use crate::inst::{Address, Atomic, Base, F2, Inst, Place, Space};
use crate::memory::{Fault, GLOBAL, LOCAL, SHARED, WINDOW, misaligned, outside};
use crate::stats::sectors;
use crate::tensor::{fragment, mma};
use crate::warp::{Flight, LANES, Lanes64, Warp};

/// First address of a space in the generic address space.
pub(super) fn window(space: Space) -> u64 {
    match space {
        Space::Shared => SHARED,
        Space::Local => LOCAL,
        Space::Global | Space::Generic => 0,
    }
}

#[inline(always)]
fn addresses(warp: &Warp, address: Address) -> Lanes64 {
    let offset = address.offset as u64;
    let mut out = match address.base {
        Base::None => [0; LANES],
        Base::R64(at) => warp.r64[at as usize],
        Base::R32(at) => warp.r32[at as usize].map(u64::from),
    };
    for address in &mut out {
        *address = address.wrapping_add(offset);
    }
    out
}

/// Where a generic address is, and its place there.
#[inline(always)]
fn resolve(space: Space, address: u64) -> (Space, u64) {
    match space {
        Space::Generic if address >= GLOBAL => (Space::Global, address),
        Space::Generic if (SHARED..SHARED + WINDOW).contains(&address) => {
            (Space::Shared, address - SHARED)
        }
        Space::Generic if (LOCAL..LOCAL + WINDOW).contains(&address) => {
            (Space::Local, address - LOCAL)
        }
        Space::Generic => (Space::Global, address),
        space => (space, address),
    }
}

fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    (0..LANES).filter(move |lane| mask >> lane & 1 == 1)
}

#[inline(always)]
pub(super) fn execute(
    block: &mut Block<'_>,
    warp: &mut Warp,
    inst: &Inst,
    active: u32,
) -> Result<(), Fault> {
    match *inst {
        Inst::LoadParameter {
            address,
            bytes,
            signed,
            ref to,
        } => load_parameter(block, warp, (bytes, signed, to), address, active),
        Inst::Load {
            space,
            bytes,
            signed,
            ref to,
            address,
        } => load(block, warp, (space, bytes, signed, to), address, active),
        Inst::Store {
            space,
            bytes,
            ref from,
            address,
        } => store(block, warp, (space, bytes, from), address, active),
        Inst::Atomic { .. } => atomic(block, warp, inst, active),
        Inst::CpAsync {
            bytes,
            shared,
            global,
            source_bytes,
        } => {
            let (to, from) = (addresses(warp, shared), addresses(warp, global));
            let sizes = source_bytes.map_or([bytes; LANES], |s| warp.get(s));
            let who = block.accessor(warp);
            if block.counts {
                count_shared(block, active, &to, bytes);
                count_global(block, active, &from, bytes);
            }
            for lane in lanes(active) {
                if !from[lane].is_multiple_of(u64::from(bytes)) {
                    return Err(misaligned("global", from[lane], bytes));
                }
                let (_, to) = resolve(Space::Generic, to[lane]);
                block.shared.begin_copy(to, bytes, who)?;
                let flight = Flight {
                    shared: to,
                    global: from[lane],
                    bytes,
                    source_bytes: sizes[lane].min(bytes),
                };
                // The hardware reads the source at some time before the wait: the latest is here.
                warp.open.push(flight);
                block.stats.cp_async_bytes += u64::from(flight.source_bytes);
            }
            Ok(())
        }
        Inst::CpAsyncCommit => {
            let group = std::mem::take(&mut warp.open);
            warp.closed.push_back(group);
            Ok(())
        }
        Inst::CpAsyncWait(n) => block.land(warp, n as usize),
        Inst::LdMatrix {
            n,
            transposed,
            d,
            address,
        } => ldmatrix(block, warp, (n, transposed, d), address, active),
        Inst::Mma { kind, d, a, b, c } => {
            let (a, b) = (a.map(|s| warp.get(s)), b.map(|s| warp.get(s)));
            let out = mma(kind, &a, &b, &c.map(|s| warp.get(s)));
            for (d, out) in d.iter().zip(&out) {
                warp.set(*d, out, active);
            }
            block.stats.mma += 1;
            Ok(())
        }
        _ => Err(Fault::Launch(
            "an instruction that no part executes".to_owned(),
        )),
    }
}

fn load_parameter(
    block: &Block<'_>,
    warp: &mut Warp,
    (bytes, signed, to): (u32, bool, &[Option<Place>]),
    address: Address,
    active: u32,
) -> Result<(), Fault> {
    let at = addresses(warp, address);
    let parameters = &block.grid.parameters;
    for (i, place) in to.iter().enumerate() {
        let mut values = [0; LANES];
        for lane in lanes(active) {
            let start = at[lane] as usize + i * bytes as usize;
            let from = parameters.get(start..start.wrapping_add(bytes as usize));
            let text = "a parameter outside of those of the kernel";
            let from = from.ok_or_else(|| Fault::Launch(text.to_owned()))?;
            values[lane] = extended(from, signed);
        }
        if let Some(place) = *place {
            warp.set_place(place, &values, active);
        }
    }
    Ok(())
}

#[inline(always)]
fn ldmatrix(
    block: &mut Block<'_>,
    warp: &mut Warp,
    (n, transposed, d): (usize, bool, [u32; 4]),
    address: Address,
    active: u32,
) -> Result<(), Fault> {
    let at = addresses(warp, address);
    let who = block.accessor(warp);
    block.stats.ldmatrix += 1;
    for (i, &d) in d.iter().enumerate().take(n) {
        let mut rows = [[0; 16]; 8];
        for (row, bytes) in rows.iter_mut().enumerate() {
            let (_, at) = resolve(Space::Generic, shared_address(at[8 * i + row]));
            bytes.copy_from_slice(block.shared.read(at, 16, who)?);
        }
        warp.set(d, &fragment(&rows, transposed), active);
    }
    if block.counts {
        for i in 0..n {
            let of: Vec<(usize, u64)> = (0..8).map(|row| (row, at[8 * i + row])).collect();
            block.stats.count_shared(&of, 16);
        }
    }
    Ok(())
}

/// An address of the shared space as a generic one.
fn shared_address(address: u64) -> u64 {
    if address < SHARED {
        SHARED + address
    } else {
        address
    }
}

fn extended(bytes: &[u8], signed: bool) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    let value = u64::from_le_bytes(word);
    let unused = 64 - 8 * bytes.len() as u32;
    match signed && unused > 0 {
        true => (((value << unused) as i64) >> unused) as u64,
        false => value,
    }
}

fn count_shared(block: &mut Block<'_>, active: u32, at: &Lanes64, bytes: u32) {
    let of: Vec<(usize, u64)> = lanes(active)
        .map(|lane| (lane, at[lane] % SHARED))
        .collect();
    block.stats.count_shared(&of, bytes);
}

fn count_global(block: &mut Block<'_>, active: u32, at: &Lanes64, bytes: u32) {
    let of: Vec<(usize, u64)> = lanes(active).map(|lane| (lane, at[lane])).collect();
    block.stats.global_requests += 1;
    block.stats.global_sectors += sectors(&of, bytes);
}

fn count(block: &mut Block<'_>, space: Space, active: u32, at: &Lanes64, bytes: u32) {
    let first = at[active.trailing_zeros() as usize];
    match resolve(space, first).0 {
        Space::Shared => count_shared(block, active, at, bytes),
        Space::Global => count_global(block, active, at, bytes),
        _ => {}
    }
}

#[inline(always)]
fn load(
    block: &mut Block<'_>,
    warp: &mut Warp,
    (space, bytes, signed, to): (Space, u32, bool, &[Option<Place>]),
    address: Address,
    active: u32,
) -> Result<(), Fault> {
    let at = addresses(warp, address);
    let all = bytes * to.len() as u32;
    if block.counts {
        count(block, space, active, &at, all);
    }
    let mut values = [[0_u64; LANES]; 4];
    let who = block.accessor(warp);
    for lane in lanes(active) {
        let (space, at) = resolve(space, at[lane]);
        let mut word = [0; 16];
        let word = &mut word[..all as usize];
        match space {
            Space::Shared => word.copy_from_slice(block.shared.read(at, all, who)?),
            Space::Local => word.copy_from_slice(local(block, warp, lane, at, all)?),
            _ => {
                let from = block.global.at(at, all, false)?;
                // SAFETY: `at` has checked so many bytes.
                unsafe { from.copy_to_nonoverlapping(word.as_mut_ptr(), all as usize) };
            }
        }
        for (values, part) in values.iter_mut().zip(word.chunks_exact(bytes as usize)) {
            values[lane] = extended(part, signed);
        }
    }
    for (place, values) in to.iter().zip(&values) {
        if let Some(place) = *place {
            warp.set_place(place, values, active);
        }
    }
    Ok(())
}

#[inline(always)]
fn store(
    block: &mut Block<'_>,
    warp: &mut Warp,
    (space, bytes, from): (Space, u32, &[Place]),
    address: Address,
    active: u32,
) -> Result<(), Fault> {
    let at = addresses(warp, address);
    let all = bytes * from.len() as u32;
    if block.counts {
        count(block, space, active, &at, all);
    }
    let mut values = [[0_u64; LANES]; 4];
    for (values, place) in values.iter_mut().zip(from) {
        *values = warp.place(*place);
    }
    let who = block.accessor(warp);
    for lane in lanes(active) {
        let mut word = [0; 16];
        let word = &mut word[..all as usize];
        for (part, values) in word.chunks_exact_mut(bytes as usize).zip(&values) {
            part.copy_from_slice(&values[lane].to_le_bytes()[..bytes as usize]);
        }
        let (space, at) = resolve(space, at[lane]);
        match space {
            Space::Shared => block.shared.write(at, all, who)?.copy_from_slice(word),
            Space::Local => {
                let size = block.kernel.local_bytes;
                check_local(size, at, all)?;
                let start = lane * size as usize + at as usize;
                warp.local[start..start + all as usize].copy_from_slice(word);
            }
            _ => {
                let to = block.global.at(at, all, true)?;
                // SAFETY: `at` has checked so many bytes.
                unsafe { to.copy_from_nonoverlapping(word.as_ptr(), all as usize) };
            }
        }
    }
    Ok(())
}

fn check_local(size: u64, at: u64, n: u32) -> Result<(), Fault> {
    match at < size && size - at >= u64::from(n) {
        true => Ok(()),
        false => Err(outside(LOCAL + at, n)),
    }
}

fn local<'w>(
    block: &Block<'_>,
    warp: &'w Warp,
    lane: usize,
    at: u64,
    n: u32,
) -> Result<&'w [u8], Fault> {
    let size = block.kernel.local_bytes;
    check_local(size, at, n)?;
    let start = lane * size as usize + at as usize;
    Ok(&warp.local[start..start + n as usize])
}

/// The new value of an atomic operation on `old`.
fn combine(op: Atomic, wide: bool, old: u64, b: u64, c: u64) -> u64 {
    let narrow = |f: F2| u64::from(alu::two(f, &[old as u32; LANES], &[b as u32; LANES])[0]);
    match op {
        Atomic::AddF => narrow(F2::AddF),
        Atomic::Add => old.wrapping_add(b),
        Atomic::MinU => old.min(b),
        Atomic::MaxU => old.max(b),
        Atomic::MinS if wide => (old as i64).min(b as i64) as u64,
        Atomic::MaxS if wide => (old as i64).max(b as i64) as u64,
        Atomic::MinS => narrow(F2::MinS),
        Atomic::MaxS => narrow(F2::MaxS),
        Atomic::And => old & b,
        Atomic::Or => old | b,
        Atomic::Xor => old ^ b,
        Atomic::Exchange => b,
        Atomic::CompareExchange if old == b => c,
        Atomic::CompareExchange => old,
    }
}

fn atomic(block: &mut Block<'_>, warp: &mut Warp, inst: &Inst, active: u32) -> Result<(), Fault> {
    let Inst::Atomic {
        op,
        space,
        wide,
        d,
        address,
        b,
        c,
    } = *inst
    else {
        return Ok(());
    };
    let at = addresses(warp, address);
    let mask = if wide { u64::MAX } else { u64::from(u32::MAX) };
    let b = warp.place(b).map(|x| x & mask);
    let c = c.map_or([0; LANES], |c| warp.place(c)).map(|x| x & mask);
    let bytes = if wide { 8 } else { 4 };
    let who = block.accessor(warp);
    let mut out = [0; LANES];
    for lane in lanes(active) {
        let (space, at) = resolve(space, at[lane]);
        let new = |old: u64| combine(op, wide, old, b[lane], c[lane]) & mask;
        out[lane] = match space {
            Space::Shared => {
                // Atomics of several warps do not race.
                let bytes = block.shared.atomic(at, bytes, who)?;
                let old = extended(bytes, false);
                bytes.copy_from_slice(&new(old).to_le_bytes()[..bytes.len()]);
                old
            }
            _ => block.global.update(at, bytes, new)?,
        };
    }
    if let Some(d) = d {
        warp.set_place(d, &out, active);
    }
    Ok(())
}
