//! Decoded instructions: registers are numbers, symbols are addresses, branch targets are indexes.

mod function;
pub(crate) mod operands;

pub(crate) use function::{Atomic, Cmp, Float1, Float2, Half, Int1, Int2, Int3, Logic, Shfl, Vote};

/// A register: an index into the file of its class (32-bit, 64-bit or predicate).
pub(crate) type Reg = u32;

/// No register: a result that is thrown away, or an operand that is not there.
pub(crate) const NONE: Reg = u32::MAX;

/// One decoded instruction.
#[derive(Debug, Clone)]
pub(crate) struct Inst {
    pub(crate) op: Op,
    /// The predicate that guards it, or [`NONE`].
    pub(crate) guard: Reg,
    /// Runs where the predicate is false.
    pub(crate) negated: bool,
    /// Line in the PTX.
    pub(crate) line: u32,
    /// File number and line of the `.cu` file, from `.loc`.
    pub(crate) loc: (u32, u32),
}

/// State space of a memory access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Generic,
    Global,
    Shared,
    Local,
    Param,
}

/// A type as conversions, comparisons and atomics know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ty {
    U8,
    S8,
    U16,
    S16,
    U32,
    S32,
    U64,
    S64,
    F16,
    Bf16,
    F32,
    F64,
}

impl Ty {
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::S8 => 1,
            Self::U16 | Self::S16 | Self::F16 | Self::Bf16 => 2,
            Self::U32 | Self::S32 | Self::F32 => 4,
            Self::U64 | Self::S64 | Self::F64 => 8,
        }
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::F32 | Self::F64)
    }

    pub(crate) fn is_signed(self) -> bool {
        matches!(self, Self::S8 | Self::S16 | Self::S32 | Self::S64)
    }
}

/// Direction of rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    Nearest,
    Zero,
    Down,
    Up,
    /// To the nearest, ties away from zero.
    Away,
}

/// An address: a register of 32 or 64 bits, or nothing, and an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Addr {
    pub(crate) base: Reg,
    pub(crate) wide: bool,
    pub(crate) offset: i64,
}

/// A load or store of one to four elements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access {
    pub(crate) space: Space,
    pub(crate) addr: Addr,
    /// Bytes of one element.
    pub(crate) bytes: u8,
    pub(crate) signed: bool,
    pub(crate) n: u8,
    /// The registers are 64 bits wide.
    pub(crate) wide: bool,
    pub(crate) regs: [Reg; 4],
}

/// Formats of `mma.sync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MmaKind {
    /// 16-bit operands: bf16 or f16, and `k`.
    Bf16 {
        k: u8,
    },
    F16 {
        k: u8,
    },
    /// f16 with accumulators in f16.
    F16Acc16 {
        k: u8,
    },
    Tf32 {
        k: u8,
    },
    /// Bytes: whether `a` and `b` are signed, and `k`.
    I8 {
        a_signed: bool,
        b_signed: bool,
        k: u8,
    },
}

/// Registers of an `mma.sync`.
#[derive(Debug, Clone)]
pub(crate) struct Mma {
    pub(crate) kind: MmaKind,
    pub(crate) d: Vec<Reg>,
    pub(crate) a: Vec<Reg>,
    pub(crate) b: Vec<Reg>,
    pub(crate) c: Vec<Reg>,
}

/// What an instruction does.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Nop,
    Int1 {
        f: Int1,
        d: Reg,
        a: Reg,
    },
    Int2 {
        f: Int2,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    Int3 {
        f: Int3,
        d: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
    },
    Bfi {
        d: Reg,
        a: Reg,
        b: Reg,
        pos: Reg,
        len: Reg,
    },
    Long1 {
        f: Int1,
        d: Reg,
        a: Reg,
    },
    /// Counts in a 64-bit value; the result has 32 bits.
    LongCount {
        f: Int1,
        d: Reg,
        a: Reg,
    },
    /// Shifts take `b` from the 32-bit file.
    Long2 {
        f: Int2,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    Long3 {
        f: Int3,
        d: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
    },
    LongBfi {
        d: Reg,
        a: Reg,
        b: Reg,
        pos: Reg,
        len: Reg,
    },
    /// 32 x 32 + 64 bits; `c` may be [`NONE`].
    MadWide {
        signed: bool,
        d: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
    },
    /// Addition or subtraction that takes or leaves the carry.
    Carry {
        wide: bool,
        sub: bool,
        take: bool,
        leave: bool,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    Float1 {
        f: Float1,
        d: Reg,
        a: Reg,
    },
    Float2 {
        f: Float2,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    Fma {
        d: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
    },
    /// Add, Sub, Mul, Div, Rcp or Sqrt with directed rounding.
    FloatRound {
        f: Float2,
        round: Round,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    FmaRound {
        round: Round,
        d: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
    },
    Double1 {
        f: Float1,
        d: Reg,
        a: Reg,
    },
    Double2 {
        f: Float2,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    DoubleFma {
        d: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
    },
    DoubleRound {
        f: Float2,
        round: Round,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    DoubleFmaRound {
        round: Round,
        d: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
    },
    Half {
        f: Half,
        bf16: bool,
        packed: bool,
        d: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
    },
    Cvt {
        from: Ty,
        to: Ty,
        round: Round,
        integer: bool,
        sat: bool,
        relu: bool,
        d: Reg,
        a: Reg,
    },
    /// Two `f32` to packed 16-bit numbers; `a` is the upper one.
    CvtPack {
        bf16: bool,
        round: Round,
        relu: bool,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    CvtTf32 {
        d: Reg,
        a: Reg,
    },
    Setp {
        cmp: Cmp,
        ty: Ty,
        p: Reg,
        q: Reg,
        a: Reg,
        b: Reg,
        with: Option<(Logic, Reg, bool)>,
    },
    Sel {
        p: Reg,
        negated: bool,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    LongSel {
        p: Reg,
        negated: bool,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    Pred {
        f: Logic,
        d: Reg,
        a: Reg,
        b: Reg,
        not_a: bool,
        not_b: bool,
    },
    /// Concatenates 16-bit halves.
    Pack32 {
        d: Reg,
        lo: Reg,
        hi: Reg,
    },
    Unpack32 {
        lo: Reg,
        hi: Reg,
        a: Reg,
    },
    Pack64 {
        d: Reg,
        lo: Reg,
        hi: Reg,
    },
    Unpack64 {
        lo: Reg,
        hi: Reg,
        a: Reg,
    },
    Clock {
        d: Reg,
        wide: bool,
    },
    Ld(Access),
    St(Access),
    /// Adds (`to` false) or removes the window of a space.
    Cvta {
        space: Space,
        to: bool,
        d: Reg,
        a: Reg,
    },
    IsSpace {
        space: Space,
        p: Reg,
        a: Reg,
    },
    Atom {
        f: Atomic,
        ty: Ty,
        packed: bool,
        space: Space,
        addr: Addr,
        d: Reg,
        b: Reg,
        c: Reg,
    },
    Shfl {
        f: Shfl,
        d: Reg,
        p: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
        mask: Reg,
    },
    Vote {
        f: Vote,
        d: Reg,
        a: Reg,
        negated: bool,
        mask: Reg,
    },
    Match {
        all: bool,
        wide: bool,
        d: Reg,
        p: Reg,
        a: Reg,
        mask: Reg,
    },
    Redux {
        f: Int2,
        d: Reg,
        a: Reg,
        mask: Reg,
    },
    ActiveMask {
        d: Reg,
    },
    ElectSync {
        d: Reg,
        p: Reg,
        mask: Reg,
    },
    SyncWarp {
        mask: Reg,
    },
    /// `bar.sync`; `count` may be [`NONE`].
    Bar {
        id: Reg,
        count: Reg,
        arrive: bool,
    },
    /// `bar.red`: `f` is None for popc.
    BarRed {
        f: Option<Logic>,
        id: Reg,
        d: Reg,
        a: Reg,
        negated: bool,
    },
    Bra {
        target: u32,
    },
    Brx {
        index: Reg,
        table: Box<[u32]>,
    },
    Exit,
    Trap,
    Mma(Box<Mma>),
    LdMatrix {
        n: u8,
        trans: bool,
        addr: Addr,
        regs: [Reg; 4],
    },
    StMatrix {
        n: u8,
        trans: bool,
        addr: Addr,
        regs: [Reg; 4],
    },
    MovMatrix {
        d: Reg,
        a: Reg,
    },
    CpAsync {
        dst: Addr,
        src: Addr,
        bytes: u8,
        src_bytes: Reg,
        ignore: Reg,
    },
    CpCommit,
    /// `None` waits for all, committed or not.
    CpWait {
        keep: Option<u32>,
    },
    MbarInit {
        addr: Addr,
        count: Reg,
    },
    MbarInval {
        addr: Addr,
    },
    /// `drop` is for `mbarrier.arrive_drop`; `tx` adds expected bytes; `count` may be [`NONE`].
    MbarArrive {
        addr: Addr,
        d: Reg,
        count: Reg,
        tx: Reg,
    },
    MbarExpectTx {
        addr: Addr,
        tx: Reg,
    },
    /// Waits for a phase (parity, or the token of an arrival).
    MbarTest {
        addr: Addr,
        p: Reg,
        phase: Reg,
        token: bool,
    },
    CpAsyncMbar {
        addr: Addr,
        noinc: bool,
    },
}

/// What a special register holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    NwarpId,
    LaneMaskEq,
    LaneMaskLt,
    LaneMaskLe,
    LaneMaskGt,
    LaneMaskGe,
    DynamicSmem,
    TotalSmem,
    Zero,
    One,
}

/// A kernel that can run.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    pub(crate) code: Vec<Inst>,
    pub(crate) n32: usize,
    pub(crate) n64: usize,
    pub(crate) n_pred: usize,
    /// Registers that hold constants.
    pub(crate) const32: Vec<(Reg, u32)>,
    pub(crate) const64: Vec<(Reg, u64)>,
    pub(crate) specials: Vec<(Special, Reg)>,
    /// Offset and bytes of each parameter.
    pub(crate) params: Vec<(usize, usize)>,
    pub(crate) param_bytes: usize,
    pub(crate) static_shared: usize,
    pub(crate) local_bytes: usize,
    pub(crate) max_threads: u32,
    /// Adds floats to global memory atomically, so that the order of blocks shows.
    pub(crate) float_atomics: bool,
    /// Source files, by the numbers that instructions name.
    pub(crate) files: std::collections::BTreeMap<u32, String>,
}
