//! Loads, stores, atomics, address conversions and asynchronous copies.

use super::float::scalar;
use super::{Decoder, Result, Symbol};
use crate::isa::{Access, Addr, Atomic, NONE, Op, Reg, Space, Ty};
use crate::ptx::{self, Arg};

fn space_of(parts: &[&str]) -> Space {
    for part in parts {
        match *part {
            "global" | "const" => return Space::Global,
            "local" => return Space::Local,
            "param" => return Space::Param,
            part if part == "shared" || part.starts_with("shared::") => return Space::Shared,
            _ => {}
        }
    }
    Space::Generic
}

impl Decoder<'_> {
    /// Decodes memory instructions; false if it is none.
    pub(super) fn decode_memory(&mut self, parts: &[&str], args: &[Arg]) -> Result<bool> {
        match parts[0] {
            "ld" | "ldu" => self.load(parts, &args[0], &args[1])?,
            "st" => self.store(parts, args)?,
            "atom" => self.atom(parts, &args[0], &args[1..])?,
            "red" if parts.get(1) != Some(&"async") => {
                self.atom(parts, &Arg::Name("_".to_owned()), args)?;
            }
            "cvta" => self.cvta(parts, args)?,
            "isspacep" => {
                let (p, a) = (self.pred(&args[0])?, self.long(&args[1])?);
                self.push(Op::IsSpace {
                    space: space_of(parts),
                    p,
                    a,
                });
            }
            "prefetch" | "prefetchu" | "applypriority" | "discard" => self.push(Op::Nop),
            "cp" if parts.get(1) == Some(&"async") => return self.cp_async(parts, args),
            "mbarrier" => return self.mbarrier(parts, args),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The space of an access, given that a symbol may be a variable of a body in `.param` space.
    fn place(&mut self, parts: &[&str], arg: &Arg) -> Result<(Space, Addr)> {
        let (addr, symbol) = self.addr(arg)?;
        let space = match (space_of(parts), symbol) {
            (Space::Param, Some(Symbol::Local(_))) => Space::Local,
            // In a function, `.param` space is the caller's, which this crate keeps in local memory.
            (Space::Param, None) if self.frame.inlined => Space::Local,
            (Space::Generic, Some(Symbol::Shared(_) | Symbol::DynamicShared)) => Space::Shared,
            (Space::Generic, Some(Symbol::Local(_))) => Space::Local,
            (space, _) => space,
        };
        Ok((space, addr))
    }

    fn access(&mut self, parts: &[&str], values: &Arg, address: &Arg) -> Result<Access> {
        let last = parts[parts.len() - 1];
        let bytes = ptx::parse_type_bytes(last).ok_or("unknown type of an access")?;
        let values: &[Arg] = match values {
            Arg::Vec(values) => values,
            value => std::slice::from_ref(value),
        };
        if values.len() > 4 || bytes > 8 {
            return Err(
                "accesses of more than four elements or 8 bytes each are not known".to_owned(),
            );
        }
        let wide = values.iter().any(|value| self.is_long(value))
            || (bytes == 8
                && values
                    .iter()
                    .all(|value| !matches!(value, Arg::Name(name) if name != "_")));
        let mut regs = [NONE; 4];
        for (reg, value) in regs.iter_mut().zip(values) {
            *reg = if wide {
                self.long(value)?
            } else {
                self.word(value)?
            };
        }
        let (space, addr) = self.place(parts, address)?;
        if !wide && bytes == 8 {
            return Err("8 bytes do not fit the register".to_owned());
        }
        Ok(Access {
            space,
            addr,
            bytes: u8::try_from(bytes).unwrap_or(8),
            signed: last.starts_with('s'),
            n: u8::try_from(values.len()).unwrap_or(4),
            wide,
            regs,
        })
    }

    fn load(&mut self, parts: &[&str], d: &Arg, address: &Arg) -> Result<()> {
        let access = self.access(parts, d, address)?;
        self.push(Op::Ld(access));
        Ok(())
    }

    fn store(&mut self, parts: &[&str], args: &[Arg]) -> Result<()> {
        if parts.get(1) == Some(&"async") || parts.get(1) == Some(&"bulk") {
            return Err("unknown instruction".to_owned());
        }
        let access = self.access(parts, &args[1], &args[0])?;
        self.push(Op::St(access));
        Ok(())
    }

    fn atom(&mut self, parts: &[&str], d: &Arg, args: &[Arg]) -> Result<()> {
        let last = parts[parts.len() - 1];
        let packed = matches!(last, "f16x2" | "bf16x2");
        let ty = match last {
            "f16x2" => Ty::F16,
            "bf16x2" => Ty::Bf16,
            _ => scalar(last).ok_or("unknown type of an atomic")?,
        };
        let f = parts
            .iter()
            .find_map(|part| {
                Some(match *part {
                    "add" => Atomic::Add,
                    "min" => Atomic::Min,
                    "max" => Atomic::Max,
                    "and" => Atomic::And,
                    "or" => Atomic::Or,
                    "xor" => Atomic::Xor,
                    "exch" => Atomic::Exch,
                    "cas" => Atomic::Cas,
                    "inc" => Atomic::Inc,
                    "dec" => Atomic::Dec,
                    _ => return None,
                })
            })
            .ok_or("unknown atomic")?;
        let (space, addr) = self.place(parts, &args[0])?;
        let mut reg = |arg: Option<&Arg>| -> Result<Reg> {
            match arg {
                None => Ok(NONE),
                Some(arg) if ty.bytes() == 8 => self.long(arg),
                Some(arg) => self.word(arg),
            }
        };
        let (d, b, c) = (reg(Some(d))?, reg(args.get(1))?, reg(args.get(2))?);
        if f == Atomic::Cas && c == NONE {
            return Err("a compare-and-swap without a value".to_owned());
        }
        if ty.is_float() && space != Space::Shared {
            self.kernel.float_atomics = true;
        }
        self.push(Op::Atom {
            f,
            ty,
            packed,
            space,
            addr,
            d,
            b,
            c,
        });
        Ok(())
    }

    fn cvta(&mut self, parts: &[&str], args: &[Arg]) -> Result<()> {
        let to = parts.get(1) == Some(&"to");
        let mut space = space_of(parts);
        if space == Space::Param && self.frame.inlined {
            space = Space::Local;
        }
        if space == Space::Param
            && let Ok((Symbol::Local(_), _)) = self.symbol_of(&args[1])
        {
            space = Space::Local;
        }
        let wide = parts[parts.len() - 1].ends_with("64");
        if !wide {
            return Err("addresses have 64 bits".to_owned());
        }
        let (d, a) = (self.long(&args[0])?, self.long(&args[1])?);
        self.push(Op::Cvta { space, to, d, a });
        Ok(())
    }

    fn cp_async(&mut self, parts: &[&str], args: &[Arg]) -> Result<bool> {
        match parts.get(2) {
            Some(&"commit_group") => self.push(Op::CpCommit),
            Some(&"wait_group") => {
                let [Arg::Int(keep)] = args else {
                    return Err("expected a number of groups".to_owned());
                };
                let keep = u32::try_from(*keep).map_err(|_| "expected a number of groups")?;
                self.push(Op::CpWait { keep: Some(keep) });
            }
            Some(&"wait_all") => self.push(Op::CpWait { keep: None }),
            Some(&"mbarrier") => {
                let (addr, _) = self.addr(&args[0])?;
                self.push(Op::CpAsyncMbar {
                    addr,
                    noinc: parts.contains(&"noinc"),
                });
            }
            Some(&("ca" | "cg")) => {
                let (dst, src) = (self.addr(&args[0])?.0, self.addr(&args[1])?.0);
                let Some(Arg::Int(bytes)) = args.get(2) else {
                    return Err("expected a size".to_owned());
                };
                if !matches!(bytes, 4 | 8 | 16) || (parts[2] == "cg" && *bytes != 16) {
                    return Err("cp.async copies 4, 8 or 16 bytes (16 with .cg)".to_owned());
                }
                let (mut src_bytes, mut ignore) = (NONE, NONE);
                if let Some(arg) = args.get(3) {
                    if self.is_pred(arg) {
                        ignore = self.pred(arg)?;
                    } else if parts.iter().any(|part| part.starts_with("L2::cache_hint"))
                        && args.len() == 4
                    {
                        // A cache policy changes nothing here.
                    } else {
                        src_bytes = self.word(arg)?;
                    }
                }
                let bytes = u8::try_from(*bytes).unwrap_or(16);
                self.push(Op::CpAsync {
                    dst,
                    src,
                    bytes,
                    src_bytes,
                    ignore,
                });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn mbarrier(&mut self, parts: &[&str], args: &[Arg]) -> Result<bool> {
        match parts[1] {
            "init" => {
                let ((addr, _), count) = (self.addr(&args[0])?, self.word(&args[1])?);
                self.push(Op::MbarInit { addr, count });
            }
            "inval" => {
                let (addr, _) = self.addr(&args[0])?;
                self.push(Op::MbarInval { addr });
            }
            "expect_tx" => {
                let ((addr, _), tx) = (self.addr(&args[0])?, self.word(&args[1])?);
                self.push(Op::MbarExpectTx { addr, tx });
            }
            "arrive" => {
                let d = match &args[0] {
                    Arg::Name(_) => self.long(&args[0])?,
                    _ => NONE,
                };
                let rest = if matches!(args[0], Arg::Name(_)) {
                    &args[1..]
                } else {
                    args
                };
                let (addr, _) = self.addr(&rest[0])?;
                let extra = rest.get(1).map_or(Ok(NONE), |arg| self.word(arg))?;
                let expects = parts.contains(&"expect_tx");
                let (count, tx) = if expects {
                    (NONE, extra)
                } else {
                    (extra, NONE)
                };
                self.push(Op::MbarArrive { addr, d, count, tx });
            }
            "test_wait" | "try_wait" => {
                let token = !parts.contains(&"parity");
                let (p, (addr, _)) = (self.pred(&args[0])?, self.addr(&args[1])?);
                let phase = if token {
                    self.long(&args[2])?
                } else {
                    self.word(&args[2])?
                };
                self.push(Op::MbarTest {
                    addr,
                    p,
                    phase,
                    token,
                });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}
