//! Floating-point arithmetic, comparisons and conversions.

use super::{Decoder, Result};
use crate::isa::{Cmp, Float1, Float2, Half, Int1, Logic, NONE, Op, Reg, Round, Ty};
use crate::ptx::Arg;

/// A type's name as [`Ty`]; `b` types count as unsigned.
pub(super) fn scalar(ty: &str) -> Option<Ty> {
    Some(match ty {
        "u8" | "b8" => Ty::U8,
        "s8" => Ty::S8,
        "u16" | "b16" => Ty::U16,
        "s16" => Ty::S16,
        "u32" | "b32" => Ty::U32,
        "s32" => Ty::S32,
        "u64" | "b64" => Ty::U64,
        "s64" => Ty::S64,
        "f16" => Ty::F16,
        "bf16" => Ty::Bf16,
        "f32" => Ty::F32,
        "f64" => Ty::F64,
        _ => return None,
    })
}

fn rounding(parts: &[&str]) -> Round {
    for part in parts {
        match *part {
            "rz" | "rzi" => return Round::Zero,
            "rm" | "rmi" => return Round::Down,
            "rp" | "rpi" => return Round::Up,
            "rna" => return Round::Away,
            _ => {}
        }
    }
    Round::Nearest
}

/// Whether inputs and results that are subnormal are flushed to zero, and results clamped to [0, 1].
#[derive(Clone, Copy)]
struct Finish {
    ftz: bool,
    sat: bool,
}

impl Decoder<'_> {
    /// Decodes floating-point instructions, comparisons and conversions; false if it is none.
    pub(super) fn decode_float(&mut self, parts: &[&str], args: &[Arg]) -> Result<bool> {
        match parts[0] {
            "setp" => return self.setp(parts, args).map(|()| true),
            "set" => return self.set(parts, args).map(|()| true),
            "cvt" => return self.cvt(parts, args).map(|()| true),
            "slct" => return self.slct(parts, args).map(|()| true),
            "testp" => return Ok(false),
            _ => {}
        }
        match parts[parts.len() - 1] {
            "f32" => self.single(parts, args),
            "f64" => self.double(parts, args),
            "f16" => self.half(parts, args, false, false),
            "f16x2" => self.half(parts, args, false, true),
            "bf16" => self.half(parts, args, true, false),
            "bf16x2" => self.half(parts, args, true, true),
            _ => Ok(false),
        }
    }

    fn single(&mut self, parts: &[&str], args: &[Arg]) -> Result<bool> {
        let has = |part: &str| parts.contains(&part);
        match parts[0] {
            "mov" => return self.mov(32, args),
            "selp" => return self.selp(32, args).map(|()| true),
            _ => {}
        }
        let finish = Finish {
            ftz: has("ftz"),
            sat: has("sat"),
        };
        let round = rounding(parts);
        if let Some(f) = float1(parts[0]) {
            let [d, a] = args else {
                return Err("expected 2 operands".to_owned());
            };
            let flush =
                finish.ftz && !matches!(f, Float1::Ex2 | Float1::Tanh | Float1::Sin | Float1::Cos);
            let a = self.flushed(a, flush)?;
            let d = self.word(d)?;
            if round == Round::Nearest {
                self.push(Op::Float1 { f, d, a });
            } else {
                self.directed1(f, round, d, a)?;
            }
            self.finish_single(d, finish);
            return Ok(true);
        }
        if let Some(f) = float2(parts) {
            let [d, a, b] = args else {
                return Err("expected 3 operands".to_owned());
            };
            let (a, b) = (self.flushed(a, finish.ftz)?, self.flushed(b, finish.ftz)?);
            let d = self.word(d)?;
            if round == Round::Nearest {
                self.push(Op::Float2 { f, d, a, b });
            } else {
                self.push(Op::FloatRound { f, round, d, a, b });
            }
            self.finish_single(d, finish);
            return Ok(true);
        }
        if matches!(parts[0], "fma" | "mad") {
            let [d, a, b, c] = args else {
                return Err("expected 4 operands".to_owned());
            };
            let ftz = finish.ftz;
            let (a, b, c) = (
                self.flushed(a, ftz)?,
                self.flushed(b, ftz)?,
                self.flushed(c, ftz)?,
            );
            let d = self.word(d)?;
            if round == Round::Nearest {
                self.push(Op::Fma { d, a, b, c });
            } else {
                self.push(Op::FmaRound { round, d, a, b, c });
            }
            self.finish_single(d, finish);
            return Ok(true);
        }
        Ok(false)
    }

    /// Reciprocal and square root with directed rounding.
    fn directed1(&mut self, f: Float1, round: Round, d: Reg, a: Reg) -> Result<()> {
        let one = self.word_const(1.0_f32.to_bits());
        match f {
            Float1::Rcp => self.push(Op::FloatRound {
                f: Float2::Div,
                round,
                d,
                a: one,
                b: a,
            }),
            // A square root in `f64` is exact enough for the direction, but for exact squares, which are exact.
            Float1::Sqrt => {
                let (wide, root) = (self.temp_long(), self.temp_long());
                self.push(convert(Ty::F32, Ty::F64, Round::Nearest, wide, a));
                self.push(Op::Double1 {
                    f,
                    d: root,
                    a: wide,
                });
                self.push(convert(Ty::F64, Ty::F32, round, d, root));
            }
            _ => return Err("this rounding is not known".to_owned()),
        }
        Ok(())
    }

    fn flushed(&mut self, arg: &Arg, flush: bool) -> Result<Reg> {
        let a = self.word(arg)?;
        if !flush {
            return Ok(a);
        }
        let d = self.temp();
        self.push(Op::Float1 {
            f: Float1::Ftz,
            d,
            a,
        });
        Ok(d)
    }

    fn finish_single(&mut self, d: Reg, finish: Finish) {
        if finish.ftz {
            self.push(Op::Float1 {
                f: Float1::Ftz,
                d,
                a: d,
            });
        }
        if finish.sat {
            self.push(Op::Float1 {
                f: Float1::Sat,
                d,
                a: d,
            });
        }
    }

    fn double(&mut self, parts: &[&str], args: &[Arg]) -> Result<bool> {
        match parts[0] {
            "mov" => return self.mov(64, args),
            "selp" => return self.selp(64, args).map(|()| true),
            _ => {}
        }
        let round = rounding(parts);
        if let Some(f) = float1(parts[0]) {
            let [d, a] = args else {
                return Err("expected 2 operands".to_owned());
            };
            let (d, a) = (self.long(d)?, self.long(a)?);
            if round != Round::Nearest {
                return Err("this rounding is not known".to_owned());
            }
            self.push(Op::Double1 { f, d, a });
            return Ok(true);
        }
        if let Some(f) = float2(parts) {
            let [d, a, b] = args else {
                return Err("expected 3 operands".to_owned());
            };
            let (d, a, b) = (self.long(d)?, self.long(a)?, self.long(b)?);
            if round == Round::Nearest {
                self.push(Op::Double2 { f, d, a, b });
            } else {
                self.push(Op::DoubleRound { f, round, d, a, b });
            }
            return Ok(true);
        }
        if matches!(parts[0], "fma" | "mad") {
            let [d, a, b, c] = args else {
                return Err("expected 4 operands".to_owned());
            };
            let (d, a, b, c) = (self.long(d)?, self.long(a)?, self.long(b)?, self.long(c)?);
            if round == Round::Nearest {
                self.push(Op::DoubleFma { d, a, b, c });
            } else {
                self.push(Op::DoubleFmaRound { round, d, a, b, c });
            }
            return Ok(true);
        }
        Ok(false)
    }

    fn half(&mut self, parts: &[&str], args: &[Arg], bf16: bool, packed: bool) -> Result<bool> {
        let has = |part: &str| parts.contains(&part);
        let f = match parts[0] {
            "add" => Half::Add,
            "sub" => Half::Sub,
            "mul" => Half::Mul,
            "fma" if has("relu") => Half::FmaRelu,
            "fma" => Half::Fma,
            "min" if has("NaN") => Half::MinNan,
            "max" if has("NaN") => Half::MaxNan,
            "min" => Half::Min,
            "max" => Half::Max,
            "neg" => Half::Neg,
            "abs" => Half::Abs,
            "ex2" => Half::Ex2,
            "tanh" => Half::Tanh,
            "mov" => return self.mov(if packed { 32 } else { 16 }, args),
            "selp" => return self.selp(32, args).map(|()| true),
            _ => return Ok(false),
        };
        let wanted = match f {
            Half::Neg | Half::Abs | Half::Ex2 | Half::Tanh => 2,
            Half::Fma | Half::FmaRelu => 4,
            _ => 3,
        };
        if args.len() != wanted {
            return Err(format!("expected {wanted} operands"));
        }
        let d = self.word(&args[0])?;
        let mut regs = [NONE; 3];
        for (reg, arg) in regs.iter_mut().zip(&args[1..]) {
            *reg = self.word(arg)?;
        }
        let a = regs[0];
        let [b, c] = [regs[1], regs[2]].map(|reg| if reg == NONE { a } else { reg });
        if has("sat") {
            return Err("saturated 16-bit arithmetic is not known".to_owned());
        }
        self.push(Op::Half {
            f,
            bf16,
            packed,
            d,
            a,
            b,
            c,
        });
        Ok(true)
    }

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

    fn setp(&mut self, parts: &[&str], args: &[Arg]) -> Result<()> {
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
    fn set(&mut self, parts: &[&str], args: &[Arg]) -> Result<()> {
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

    fn slct(&mut self, parts: &[&str], args: &[Arg]) -> Result<()> {
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

    fn cvt(&mut self, parts: &[&str], args: &[Arg]) -> Result<()> {
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

fn float1(name: &str) -> Option<Float1> {
    Some(match name {
        "neg" => Float1::Neg,
        "abs" => Float1::Abs,
        "sqrt" => Float1::Sqrt,
        "rcp" => Float1::Rcp,
        "rsqrt" => Float1::Rsqrt,
        "ex2" => Float1::Ex2,
        "lg2" => Float1::Lg2,
        "sin" => Float1::Sin,
        "cos" => Float1::Cos,
        "tanh" => Float1::Tanh,
        _ => return None,
    })
}

fn float2(parts: &[&str]) -> Option<Float2> {
    let nan = parts.contains(&"NaN");
    if parts.contains(&"xorsign") {
        return None;
    }
    Some(match parts[0] {
        "add" => Float2::Add,
        "sub" => Float2::Sub,
        "mul" => Float2::Mul,
        "div" => Float2::Div,
        "min" if nan => Float2::MinNan,
        "max" if nan => Float2::MaxNan,
        "min" => Float2::Min,
        "max" => Float2::Max,
        "copysign" => Float2::CopySign,
        _ => return None,
    })
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
