//! Floating-point arithmetic.

use super::convert::convert;
use super::{Decoder, Result};
use crate::isa::{Float1, Float2, Half, NONE, Op, Reg, Round, Ty};
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

pub(super) fn rounding(parts: &[&str]) -> Round {
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
