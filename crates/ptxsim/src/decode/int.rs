//! Integer arithmetic, logic, moves and conversions between registers.

use super::{Decoder, Result};
use crate::isa::{Int1, Int2, Int3, NONE, Op, Reg};
use crate::ptx::Arg;

/// Width and sign of an integer type.
#[derive(Clone, Copy)]
struct IntTy {
    bits: u32,
    signed: bool,
}

fn int_ty(ty: &str) -> Option<IntTy> {
    let (kind, bits) = ty.split_at(ty.len().min(1));
    let bits = bits
        .parse()
        .ok()
        .filter(|bits| matches!(bits, 8 | 16 | 32 | 64))?;
    match kind {
        "u" | "b" => Some(IntTy {
            bits,
            signed: false,
        }),
        "s" => Some(IntTy { bits, signed: true }),
        _ => None,
    }
}

impl Decoder<'_> {
    /// Decodes integer instructions; false if it is none.
    pub(super) fn decode_int(&mut self, parts: &[&str], args: &[Arg]) -> Result<bool> {
        let last = parts[parts.len() - 1];
        let Some(ty) = int_ty(last) else {
            if last == "pred" {
                return self.decode_pred(parts, args);
            }
            return Ok(false);
        };
        let has = |part: &str| parts.contains(&part);
        match parts[0] {
            "add" | "sub" if has("cc") => self.carry(parts[0] == "sub", false, true, ty, args)?,
            "addc" | "subc" => self.carry(parts[0] == "subc", true, has("cc"), ty, args)?,
            "add" if !has("sat") => self.int2(Int2::Add, ty, args)?,
            "sub" if !has("sat") => self.int2(Int2::Sub, ty, args)?,
            "mul" if has("wide") => self.wide(ty, args, false)?,
            "mul" if has("lo") => self.int2(Int2::Mul, ty, args)?,
            "mul" if has("hi") => {
                self.int2(
                    if ty.signed {
                        Int2::MulHiS
                    } else {
                        Int2::MulHiU
                    },
                    ty,
                    args,
                )?;
            }
            "mul24" => self.mul24(ty, args, false)?,
            "mad24" => self.mul24(ty, args, true)?,
            "mad" | "madc" if has("cc") || parts[0] == "madc" => self.mad_carry(parts, ty, args)?,
            "mad" if has("wide") => self.wide(ty, args, true)?,
            "mad" if has("lo") => self.int3(Int3::Mad, ty, args)?,
            "mad" if has("hi") => {
                self.int3(
                    if ty.signed {
                        Int3::MadHiS
                    } else {
                        Int3::MadHiU
                    },
                    ty,
                    args,
                )?;
            }
            "div" => self.int2(if ty.signed { Int2::DivS } else { Int2::DivU }, ty, args)?,
            "rem" => self.int2(if ty.signed { Int2::RemS } else { Int2::RemU }, ty, args)?,
            "min" if parts.len() == 2 => {
                self.int2(if ty.signed { Int2::MinS } else { Int2::MinU }, ty, args)?;
            }
            "max" if parts.len() == 2 => {
                self.int2(if ty.signed { Int2::MaxS } else { Int2::MaxU }, ty, args)?;
            }
            "and" => self.int2(Int2::And, ty, args)?,
            "or" => self.int2(Int2::Or, ty, args)?,
            "xor" => self.int2(Int2::Xor, ty, args)?,
            "shl" => self.int2(Int2::Shl, ty, args)?,
            "shr" => self.int2(if ty.signed { Int2::ShrS } else { Int2::ShrU }, ty, args)?,
            "not" => self.int1(Int1::Not, ty, args)?,
            "neg" => self.int1(Int1::Neg, ty, args)?,
            "abs" => self.int1(Int1::Abs, ty, args)?,
            "cnot" => self.int1(Int1::CNot, ty, args)?,
            "brev" => self.int1(Int1::Brev, ty, args)?,
            "clz" => self.count(Int1::Clz, ty, args)?,
            "popc" => self.count(Int1::Popc, ty, args)?,
            "bfind" => {
                let f = match (has("shiftamt"), ty.signed) {
                    (false, false) => Int1::BfindU,
                    (false, true) => Int1::BfindS,
                    (true, false) => Int1::BfindShiftU,
                    (true, true) => Int1::BfindShiftS,
                };
                self.count(f, ty, args)?;
            }
            "sad" => self.int3(if ty.signed { Int3::SadS } else { Int3::SadU }, ty, args)?,
            "bfe" => self.bfe(ty, args)?,
            "bfi" => self.bfi(ty, args)?,
            "bmsk" => return Ok(false),
            "lop3" => self.lop3(args)?,
            "shf" => self.shf(parts, args)?,
            "prmt" => self.prmt(parts, args)?,
            "dp4a" => {
                let signed = |part: &str| part == "s32";
                let f = Int3::Dp4a(signed(parts[1]), signed(parts[2]));
                self.int3(f, ty, args)?;
            }
            "mov" => return self.mov(ty.bits, args),
            "selp" => self.selp(ty.bits, args)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn operand<const N: usize>(args: &[Arg]) -> Result<[&Arg; N]> {
        if args.len() != N {
            return Err(format!("expected {N} operands"));
        }
        Ok(std::array::from_fn(|i| &args[i]))
    }

    /// A 16-bit operand in a 32-bit register, extended by its sign.
    fn extended(&mut self, arg: &Arg, ty: IntTy) -> Result<Reg> {
        let a = self.word(arg)?;
        if ty.bits > 16 {
            return Ok(a);
        }
        let d = self.temp();
        self.push(Op::Int1 {
            f: if ty.signed {
                Int1::Sext16
            } else {
                Int1::Zext16
            },
            d,
            a,
        });
        Ok(d)
    }

    fn truncate(&mut self, d: Reg, ty: IntTy) {
        if ty.bits == 16 && d != NONE {
            self.push(Op::Int1 {
                f: Int1::Zext16,
                d,
                a: d,
            });
        }
    }

    fn int1(&mut self, f: Int1, ty: IntTy, args: &[Arg]) -> Result<()> {
        let [d, a] = Self::operand(args)?;
        if ty.bits == 64 {
            let (d, a) = (self.long(d)?, self.long(a)?);
            self.push(Op::Long1 { f, d, a });
        } else {
            let a = self.extended(a, ty)?;
            let d = self.word(d)?;
            self.push(Op::Int1 { f, d, a });
            self.truncate(d, ty);
        }
        Ok(())
    }

    fn count(&mut self, f: Int1, ty: IntTy, args: &[Arg]) -> Result<()> {
        let [d, a] = Self::operand(args)?;
        let d = self.word(d)?;
        if ty.bits == 64 {
            let a = self.long(a)?;
            self.push(Op::LongCount { f, d, a });
        } else {
            let a = self.word(a)?;
            self.push(Op::Int1 { f, d, a });
        }
        Ok(())
    }

    fn int2(&mut self, f: Int2, ty: IntTy, args: &[Arg]) -> Result<()> {
        let [d, a, b] = Self::operand(args)?;
        let shift = matches!(f, Int2::Shl | Int2::ShrU | Int2::ShrS);
        if ty.bits == 64 {
            let (d, a) = (self.long(d)?, self.long(a)?);
            let b = if shift { self.word(b)? } else { self.long(b)? };
            self.push(Op::Long2 { f, d, a, b });
            return Ok(());
        }
        let a = self.extended(a, ty)?;
        let b = if shift {
            self.word(b)?
        } else {
            self.extended(b, ty)?
        };
        let d = self.word(d)?;
        if ty.bits == 16 && matches!(f, Int2::MulHiS | Int2::MulHiU) {
            self.push(Op::Int2 {
                f: Int2::Mul,
                d,
                a,
                b,
            });
            let sixteen = self.word_const(16);
            self.push(Op::Int2 {
                f: Int2::ShrU,
                d,
                a: d,
                b: sixteen,
            });
        } else {
            self.push(Op::Int2 { f, d, a, b });
            self.truncate(d, ty);
        }
        Ok(())
    }

    fn int3(&mut self, f: Int3, ty: IntTy, args: &[Arg]) -> Result<()> {
        let [d, a, b, c] = Self::operand(args)?;
        if ty.bits == 64 {
            let (d, a, b, c) = (self.long(d)?, self.long(a)?, self.long(b)?, self.long(c)?);
            self.push(Op::Long3 { f, d, a, b, c });
        } else {
            let (a, b, c) = (
                self.extended(a, ty)?,
                self.extended(b, ty)?,
                self.extended(c, ty)?,
            );
            let d = self.word(d)?;
            self.push(Op::Int3 { f, d, a, b, c });
            self.truncate(d, ty);
        }
        Ok(())
    }

    fn wide(&mut self, ty: IntTy, args: &[Arg], add: bool) -> Result<()> {
        let (a, b) = (self.extended(&args[1], ty)?, self.extended(&args[2], ty)?);
        if ty.bits == 16 {
            let d = self.word(&args[0])?;
            if add {
                let c = self.word(&args[3])?;
                self.push(Op::Int3 {
                    f: Int3::Mad,
                    d,
                    a,
                    b,
                    c,
                });
            } else {
                self.push(Op::Int2 {
                    f: Int2::Mul,
                    d,
                    a,
                    b,
                });
            }
            return Ok(());
        }
        let d = self.long(&args[0])?;
        let c = if add { self.long(&args[3])? } else { NONE };
        self.push(Op::MadWide {
            signed: ty.signed,
            d,
            a,
            b,
            c,
        });
        Ok(())
    }

    fn mul24(&mut self, ty: IntTy, args: &[Arg], add: bool) -> Result<()> {
        let eight = self.word_const(8);
        let shift = if ty.signed { Int2::ShrS } else { Int2::ShrU };
        let cut = |this: &mut Self, arg: &Arg| -> Result<Reg> {
            let (a, d) = (this.word(arg)?, this.temp());
            this.push(Op::Int2 {
                f: Int2::Shl,
                d,
                a,
                b: eight,
            });
            this.push(Op::Int2 {
                f: shift,
                d,
                a: d,
                b: eight,
            });
            Ok(d)
        };
        let (a, b) = (cut(self, &args[1])?, cut(self, &args[2])?);
        let d = self.word(&args[0])?;
        if add {
            let c = self.word(&args[3])?;
            self.push(Op::Int3 {
                f: Int3::Mad,
                d,
                a,
                b,
                c,
            });
        } else {
            self.push(Op::Int2 {
                f: Int2::Mul,
                d,
                a,
                b,
            });
        }
        Ok(())
    }

    fn carry(&mut self, sub: bool, take: bool, leave: bool, ty: IntTy, args: &[Arg]) -> Result<()> {
        let [d, a, b] = Self::operand(args)?;
        let wide = ty.bits == 64;
        let mut reg = |arg: &Arg| if wide { self.long(arg) } else { self.word(arg) };
        let (d, a, b) = (reg(d)?, reg(a)?, reg(b)?);
        self.push(Op::Carry {
            wide,
            sub,
            take,
            leave,
            d,
            a,
            b,
        });
        Ok(())
    }

    fn mad_carry(&mut self, parts: &[&str], ty: IntTy, args: &[Arg]) -> Result<()> {
        let [d, a, b, c] = Self::operand(args)?;
        let f = match (parts.contains(&"hi"), ty.signed) {
            (false, _) => Int2::Mul,
            (true, true) => Int2::MulHiS,
            (true, false) => Int2::MulHiU,
        };
        let wide = ty.bits == 64;
        let product = if wide { self.temp_long() } else { self.temp() };
        let mut reg = |arg: &Arg| if wide { self.long(arg) } else { self.word(arg) };
        let (d, a, b, c) = (reg(d)?, reg(a)?, reg(b)?, reg(c)?);
        if wide {
            self.push(Op::Long2 {
                f,
                d: product,
                a,
                b,
            });
        } else {
            self.push(Op::Int2 {
                f,
                d: product,
                a,
                b,
            });
        }
        let (take, leave) = (parts[0] == "madc", parts.contains(&"cc"));
        self.push(Op::Carry {
            wide,
            sub: false,
            take,
            leave,
            d,
            a: product,
            b: c,
        });
        Ok(())
    }

    fn bfe(&mut self, ty: IntTy, args: &[Arg]) -> Result<()> {
        let [d, a, b, c] = Self::operand(args)?;
        let f = if ty.signed { Int3::BfeS } else { Int3::BfeU };
        let (b, c) = (self.word(b)?, self.word(c)?);
        if ty.bits == 64 {
            let (d, a) = (self.long(d)?, self.long(a)?);
            self.push(Op::Long3 { f, d, a, b, c });
        } else {
            let (d, a) = (self.word(d)?, self.word(a)?);
            self.push(Op::Int3 { f, d, a, b, c });
        }
        Ok(())
    }

    fn bfi(&mut self, ty: IntTy, args: &[Arg]) -> Result<()> {
        let [d, a, b, pos, len] = Self::operand(args)?;
        let (pos, len) = (self.word(pos)?, self.word(len)?);
        if ty.bits == 64 {
            let (d, a, b) = (self.long(d)?, self.long(a)?, self.long(b)?);
            self.push(Op::LongBfi { d, a, b, pos, len });
        } else {
            let (d, a, b) = (self.word(d)?, self.word(a)?, self.word(b)?);
            self.push(Op::Bfi { d, a, b, pos, len });
        }
        Ok(())
    }

    fn lop3(&mut self, args: &[Arg]) -> Result<()> {
        let [d, a, b, c, table] = Self::operand(args)?;
        let Arg::Int(table) = table else {
            return Err("the table of lop3 is no constant".to_owned());
        };
        let table = u8::try_from(*table).map_err(|_| "the table of lop3 has 8 bits")?;
        let (d, a, b, c) = (self.word(d)?, self.word(a)?, self.word(b)?, self.word(c)?);
        self.push(Op::Int3 {
            f: Int3::Lop3(table),
            d,
            a,
            b,
            c,
        });
        Ok(())
    }

    fn shf(&mut self, parts: &[&str], args: &[Arg]) -> Result<()> {
        let [d, a, b, c] = Self::operand(args)?;
        let f = match (parts[1], parts[2]) {
            ("l", "clamp") => Int3::ShfLClamp,
            ("l", "wrap") => Int3::ShfLWrap,
            ("r", "clamp") => Int3::ShfRClamp,
            ("r", "wrap") => Int3::ShfRWrap,
            _ => return Err("unknown mode of shf".to_owned()),
        };
        let (d, a, b, c) = (self.word(d)?, self.word(a)?, self.word(b)?, self.word(c)?);
        self.push(Op::Int3 { f, d, a, b, c });
        Ok(())
    }

    fn prmt(&mut self, parts: &[&str], args: &[Arg]) -> Result<()> {
        let [d, a, b, c] = Self::operand(args)?;
        let f = match parts.get(2) {
            None => Int3::Prmt,
            Some(mode) => {
                let known = ["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"];
                let index = known
                    .iter()
                    .position(|m| m == mode)
                    .ok_or("unknown mode of prmt")?;
                Int3::PrmtMode(u8::try_from(index).unwrap_or(0))
            }
        };
        let (d, a, b, c) = (self.word(d)?, self.word(a)?, self.word(b)?, self.word(c)?);
        self.push(Op::Int3 { f, d, a, b, c });
        Ok(())
    }
}
