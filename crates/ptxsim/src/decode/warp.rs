//! Instructions that a whole warp executes together.

use super::{Decoder, Result};
use crate::isa::{Int2, Mma, MmaKind, NONE, Op, Reg, Shfl, Vote};
use crate::ptx::Arg;

impl Decoder<'_> {
    /// Decodes warp-wide instructions; false if it is none.
    pub(super) fn decode_warp(&mut self, parts: &[&str], args: &[Arg]) -> Result<bool> {
        match parts[0] {
            "shfl" => self.shfl(parts, args)?,
            "vote" => self.vote(parts, args)?,
            "match" => self.match_sync(parts, args)?,
            "redux" => self.redux(parts, args)?,
            "activemask" => {
                let d = self.word(&args[0])?;
                self.push(Op::ActiveMask { d });
            }
            "elect" => {
                let Arg::Pair(d, p) = &args[0] else {
                    return Err("expected two results".to_owned());
                };
                let (d, p, mask) = (self.word(d)?, self.pred(p)?, self.word(&args[1])?);
                self.push(Op::ElectSync { d, p, mask });
            }
            "mma" if parts.get(1) == Some(&"sync") => self.mma(parts, args)?,
            "ldmatrix" => {
                let (n, regs) = self.matrix_regs(parts, &args[0])?;
                let (addr, _) = self.addr(&args[1])?;
                self.push(Op::LdMatrix {
                    n,
                    trans: parts.contains(&"trans"),
                    addr,
                    regs,
                });
            }
            "stmatrix" => {
                let (n, regs) = self.matrix_regs(parts, &args[1])?;
                let (addr, _) = self.addr(&args[0])?;
                self.push(Op::StMatrix {
                    n,
                    trans: parts.contains(&"trans"),
                    addr,
                    regs,
                });
            }
            "movmatrix" => {
                let (d, a) = (self.word(&args[0])?, self.word(&args[1])?);
                self.push(Op::MovMatrix { d, a });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn shfl(&mut self, parts: &[&str], args: &[Arg]) -> Result<()> {
        let [d, a, b, c, mask] = args else {
            return Err("expected 5 operands".to_owned());
        };
        let f = match parts[2] {
            "up" => Shfl::Up,
            "down" => Shfl::Down,
            "bfly" => Shfl::Bfly,
            "idx" => Shfl::Idx,
            _ => return Err("unknown mode of shfl".to_owned()),
        };
        let (d, p) = match d {
            Arg::Pair(d, p) => (self.word(d)?, self.pred(p)?),
            d => (self.word(d)?, NONE),
        };
        let (a, b, c, mask) = (
            self.word(a)?,
            self.word(b)?,
            self.word(c)?,
            self.word(mask)?,
        );
        self.push(Op::Shfl {
            f,
            d,
            p,
            a,
            b,
            c,
            mask,
        });
        Ok(())
    }

    fn vote(&mut self, parts: &[&str], args: &[Arg]) -> Result<()> {
        let [d, a, mask] = args else {
            return Err("expected 3 operands".to_owned());
        };
        let f = match parts[2] {
            "ballot" => Vote::Ballot,
            "any" => Vote::Any,
            "all" => Vote::All,
            "uni" => Vote::Uni,
            _ => return Err("unknown mode of vote".to_owned()),
        };
        let d = if f == Vote::Ballot {
            self.word(d)?
        } else {
            self.pred(d)?
        };
        let ((a, negated), mask) = (self.signed_pred(a)?, self.word(mask)?);
        self.push(Op::Vote {
            f,
            d,
            a,
            negated,
            mask,
        });
        Ok(())
    }

    fn match_sync(&mut self, parts: &[&str], args: &[Arg]) -> Result<()> {
        let [d, a, mask] = args else {
            return Err("expected 3 operands".to_owned());
        };
        let wide = parts[parts.len() - 1] == "b64";
        let (d, p) = match d {
            Arg::Pair(d, p) => (self.word(d)?, self.pred(p)?),
            d => (self.word(d)?, NONE),
        };
        let a = if wide { self.long(a)? } else { self.word(a)? };
        let mask = self.word(mask)?;
        self.push(Op::Match {
            all: parts[1] == "all",
            wide,
            d,
            p,
            a,
            mask,
        });
        Ok(())
    }

    fn redux(&mut self, parts: &[&str], args: &[Arg]) -> Result<()> {
        let [d, a, mask] = args else {
            return Err("expected 3 operands".to_owned());
        };
        let signed = parts[parts.len() - 1] == "s32";
        let f = match parts[2] {
            "add" => Int2::Add,
            "min" if signed => Int2::MinS,
            "min" => Int2::MinU,
            "max" if signed => Int2::MaxS,
            "max" => Int2::MaxU,
            "and" => Int2::And,
            "or" => Int2::Or,
            "xor" => Int2::Xor,
            _ => return Err("unknown reduction".to_owned()),
        };
        let (d, a, mask) = (self.word(d)?, self.word(a)?, self.word(mask)?);
        self.push(Op::Redux { f, d, a, mask });
        Ok(())
    }

    fn matrix_regs(&mut self, parts: &[&str], arg: &Arg) -> Result<(u8, [Reg; 4])> {
        if !parts.contains(&"m8n8") || !parts.contains(&"b16") {
            return Err("only matrices of 8 by 8 with 16-bit elements are known".to_owned());
        }
        let values: &[Arg] = match arg {
            Arg::Vec(values) => values,
            value => std::slice::from_ref(value),
        };
        if !matches!(values.len(), 1 | 2 | 4) {
            return Err("expected 1, 2 or 4 registers".to_owned());
        }
        let mut regs = [NONE; 4];
        for (reg, value) in regs.iter_mut().zip(values) {
            *reg = self.word(value)?;
        }
        Ok((u8::try_from(values.len()).unwrap_or(4), regs))
    }

    fn mma(&mut self, parts: &[&str], args: &[Arg]) -> Result<()> {
        let types = &parts[parts.len() - 4..];
        let shape = parts
            .iter()
            .find(|part| part.starts_with("m16n8k") || part.starts_with("m8n8k"));
        let shape = *shape.ok_or("unknown shape of mma")?;
        if !(parts.contains(&"row") && parts.contains(&"col")) {
            return Err("mma takes A by rows and B by columns".to_owned());
        }
        let kind = match (shape, types) {
            ("m16n8k16", ["f32", "bf16", "bf16", "f32"]) => MmaKind::Bf16 { k: 16 },
            ("m16n8k8", ["f32", "bf16", "bf16", "f32"]) => MmaKind::Bf16 { k: 8 },
            ("m16n8k16", ["f32", "f16", "f16", "f32"]) => MmaKind::F16 { k: 16 },
            ("m16n8k8", ["f32", "f16", "f16", "f32"]) => MmaKind::F16 { k: 8 },
            ("m16n8k16", ["f16", "f16", "f16", "f16"]) => MmaKind::F16Acc16 { k: 16 },
            ("m16n8k8", ["f16", "f16", "f16", "f16"]) => MmaKind::F16Acc16 { k: 8 },
            ("m16n8k8", ["f32", "tf32", "tf32", "f32"]) => MmaKind::Tf32 { k: 8 },
            ("m16n8k4", ["f32", "tf32", "tf32", "f32"]) => MmaKind::Tf32 { k: 4 },
            ("m16n8k16" | "m16n8k32", ["s32", a @ ("s8" | "u8"), b @ ("s8" | "u8"), "s32"])
                if !parts.contains(&"satfinite") =>
            {
                let k = if shape == "m16n8k16" { 16 } else { 32 };
                MmaKind::I8 {
                    a_signed: *a == "s8",
                    b_signed: *b == "s8",
                    k,
                }
            }
            _ => return Err("unknown shape or types of mma".to_owned()),
        };
        let mut regs = |arg: &Arg| -> Result<Vec<Reg>> {
            match arg {
                Arg::Vec(values) => values.iter().map(|value| self.word(value)).collect(),
                value => Ok(vec![self.word(value)?]),
            }
        };
        let [d, a, b, c] = args else {
            return Err("expected 4 operands".to_owned());
        };
        let mma = Mma {
            kind,
            d: regs(d)?,
            a: regs(a)?,
            b: regs(b)?,
            c: regs(c)?,
        };
        let n_acc = if matches!(kind, MmaKind::F16Acc16 { .. }) {
            2
        } else {
            4
        };
        let n_a = match kind {
            MmaKind::Bf16 { k } | MmaKind::F16 { k } | MmaKind::F16Acc16 { k } => k / 4,
            MmaKind::Tf32 { k } => k / 2,
            MmaKind::I8 { k, .. } => k / 8,
        };
        let n_a = usize::from(n_a);
        if mma.d.len() != n_acc
            || mma.c.len() != n_acc
            || mma.a.len() != n_a
            || mma.b.len() != n_a / 2
        {
            return Err("wrong number of registers".to_owned());
        }
        self.push(Op::Mma(Box::new(mma)));
        Ok(())
    }
}
