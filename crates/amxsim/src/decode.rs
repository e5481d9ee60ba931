//! From the bytes of an instruction to what it does.
//!
//! AMX instructions have a VEX prefix of three bytes, an opcode of map `0F38` and a `ModRM` byte;
//! those with a memory operand may have a SIB byte and a displacement. Fields of the prefix that
//! extend a register number are stored inverted.

use crate::dot::Product;

/// One AMX instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) op: Op,
    /// In bytes.
    pub(crate) len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    LoadConfig(Address),
    StoreConfig(Address),
    Release,
    Zero(usize),
    Load(usize, Address),
    Store(usize, Address),
    /// `c += a b` for tiles `[c, a, b]`.
    Dot(Product, [usize; 3]),
}

/// A memory operand; register numbers are those of the encoding, `rax` 0 to `r15`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) base: Base,
    pub(crate) index: Option<usize>,
    /// The index counts `1 << scale` times.
    pub(crate) scale: u8,
    pub(crate) displacement: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    Zero,
    Register(usize),
    /// The address of the next instruction.
    Next,
}

impl Address {
    /// Base and displacement: the first row of a tile.
    pub(crate) fn start(&self, registers: &[u64; 16], next: u64) -> u64 {
        let base = match self.base {
            Base::Zero => 0,
            Base::Register(register) => registers[register],
            Base::Next => next,
        };
        base.wrapping_add_signed(self.displacement.into())
    }

    /// Index times scale: from one row of a tile to the next, 0 without an index.
    pub(crate) fn stride(&self, registers: &[u64; 16]) -> u64 {
        self.index
            .map_or(0, |register| registers[register] << self.scale)
    }
}

/// The fields of VEX that say which instruction it is, and its operands.
#[derive(Clone, Copy)]
struct Vex {
    /// 8 where the prefix extends the `ModRM` register, the index and the base.
    r: u8,
    x: u8,
    b: u8,
    /// The register that only VEX names.
    v: u8,
    /// 0, or the legacy prefix that it stands for: 1 `66`, 2 `F3`, 3 `F2`.
    pp: u8,
}

/// Decodes an instruction whose bytes `fetch` gives by position; it asks for no byte behind the
/// instruction. `None` if it is not one of AMX, or one that the processor refuses.
pub(crate) fn decode(fetch: impl Fn(usize) -> u8) -> Option<Instruction> {
    if fetch(0) != 0xc4 {
        return None;
    }
    let [first, second] = [fetch(1), fetch(2)];
    let map = first & 0x1f;
    let (w, l) = (second >> 7, second >> 2 & 1);
    if map != 2 || w != 0 || l != 0 {
        return None;
    }
    let extend = |bit: u8| if first >> bit & 1 == 0 { 8 } else { 0 };
    let vex = Vex {
        r: extend(7),
        x: extend(6),
        b: extend(5),
        v: !(second >> 3) & 15,
        pp: second & 3,
    };
    match fetch(3) {
        0x49 => config_or_zero(vex, fetch),
        0x4b => load_or_store(vex, fetch),
        opcode @ (0x5c | 0x5e) => dot(vex, opcode, fetch(4)),
        _ => None,
    }
}

/// The parts of a `ModRM` byte: mode, register, register or memory.
fn split(modrm: u8) -> (u8, u8, u8) {
    (modrm >> 6, modrm >> 3 & 7, modrm & 7)
}

fn config_or_zero(vex: Vex, fetch: impl Fn(usize) -> u8) -> Option<Instruction> {
    let (mode, register, memory) = split(fetch(4));
    if vex.v != 0 || vex.r != 0 {
        return None;
    }
    if mode == 3 {
        let op = match (vex.pp, register, memory) {
            (0, 0, 0) => Op::Release,
            (3, tile, 0) => Op::Zero(tile.into()),
            _ => return None,
        };
        return Some(Instruction { op, len: 5 });
    }
    let (address, len) = address(vex, fetch);
    let op = match (vex.pp, register) {
        (0, 0) => Op::LoadConfig(address),
        (1, 0) => Op::StoreConfig(address),
        _ => return None,
    };
    Some(Instruction { op, len })
}

fn load_or_store(vex: Vex, fetch: impl Fn(usize) -> u8) -> Option<Instruction> {
    let (mode, register, memory) = split(fetch(4));
    // Only operands with a SIB byte can say what the stride is.
    if vex.v != 0 || vex.r != 0 || mode == 3 || memory != 4 {
        return None;
    }
    let (address, len) = address(vex, fetch);
    let tile = register.into();
    let op = match vex.pp {
        // `TILELOADDT1` and `TILELOADD` differ in a hint to the caches.
        1 | 3 => Op::Load(tile, address),
        2 => Op::Store(tile, address),
        _ => return None,
    };
    Some(Instruction { op, len })
}

fn dot(vex: Vex, opcode: u8, modrm: u8) -> Option<Instruction> {
    let (mode, register, memory) = split(modrm);
    if mode != 3 || vex.r != 0 || vex.b != 0 || vex.v > 7 {
        return None;
    }
    let product = match (opcode, vex.pp) {
        (0x5c, 2) => Product::Bf16,
        (0x5e, 0) => Product::U8U8,
        (0x5e, 1) => Product::U8I8,
        (0x5e, 2) => Product::I8U8,
        (0x5e, 3) => Product::I8I8,
        _ => return None,
    };
    let tiles = [register.into(), memory.into(), vex.v.into()];
    let op = Op::Dot(product, tiles);
    Some(Instruction { op, len: 5 })
}

/// The memory operand of the `ModRM` byte at 4, and where the instruction ends.
fn address(vex: Vex, fetch: impl Fn(usize) -> u8) -> (Address, usize) {
    let (mode, _, memory) = split(fetch(4));
    let mut at = 5;
    let (mut index, mut scale) = (None, 0);
    let mut low_base = memory;
    if memory == 4 {
        let sib = fetch(at);
        at += 1;
        scale = sib >> 6;
        low_base = sib & 7;
        let register = (sib >> 3 & 7) | vex.x;
        // The number of rsp means that there is none; r12 is one.
        index = (register != 4).then_some(register.into());
    }
    let (base, bytes) = match (mode, low_base) {
        (0, 5) if memory == 4 => (Base::Zero, 4),
        (0, 5) => (Base::Next, 4),
        _ => {
            let bytes = match mode {
                0 => 0,
                1 => 1,
                _ => 4,
            };
            (Base::Register((low_base | vex.b).into()), bytes)
        }
    };
    let displacement = match bytes {
        0 => 0,
        1 => i32::from(fetch(at).cast_signed()),
        _ => i32::from_le_bytes([fetch(at), fetch(at + 1), fetch(at + 2), fetch(at + 3)]),
    };
    let address = Address {
        base,
        index,
        scale,
        displacement,
    };
    (address, at + bytes)
}

#[cfg(test)]
mod tests;
