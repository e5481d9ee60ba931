//! Decoded instructions: what the interpreter executes.
//!
//! Registers of up to 32 bits live in one bank, those of 64 bits in another, predicates in a third;
//! operands are indexes into the banks, or constants.

/// A 32-bit source.
#[derive(Debug, Clone, Copy)]
pub(crate) enum S32 {
    /// Register.
    R(u32),
    /// Constant.
    I(u32),
}

/// A 64-bit source.
#[derive(Debug, Clone, Copy)]
pub(crate) enum S64 {
    /// Register.
    R(u32),
    /// Constant.
    I(u64),
}

/// A predicate source, perhaps negated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SPred {
    pub(crate) register: u32,
    pub(crate) negated: bool,
}

/// A destination of a load, or a source of a store, by its class.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// 16 bits in the 32-bit bank.
    B16(u32),
    B32(u32),
    B64(u32),
    /// A constant that is stored.
    Constant(u64),
}

/// Where an address is taken from, and in which space it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address {
    pub(crate) base: Base,
    pub(crate) offset: i64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Base {
    None,
    R32(u32),
    R64(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Generic,
    Global,
    Shared,
    Local,
}

/// Functions of one 32-bit value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum F1 {
    Move,
    Neg,
    Abs,
    Not,
    Popc,
    Clz,
    Brev,
    BfindU,
    BfindS,
    NegF,
    AbsF,
    Rcp,
    Sqrt,
    Rsqrt,
    Ex2,
    Lg2,
    Sin,
    Cos,
    Tanh,
    /// Sign bits of both halves.
    NegPair,
    AbsPair,
}

/// Functions of two 32-bit values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum F2 {
    Add,
    Sub,
    MulLo,
    MulHiU,
    MulHiS,
    DivU,
    DivS,
    RemU,
    RemS,
    MinU,
    MinS,
    MaxU,
    MaxS,
    And,
    Or,
    Xor,
    Shl,
    ShrU,
    ShrS,
    AddF,
    SubF,
    MulF,
    DivF,
    MinF,
    MaxF,
    MinNanF,
    MaxNanF,
    CopySign,
    Half(HalfOp, HalfType, bool),
}

/// Arithmetic of 16-bit floats; the flag of [`F2::Half`] says whether both halves are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HalfOp {
    Add,
    Sub,
    Mul,
    Min,
    Max,
    MinNan,
    MaxNan,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HalfType {
    F16,
    Bf16,
}

/// Functions of three 32-bit values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum F3 {
    MadLo,
    MadHiU,
    MadHiS,
    Fma,
    FmaDown,
    FmaUp,
    FmaZero,
    BfeU,
    BfeS,
    Lop3(u8),
    ShfLeft { wrap: bool },
    ShfRight { wrap: bool },
    Prmt,
    Sad,
    Half(HalfType, bool),
}

/// Functions of 64-bit values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum G1 {
    Move,
    Neg,
    Abs,
    Not,
    Brev,
    NegD,
    AbsD,
    Rcp,
    RcpApprox,
    Sqrt,
    RsqrtApprox,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum G2 {
    Add,
    Sub,
    MulLo,
    MulHiU,
    MulHiS,
    DivU,
    DivS,
    RemU,
    RemS,
    MinU,
    MinS,
    MaxU,
    MaxS,
    And,
    Or,
    Xor,
    AddD,
    SubD,
    MulD,
    DivD,
    MinD,
    MaxD,
    CopySign,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum G3 {
    MadLo,
    FmaD,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shift64 {
    Left,
    RightU,
    RightS,
}

/// Comparisons; the unordered ones are true if a value is NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    Num,
    Nan,
}

/// What is compared.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Compared {
    U32(S32, S32),
    S32(S32, S32),
    /// 16-bit integers, sign-extended before.
    S16(S32, S32),
    F32(S32, S32),
    Half(HalfType, S32, S32),
    U64(S64, S64),
    S64(S64, S64),
    F64(S64, S64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BoolOp {
    And,
    Or,
    Xor,
}

/// Element types of conversions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Num {
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    Bf16,
    F32,
    F64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rounding {
    Near,
    Zero,
    Down,
    Up,
}

/// Special registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Special {
    Tid(usize),
    Ntid(usize),
    Ctaid(usize),
    Nctaid(usize),
    LaneId,
    WarpId,
    LaneMask(Cmp),
    Clock,
    Constant(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vote {
    All,
    Any,
    Uniform,
    Ballot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Atomic {
    Add,
    AddF,
    MinU,
    MinS,
    MaxU,
    MaxS,
    And,
    Or,
    Xor,
    Exchange,
    CompareExchange,
}

/// Products of a warp on its tensor cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MmaKind {
    /// `m16n8k16` with f32 sums.
    K16(HalfType),
    /// `m16n8k8` with f32 sums.
    K8(HalfType),
}

/// One instruction.
#[derive(Debug, Clone)]
pub(crate) enum Inst {
    Map1(F1, u32, S32),
    Map2(F2, u32, S32, S32),
    Map3(F3, u32, S32, S32, S32),
    /// A 32-bit function whose result keeps its low 16 bits; sources are extended first.
    Narrow2(F2, u32, S32, S32, bool),
    Wide1(G1, u32, S64),
    Wide2(G2, u32, S64, S64),
    Wide3(G3, u32, S64, S64, S64),
    Shift64(Shift64, u32, S64, S32),
    /// 32-bit factors, 64-bit product; signed or not; plus a term.
    MulWide(bool, u32, S32, S32, Option<S64>),
    /// 16-bit factors, 32-bit product.
    MulWide16(bool, u32, S32, S32),
    /// Bit field insert: `(d, a, b, position, length)`.
    Bfi32(u32, S32, S32, S32, S32),
    Bfi64(u32, S64, S64, S32, S32),
    /// Population count or leading zeros of 64 bits, a 32-bit result.
    Count64(F1, u32, S64),
    Select32(u32, S32, S32, SPred),
    Select64(u32, S64, S64, SPred),
    Compare {
        cmp: Cmp,
        what: Compared,
        d: u32,
        complement: Option<u32>,
        combine: Option<(BoolOp, SPred)>,
    },
    PredMove(u32, SPred),
    PredConstant(u32, bool),
    PredNot(u32, SPred),
    PredBool(BoolOp, u32, SPred, SPred),
    /// `(d, low, high)`: 64 bits of two 32-bit values.
    Pack64(u32, S32, S32),
    /// `(d, parts)`: 64 bits of four 16-bit values.
    Pack64x4(u32, [S32; 4]),
    Unpack64(u32, u32, S64),
    Unpack64x4([u32; 4], S64),
    /// `(d, low, high)`: 32 bits of two 16-bit values.
    Pack32(u32, S32, S32),
    Unpack32(u32, u32, S32),
    /// Reinterprets between the banks.
    Convert {
        from: Num,
        to: Num,
        rounding: Rounding,
        /// Rounds to an integral value of the same type.
        integral: bool,
        saturate: bool,
        relu: bool,
        d: Place,
        a: Place,
    },
    /// Two `f32` to a pair of 16-bit floats, the first into the upper half.
    ConvertPair(HalfType, bool, u32, S32, S32),
    AddCarry {
        wide: bool,
        subtract: bool,
        carry_in: bool,
        carry_out: bool,
        d: Place,
        a: Place,
        b: Place,
    },
    ReadSpecial(u32, Special),
    ReadSpecial64(u32, Special),
    LoadParameter {
        address: Address,
        bytes: u32,
        signed: bool,
        to: Vec<Option<Place>>,
    },
    Load {
        space: Space,
        bytes: u32,
        signed: bool,
        to: Vec<Option<Place>>,
        address: Address,
    },
    Store {
        space: Space,
        bytes: u32,
        from: Vec<Place>,
        address: Address,
    },
    /// Into or out of a window of the generic address space.
    ToGeneric(Space, u32, S64),
    FromGeneric(Space, u32, S64),
    IsSpace(Space, u32, S64),
    Atomic {
        op: Atomic,
        space: Space,
        wide: bool,
        d: Option<Place>,
        address: Address,
        b: Place,
        c: Option<Place>,
    },
    Shuffle {
        mode: Shuffle,
        d: u32,
        valid: Option<u32>,
        a: S32,
        b: S32,
        c: S32,
        mask: S32,
    },
    Vote {
        mode: Vote,
        d: u32,
        a: SPred,
        mask: S32,
    },
    /// `match.any`: lanes with the same value.
    MatchAny(u32, S32, S32),
    ActiveMask(u32),
    Reduce(F2, u32, S32, S32),
    SyncWarp(S32),
    /// `(id, threads)`.
    Barrier(S32, Option<S32>),
    Fence,
    Branch(u32),
    BranchIndexed(S32, Vec<u32>),
    Exit,
    Trap,
    CpAsync {
        bytes: u32,
        shared: Address,
        global: Address,
        source_bytes: Option<S32>,
    },
    CpAsyncCommit,
    CpAsyncWait(u32),
    LdMatrix {
        n: usize,
        transposed: bool,
        d: [u32; 4],
        address: Address,
    },
    Mma {
        kind: MmaKind,
        d: [u32; 4],
        a: [S32; 4],
        b: [S32; 2],
        c: [S32; 4],
    },
    Nothing,
}

/// An instruction with its guard and where it came from.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) inst: Inst,
    pub(crate) guard: Option<SPred>,
    /// Line of the PTX text, from 1.
    pub(crate) line: u32,
    /// File (by its number) and line of the source, if the PTX says so.
    pub(crate) source: Option<(u32, u32)>,
}

/// A variable of the module or of a kernel.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) align: u64,
    pub(crate) bytes: u64,
    pub(crate) init: Vec<u8>,
}

/// A kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    /// Offset and size of each parameter.
    pub(crate) parameters: Vec<(u32, u32)>,
    pub(crate) parameter_bytes: u32,
    pub(crate) steps: Vec<Step>,
    pub(crate) n_registers: [usize; 3],
    /// Static shared memory; dynamic memory follows it.
    pub(crate) shared_bytes: u64,
    pub(crate) local_bytes: u64,
    pub(crate) max_threads: u32,
}

/// What a PTX text holds.
#[derive(Debug, Default)]
pub(crate) struct Module {
    pub(crate) kernels: Vec<Kernel>,
    /// Global and constant variables, with their addresses in the order of the text.
    pub(crate) globals: Vec<(Variable, u64)>,
    /// Files of the source by number.
    pub(crate) files: Vec<(u32, String)>,
}
