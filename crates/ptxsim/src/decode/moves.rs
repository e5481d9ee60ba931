//! Moves, selections, and logic on predicates.

use super::{Decoder, Result};
use crate::isa::{Int1, Int3, Logic, Op};
use crate::ptx::Arg;

impl Decoder<'_> {
    pub(super) fn decode_pred(&mut self, parts: &[&str], args: &[Arg]) -> Result<bool> {
        let d = match args.first() {
            Some(d) if matches!(parts[0], "mov" | "not" | "and" | "or" | "xor") => self.pred(d)?,
            _ => return Ok(false),
        };
        let (a, not_a) = self.signed_pred(&args[1])?;
        let op = match parts[0] {
            "mov" => Op::Pred {
                f: Logic::And,
                d,
                a,
                b: a,
                not_a,
                not_b: not_a,
            },
            "not" => Op::Pred {
                f: Logic::And,
                d,
                a,
                b: a,
                not_a: !not_a,
                not_b: !not_a,
            },
            name => {
                let f = match name {
                    "and" => Logic::And,
                    "or" => Logic::Or,
                    _ => Logic::Xor,
                };
                let (b, not_b) = self.signed_pred(&args[2])?;
                Op::Pred {
                    f,
                    d,
                    a,
                    b,
                    not_a,
                    not_b,
                }
            }
        };
        self.push(op);
        Ok(true)
    }

    /// `mov` of registers, symbols, and packed vectors.
    pub(super) fn mov(&mut self, bits: u32, args: &[Arg]) -> Result<bool> {
        let [d, a] = Self::operand(args)?;
        if let Arg::Name(name) = a
            && matches!(
                name.as_str(),
                "%clock" | "%clock64" | "%globaltimer" | "%clock_hi" | "%globaltimer_lo"
            )
        {
            let wide = bits == 64;
            let d = if wide { self.long(d)? } else { self.word(d)? };
            self.push(Op::Clock { d, wide });
            return Ok(true);
        }
        match (d, a) {
            (Arg::Vec(d), a) => self.unpack(bits, d, a)?,
            (d, Arg::Vec(a)) => self.pack(bits, d, a)?,
            _ if bits == 64 => {
                let (d, a) = (self.long(d)?, self.long(a)?);
                self.push(Op::Long1 { f: Int1::Mov, d, a });
            }
            _ => {
                let (d, a) = (self.word(d)?, self.word(a)?);
                self.push(Op::Int1 {
                    f: if bits == 16 { Int1::Zext16 } else { Int1::Mov },
                    d,
                    a,
                });
            }
        }
        Ok(true)
    }

    fn unpack(&mut self, bits: u32, d: &[Arg], a: &Arg) -> Result<()> {
        match (bits, d) {
            (32, [lo, hi]) => {
                let (a, lo, hi) = (self.word(a)?, self.word(lo)?, self.word(hi)?);
                self.push(Op::Unpack32 { lo, hi, a });
            }
            (64, [lo, hi]) => {
                let (a, lo, hi) = (self.long(a)?, self.word(lo)?, self.word(hi)?);
                self.push(Op::Unpack64 { lo, hi, a });
            }
            (64, [d0, d1, d2, d3]) => {
                let (lo, hi, a) = (self.temp(), self.temp(), self.long(a)?);
                self.push(Op::Unpack64 { lo, hi, a });
                let (d0, d1) = (self.word(d0)?, self.word(d1)?);
                self.push(Op::Unpack32 {
                    lo: d0,
                    hi: d1,
                    a: lo,
                });
                let (d2, d3) = (self.word(d2)?, self.word(d3)?);
                self.push(Op::Unpack32 {
                    lo: d2,
                    hi: d3,
                    a: hi,
                });
            }
            (32, [d0, d1, d2, d3]) => {
                let a = self.word(a)?;
                let eight = self.word_const(8);
                for (index, d) in [d0, d1, d2, d3].into_iter().enumerate() {
                    let (d, shift) = (
                        self.word(d)?,
                        self.word_const(8 * u32::try_from(index).unwrap_or(0)),
                    );
                    self.push(Op::Int3 {
                        f: Int3::BfeU,
                        d,
                        a,
                        b: shift,
                        c: eight,
                    });
                }
            }
            _ => return Err("unknown shape of a vector move".to_owned()),
        }
        Ok(())
    }

    fn pack(&mut self, bits: u32, d: &Arg, a: &[Arg]) -> Result<()> {
        match (bits, a) {
            (32, [lo, hi]) => {
                let (d, lo, hi) = (self.word(d)?, self.word(lo)?, self.word(hi)?);
                self.push(Op::Pack32 { d, lo, hi });
            }
            (64, [lo, hi]) => {
                let (d, lo, hi) = (self.long(d)?, self.word(lo)?, self.word(hi)?);
                self.push(Op::Pack64 { d, lo, hi });
            }
            (64, [a0, a1, a2, a3]) => {
                let (low, high) = (self.temp(), self.temp());
                let (lo, hi) = (self.word(a0)?, self.word(a1)?);
                self.push(Op::Pack32 { d: low, lo, hi });
                let (lo, hi) = (self.word(a2)?, self.word(a3)?);
                self.push(Op::Pack32 { d: high, lo, hi });
                let d = self.long(d)?;
                self.push(Op::Pack64 {
                    d,
                    lo: low,
                    hi: high,
                });
            }
            (32, [_, _, _, _]) => {
                let (d, eight) = (self.word(d)?, self.word_const(8));
                let sum = self.word_const(0);
                let result = self.temp();
                self.push(Op::Int1 {
                    f: Int1::Mov,
                    d: result,
                    a: sum,
                });
                for (index, a) in a.iter().enumerate() {
                    let (a, pos) = (
                        self.word(a)?,
                        self.word_const(8 * u32::try_from(index).unwrap_or(0)),
                    );
                    self.push(Op::Bfi {
                        d: result,
                        a,
                        b: result,
                        pos,
                        len: eight,
                    });
                }
                self.push(Op::Int1 {
                    f: Int1::Mov,
                    d,
                    a: result,
                });
            }
            _ => return Err("unknown shape of a vector move".to_owned()),
        }
        Ok(())
    }

    pub(super) fn selp(&mut self, bits: u32, args: &[Arg]) -> Result<()> {
        let [d, a, b, p] = Self::operand(args)?;
        let (p, negated) = self.signed_pred(p)?;
        if bits == 64 {
            let (d, a, b) = (self.long(d)?, self.long(a)?, self.long(b)?);
            self.push(Op::LongSel {
                p,
                negated,
                d,
                a,
                b,
            });
        } else {
            let (d, a, b) = (self.word(d)?, self.word(a)?, self.word(b)?);
            self.push(Op::Sel {
                p,
                negated,
                d,
                a,
                b,
            });
        }
        Ok(())
    }
}
