//! The registers that an instruction reads and writes.

use super::{Access, Addr, Int2, Int3, NONE, Op, Reg, Ty, Vote};

/// A register file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum File {
    Pred,
    Word,
    Long,
}

/// Calls `f` for each register: its file, and whether it is written.
type Visit<'f> = dyn FnMut(&mut Reg, File, bool) + 'f;

fn file(wide: bool) -> File {
    if wide { File::Long } else { File::Word }
}

fn file_of(ty: Ty) -> File {
    file(ty.bytes() == 8)
}

/// `regs[0]` is written, the others are read; all are of one file.
fn one_file<const N: usize>(file: File, regs: [&mut Reg; N], f: &mut Visit<'_>) {
    for (i, reg) in regs.into_iter().enumerate() {
        present(reg, file, i == 0, f);
    }
}

fn present(reg: &mut Reg, file: File, written: bool, f: &mut Visit<'_>) {
    if *reg != NONE {
        f(reg, file, written);
    }
}

fn address(addr: &mut Addr, f: &mut Visit<'_>) {
    present(&mut addr.base, file(addr.wide), false, f);
}

fn access(access: &mut Access, written: bool, f: &mut Visit<'_>) {
    address(&mut access.addr, f);
    for reg in &mut access.regs[..usize::from(access.n)] {
        present(reg, file(access.wide), written, f);
    }
}

/// Visits the registers of an instruction, but for the predicate that guards it.
pub(crate) fn visit(op: &mut Op, f: &mut Visit<'_>) {
    if !(arithmetic(op, f) || moves(op, f) || warp_wide(op, f)) {
        memory(op, f);
    }
}

fn arithmetic(op: &mut Op, f: &mut Visit<'_>) -> bool {
    match op {
        Op::Int1 { d, a, .. } | Op::Float1 { d, a, .. } | Op::CvtTf32 { d, a } => {
            one_file(File::Word, [d, a], f);
        }
        Op::Int2 { d, a, b, .. }
        | Op::Float2 { d, a, b, .. }
        | Op::FloatRound { d, a, b, .. }
        | Op::CvtPack { d, a, b, .. } => one_file(File::Word, [d, a, b], f),
        Op::Int3 { d, a, b, c, .. }
        | Op::Fma { d, a, b, c }
        | Op::FmaRound { d, a, b, c, .. }
        | Op::Half { d, a, b, c, .. } => one_file(File::Word, [d, a, b, c], f),
        Op::Bfi { d, a, b, pos, len } => one_file(File::Word, [d, a, b, pos, len], f),
        Op::Long1 { d, a, .. } | Op::Double1 { d, a, .. } => one_file(File::Long, [d, a], f),
        Op::LongCount { d, a, .. } => {
            present(d, File::Word, true, f);
            present(a, File::Long, false, f);
        }
        Op::Long2 {
            f: function,
            d,
            a,
            b,
        } => {
            one_file(File::Long, [d, a], f);
            let shift = matches!(function, Int2::Shl | Int2::ShrU | Int2::ShrS);
            present(b, file(!shift), false, f);
        }
        Op::Double2 { d, a, b, .. } | Op::DoubleRound { d, a, b, .. } => {
            one_file(File::Long, [d, a, b], f);
        }
        Op::Long3 {
            f: function,
            d,
            a,
            b,
            c,
        } => {
            one_file(File::Long, [d, a], f);
            let field = matches!(function, Int3::BfeU | Int3::BfeS);
            present(b, file(!field), false, f);
            present(c, file(!field), false, f);
        }
        Op::DoubleFma { d, a, b, c } | Op::DoubleFmaRound { d, a, b, c, .. } => {
            one_file(File::Long, [d, a, b, c], f);
        }
        Op::LongBfi { d, a, b, pos, len } => {
            one_file(File::Long, [d, a, b], f);
            present(pos, File::Word, false, f);
            present(len, File::Word, false, f);
        }
        Op::MadWide { d, a, b, c, .. } => {
            one_file(File::Long, [d], f);
            present(a, File::Word, false, f);
            present(b, File::Word, false, f);
            present(c, File::Long, false, f);
        }
        Op::Carry { wide, d, a, b, .. } => one_file(file(*wide), [d, a, b], f),
        Op::Cvt { from, to, d, a, .. } => {
            present(d, file_of(*to), true, f);
            present(a, file_of(*from), false, f);
        }
        Op::Setp {
            ty,
            p,
            q,
            a,
            b,
            with,
            ..
        } => {
            present(p, File::Pred, true, f);
            present(q, File::Pred, true, f);
            present(a, file_of(*ty), false, f);
            present(b, file_of(*ty), false, f);
            if let Some((_, reg, _)) = with {
                present(reg, File::Pred, false, f);
            }
        }
        _ => return false,
    }
    true
}

fn moves(op: &mut Op, f: &mut Visit<'_>) -> bool {
    match op {
        Op::Sel { p, d, a, b, .. } => {
            present(p, File::Pred, false, f);
            one_file(File::Word, [d, a, b], f);
        }
        Op::LongSel { p, d, a, b, .. } => {
            present(p, File::Pred, false, f);
            one_file(File::Long, [d, a, b], f);
        }
        Op::Pred { d, a, b, .. } => one_file(File::Pred, [d, a, b], f),
        Op::Pack32 { d, lo, hi } => one_file(File::Word, [d, lo, hi], f),
        Op::Unpack32 { lo, hi, a } => {
            present(lo, File::Word, true, f);
            present(hi, File::Word, true, f);
            present(a, File::Word, false, f);
        }
        Op::Pack64 { d, lo, hi } => {
            present(d, File::Long, true, f);
            present(lo, File::Word, false, f);
            present(hi, File::Word, false, f);
        }
        Op::Unpack64 { lo, hi, a } => {
            present(lo, File::Word, true, f);
            present(hi, File::Word, true, f);
            present(a, File::Long, false, f);
        }
        Op::Clock { d, wide } => present(d, file(*wide), true, f),
        Op::Cvta { d, a, .. } => one_file(File::Long, [d, a], f),
        Op::IsSpace { p, a, .. } => {
            present(p, File::Pred, true, f);
            present(a, File::Long, false, f);
        }
        _ => return false,
    }
    true
}

fn warp_wide(op: &mut Op, f: &mut Visit<'_>) -> bool {
    match op {
        Op::Shfl {
            d,
            p,
            a,
            b,
            c,
            mask,
            ..
        } => {
            one_file(File::Word, [d, a, b, c, mask], f);
            present(p, File::Pred, true, f);
        }
        Op::Vote {
            f: function,
            d,
            a,
            mask,
            ..
        } => {
            let result = if *function == Vote::Ballot {
                File::Word
            } else {
                File::Pred
            };
            present(d, result, true, f);
            present(a, File::Pred, false, f);
            present(mask, File::Word, false, f);
        }
        Op::Match {
            wide,
            d,
            p,
            a,
            mask,
            ..
        } => {
            present(d, File::Word, true, f);
            present(p, File::Pred, true, f);
            present(a, file(*wide), false, f);
            present(mask, File::Word, false, f);
        }
        Op::Redux { d, a, mask, .. } => one_file(File::Word, [d, a, mask], f),
        Op::ActiveMask { d } => present(d, File::Word, true, f),
        Op::ElectSync { d, p, mask } => {
            one_file(File::Word, [d, mask], f);
            present(p, File::Pred, true, f);
        }
        Op::SyncWarp { mask } => present(mask, File::Word, false, f),
        Op::Bar { id, count, .. } => {
            present(id, File::Word, false, f);
            present(count, File::Word, false, f);
        }
        Op::BarRed {
            f: function,
            id,
            d,
            a,
            ..
        } => {
            present(id, File::Word, false, f);
            present(a, File::Pred, false, f);
            present(
                d,
                if function.is_none() {
                    File::Word
                } else {
                    File::Pred
                },
                true,
                f,
            );
        }
        Op::Brx { index, .. } => present(index, File::Word, false, f),
        Op::Mma(mma) => {
            for reg in mma.a.iter_mut().chain(&mut mma.b).chain(&mut mma.c) {
                present(reg, File::Word, false, f);
            }
            for reg in &mut mma.d {
                present(reg, File::Word, true, f);
            }
        }
        Op::MovMatrix { d, a } => one_file(File::Word, [d, a], f),
        _ => return false,
    }
    true
}

fn memory(op: &mut Op, f: &mut Visit<'_>) {
    match op {
        Op::Ld(load) => access(load, true, f),
        Op::St(store) => access(store, false, f),
        Op::Atom {
            ty, addr, d, b, c, ..
        } => {
            address(addr, f);
            one_file(file_of(*ty), [d, b, c], f);
        }
        Op::LdMatrix { addr, regs, .. } => {
            address(addr, f);
            for reg in regs {
                present(reg, File::Word, true, f);
            }
        }
        Op::StMatrix { addr, regs, .. } => {
            address(addr, f);
            for reg in regs {
                present(reg, File::Word, false, f);
            }
        }
        Op::CpAsync {
            dst,
            src,
            src_bytes,
            ignore,
            ..
        } => {
            address(dst, f);
            address(src, f);
            present(src_bytes, File::Word, false, f);
            present(ignore, File::Pred, false, f);
        }
        Op::MbarInit { addr, count } => {
            address(addr, f);
            present(count, File::Word, false, f);
        }
        Op::MbarInval { addr } | Op::CpAsyncMbar { addr, .. } => address(addr, f),
        Op::MbarArrive { addr, d, count, tx } => {
            address(addr, f);
            present(d, File::Long, true, f);
            present(count, File::Word, false, f);
            present(tx, File::Word, false, f);
        }
        Op::MbarExpectTx { addr, tx } => {
            address(addr, f);
            present(tx, File::Word, false, f);
        }
        Op::MbarTest {
            addr,
            p,
            phase,
            token,
        } => {
            address(addr, f);
            present(p, File::Pred, true, f);
            present(phase, file(*token), false, f);
        }
        _ => {}
    }
}
