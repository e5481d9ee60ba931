//! Comparisons and conversions.

use super::float::{rounding, scalar};
use super::{Decoder, Result};
use crate::isa::{Cmp, Float1, Int1, Logic, NONE, Op, Reg, Round, Ty};
use crate::ptx::Arg;

impl Decoder<'_> {
    /// An operand of a comparison, and the type that it is compared in.
    fn comparand(&mut self, arg: &Arg, ty: Ty) -> Result<(Reg, Ty)> {
        Ok(match ty {
            Ty::U64 | Ty::S64 | Ty::F64 => (self.long(arg)?, ty),
            Ty::U32 | Ty::S32 | Ty::F32 => (self.word(arg)?, ty),
            Ty::F16 | Ty::Bf16 => {
                let (a, d) = (self.word(arg)?, self.temp());
                self.push(convert(ty, Ty::F32, Round::Nearest, d, a));
                (d, Ty::F32)
            }
            _ => {
                let (a, d) = (self.word(arg)?, self.temp());
                let signed = ty.is_signed();
                self.push(Op::Int1 {
                    f: if signed { Int1::Sext16 } else { Int1::Zext16 },
                    d,
                    a,
                });
                (d, if signed { Ty::S32 } else { Ty::U32 })
            }
        })
    }

    pub(super) fn setp(&mut self, parts: &[&str], args: &[Arg]) -> Result<()> {
        let last = parts[parts.len() - 1];
        let (d, q) = match &args[0] {
            Arg::Pair(p, q) => (p.as_ref(), Some(q.as_ref())),
            p => (p, None),
        };
        if matches!(last, "f16x2" | "bf16x2") {
            return self.setp_packed(parts, d, q, &args[1..]);
        }
        let ty = scalar(last).ok_or("unknown type of a comparison")?;
        let cmp = compare(parts[1], ty).ok_or("unknown comparison")?;
        let p = self.pred(d)?;
        let q = q.map_or(Ok(NONE), |q| self.pred(q))?;
        let (a, compared) = self.comparand(&args[1], ty)?;
        let (b, _) = self.comparand(&args[2], ty)?;
        let with = match (parts[2], args.get(3)) {
            (name @ ("and" | "or" | "xor"), Some(arg)) => {
                let (reg, negated) = self.signed_pred(arg)?;
                Some((logic(name), reg, negated))
            }
            _ => None,
        };
        self.push(Op::Setp {
            cmp,
            ty: compared,
            p,
            q,
            a,
            b,
            with,
        });
        Ok(())
    }

    /// Compares two packed numbers: `p` for the lower one, `q` for the upper one.
    fn setp_packed(
        &mut self,
        parts: &[&str],
        d: &Arg,
        q: Option<&Arg>,
        args: &[Arg],
    ) -> Result<()> {
        let ty = if parts[parts.len() - 1] == "f16x2" {
            Ty::F16
        } else {
            Ty::Bf16
        };
        let cmp = compare(parts[1], ty).ok_or("unknown comparison")?;
        let mut halves = [[NONE; 2]; 2];
        for (side, arg) in args.iter().take(2).enumerate() {
            let (lo, hi, a) = (self.temp(), self.temp(), self.word(arg)?);
            self.push(Op::Unpack32 { lo, hi, a });
            for (half, a) in [lo, hi].into_iter().enumerate() {
                self.push(convert(ty, Ty::F32, Round::Nearest, a, a));
                halves[half][side] = a;
            }
        }
        let p = self.pred(d)?;
        let q = q.map_or(Ok(NONE), |q| self.pred(q))?;
        for (reg, [a, b]) in [p, q].into_iter().zip(halves) {
            if reg != NONE {
                self.push(Op::Setp {
                    cmp,
                    ty: Ty::F32,
                    p: reg,
                    q: NONE,
                    a,
                    b,
                    with: None,
                });
            }
        }
        Ok(())
    }

    /// `set`: a comparison whose result is a number: all ones for integers, 1.0 for floats.
    pub(super) fn set(&mut self, parts: &[&str], args: &[Arg]) -> Result<()> {
        let source = parts[parts.len() - 1];
        let target = parts[parts.len() - 2];
        if matches!(source, "f16x2" | "bf16x2") {
            let (p, q) = (self.temp_pred(), self.temp_pred());
            return self.set_packed(parts, target, args, [p, q]);
        }
        let ty = scalar(source).ok_or("unknown type of a comparison")?;
        let cmp = compare(parts[1], ty).ok_or("unknown comparison")?;
        let (a, compared) = self.comparand(&args[1], ty)?;
        let (b, _) = self.comparand(&args[2], ty)?;
        let p = self.temp_pred();
        self.push(Op::Setp {
            cmp,
            ty: compared,
            p,
            q: NONE,
            a,
            b,
            with: None,
        });
        let one = true_value(target).ok_or("unknown type of `set`")?;
        let (a, b, d) = (
            self.word_const(one),
            self.word_const(0),
            self.word(&args[0])?,
        );
        self.push(Op::Sel {
            p,
            negated: false,
            d,
            a,
            b,
        });
        Ok(())
    }

    fn set_packed(
        &mut self,
        parts: &[&str],
        target: &str,
        args: &[Arg],
        [p, q]: [Reg; 2],
    ) -> Result<()> {
        let ty = if parts[parts.len() - 1] == "f16x2" {
            Ty::F16
        } else {
            Ty::Bf16
        };
        let cmp = compare(parts[1], ty).ok_or("unknown comparison")?;
        let one = match target {
            "f16x2" => 0x3c00,
            "bf16x2" => 0x3f80,
            _ => 0xffff,
        };
        let mut halves = [[NONE; 2]; 2];
        for (side, arg) in args[1..].iter().take(2).enumerate() {
            let (lo, hi, a) = (self.temp(), self.temp(), self.word(arg)?);
            self.push(Op::Unpack32 { lo, hi, a });
            for (half, a) in [lo, hi].into_iter().enumerate() {
                self.push(convert(ty, Ty::F32, Round::Nearest, a, a));
                halves[half][side] = a;
            }
        }
        let (yes, no) = (self.word_const(one), self.word_const(0));
        let mut results = [NONE; 2];
        for (half, p) in [p, q].into_iter().enumerate() {
            let [a, b] = halves[half];
            self.push(Op::Setp {
                cmp,
                ty: Ty::F32,
                p,
                q: NONE,
                a,
                b,
                with: None,
            });
            results[half] = self.temp();
            self.push(Op::Sel {
                p,
                negated: false,
                d: results[half],
                a: yes,
                b: no,
            });
        }
        let d = self.word(&args[0])?;
        self.push(Op::Pack32 {
            d,
            lo: results[0],
            hi: results[1],
        });
        Ok(())
    }

    pub(super) fn slct(&mut self, parts: &[&str], args: &[Arg]) -> Result<()> {
        let ty = scalar(parts[parts.len() - 2]).ok_or("unknown type of slct")?;
        let compared = scalar(parts[parts.len() - 1]).ok_or("unknown type of slct")?;
        let p = self.temp_pred();
        let (c, zero) = (self.word(&args[3])?, self.word_const(0));
        self.push(Op::Setp {
            cmp: Cmp::Ge,
            ty: compared,
            p,
            q: NONE,
            a: c,
            b: zero,
            with: None,
        });
        if ty.bytes() == 8 {
            let (d, a, b) = (
                self.long(&args[0])?,
                self.long(&args[1])?,
                self.long(&args[2])?,
            );
            self.push(Op::LongSel {
                p,
                negated: false,
                d,
                a,
                b,
            });
        } else {
            let (d, a, b) = (
                self.word(&args[0])?,
                self.word(&args[1])?,
                self.word(&args[2])?,
            );
            self.push(Op::Sel {
                p,
                negated: false,
                d,
                a,
                b,
            });
        }
        Ok(())
    }

    pub(super) fn cvt(&mut self, parts: &[&str], args: &[Arg]) -> Result<()> {
        let (to, from) = (parts[parts.len() - 2], parts[parts.len() - 1]);
        let has = |part: &str| parts.contains(&part);
        let round = rounding(parts);
        let relu = has("relu");
        if parts[1] == "pack" {
            return Err("cvt.pack is not known".to_owned());
        }
        if matches!(to, "bf16x2" | "f16x2") && from == "f32" {
            let (d, a, b) = (
                self.word(&args[0])?,
                self.word(&args[1])?,
                self.word(&args[2])?,
            );
            self.push(Op::CvtPack {
                bf16: to == "bf16x2",
                round,
                relu,
                d,
                a,
                b,
            });
            return Ok(());
        }
        if to == "tf32" {
            let (d, a) = (self.word(&args[0])?, self.word(&args[1])?);
            self.push(Op::CvtTf32 { d, a });
            return Ok(());
        }
        let to_ty = scalar(to).ok_or_else(|| format!("conversion to {to} is not known"))?;
        let from_ty = scalar(from).ok_or_else(|| format!("conversion from {from} is not known"))?;
        let a_long =
            self.is_long(&args[1]) || (from_ty.bytes() == 8 && !matches!(args[1], Arg::Name(_)));
        let a = if a_long {
            self.long(&args[1])?
        } else {
            self.word(&args[1])?
        };
        let d_long = self.is_long(&args[0]);
        let d = if d_long {
            self.long(&args[0])?
        } else {
            self.word(&args[0])?
        };
        // Registers may be wider than the type that is converted.
        let a = if a_long && from_ty.bytes() < 8 {
            let low = self.temp();
            self.push(convert(Ty::U64, Ty::U32, Round::Nearest, low, a));
            low
        } else {
            a
        };
        let a = if has("ftz") && from_ty == Ty::F32 {
            let flushed = self.temp();
            self.push(Op::Float1 {
                f: Float1::Ftz,
                d: flushed,
                a,
            });
            flushed
        } else {
            a
        };
        let target = if d_long && to_ty.bytes() < 8 {
            self.temp()
        } else {
            d
        };
        let integer = ["rni", "rzi", "rmi", "rpi"]
            .iter()
            .any(|r| parts.contains(r));
        self.push(Op::Cvt {
            from: from_ty,
            to: to_ty,
            round,
            integer,
            sat: has("sat"),
            relu,
            d: target,
            a,
        });
        if target != d {
            let from = if to_ty.is_signed() { Ty::S32 } else { Ty::U32 };
            self.push(convert(from, Ty::S64, Round::Nearest, d, target));
        }
        if has("ftz") && to_ty == Ty::F32 && from_ty != Ty::F32 {
            self.push(Op::Float1 {
                f: Float1::Ftz,
                d,
                a: d,
            });
        }
        Ok(())
    }
}

pub(super) fn convert(from: Ty, to: Ty, round: Round, d: Reg, a: Reg) -> Op {
    Op::Cvt {
        from,
        to,
        round,
        integer: false,
        sat: false,
        relu: false,
        d,
        a,
    }
}

fn logic(name: &str) -> Logic {
    match name {
        "and" => Logic::And,
        "or" => Logic::Or,
        _ => Logic::Xor,
    }
}

fn compare(name: &str, ty: Ty) -> Option<Cmp> {
    Some(match name {
        "eq" => Cmp::Eq,
        // An ordered `ne` of floats is false for NaN; for integers there is only one.
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
        "num" if ty.is_float() => Cmp::Num,
        "nan" if ty.is_float() => Cmp::Nan,
        _ => return None,
    })
}

fn true_value(ty: &str) -> Option<u32> {
    Some(match ty {
        "u32" | "s32" | "b32" => u32::MAX,
        "f32" => 1.0_f32.to_bits(),
        "f16" => 0x3c00,
        "bf16" => 0x3f80,
        "u16" | "s16" => 0xffff,
        _ => return None,
    })
}
