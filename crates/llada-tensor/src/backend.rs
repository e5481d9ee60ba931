//! The seam between ops and devices: one method per op, argument structs, outputs owned by the
//! caller. Shapes are checked by [`crate::ops`] before a backend is called.

mod delegate;
mod recorder;

use std::any::{Any, TypeId};
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use crate::{DType, Precision, Result, Tensor};

pub use self::recorder::{Recorder, Step};
pub use crate::ops::adamw::AdamWArgs;
pub use crate::ops::attention::{AttentionArgs, AttentionBackwardArgs, AttentionShape};
pub use crate::ops::candidates::{Candidate, CandidateArgs, Noise};
pub use crate::ops::cross_entropy::{CrossEntropyArgs, CrossEntropyBackwardArgs};
pub use crate::ops::matmul::{MatmulArgs, Rhs};
pub use crate::ops::moe::{
    ExpertGradientArgs, ExpertRows, ExpertWeights, ExpertsArgs, ExpertsBackwardArgs, RouteArgs,
    RouteBackwardArgs, Router, RouterRule,
};
pub use crate::ops::rms_norm::{RmsNormArgs, RmsNormBackwardArgs};
pub use crate::ops::rope::RopeArgs;
pub use crate::ops::swiglu::{SwigluArgs, SwigluBackwardArgs};
pub use crate::quantize::RowCodes;
pub use crate::storage::{Buffer, DeviceMemory, Storage};

/// A weight matrix in the layout of the backend's best kernel, made by [`Backend::pack`].
pub trait PackedWeight: Debug + Send + Sync {
    /// Rows of the weight (output features `N`).
    fn n(&self) -> usize;
    /// Columns of the weight (input features `K`).
    fn k(&self) -> usize;
    /// Bytes in memory.
    fn bytes(&self) -> usize;
    /// For the backend to find its own type again.
    fn as_any(&self) -> &dyn Any;
}

/// Writes the given rows of a weight as `f32`.
pub type FillRows<'a> = &'a (dyn Fn(Range<usize>, &mut [f32]) + Sync);

/// How a file stores the rows of a weight: in blocks of values that share scales.
#[derive(Debug, Clone, Copy)]
pub struct BlockFormat {
    /// Values of a block.
    pub length: usize,
    /// Bytes of a block.
    pub bytes: usize,
    /// Writes the values of a block.
    pub widen: fn(&[u8], &mut [f32]),
    /// The integers that the values are made of, where they can be multiplied as such.
    pub integers: Option<BlockIntegers>,
}

/// The integers of a block: groups of values that are `scale * code + minimum`.
#[derive(Debug, Clone, Copy)]
pub struct BlockIntegers {
    /// Values of a group: 16 or 32.
    pub group: usize,
    /// What the codes are.
    pub codes: Codes,
    /// Is taken off unsigned codes, which have no minimums then; else 0.
    pub offset: u8,
    /// Writes the integers of whole blocks, as many as there are codes.
    pub read: fn(&[u8], &mut GroupCodes<'_>),
}

/// The range of codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codes {
    /// From 0 to 15.
    UpTo15,
    /// From 0 to 31.
    UpTo31,
    /// From 0 to 63.
    UpTo63,
    /// From -128 to 127, without minimums.
    Signed,
}

impl BlockIntegers {
    /// Whether a value is `scale * code + minimum`, and not `scale * (code - offset)`.
    #[must_use]
    pub fn has_minimums(&self) -> bool {
        self.codes != Codes::Signed && self.offset == 0
    }
}

/// Where the integers of blocks go.
#[derive(Debug)]
pub struct GroupCodes<'a> {
    /// One a value; signed ones in two's complement.
    pub codes: &'a mut [u8],
    /// One a group.
    pub scales: &'a mut [f32],
    /// One a group, of codes that have them.
    pub minimums: &'a mut [f32],
}

impl BlockFormat {
    /// Writes the values of whole blocks.
    pub fn values(&self, bytes: &[u8], out: &mut [f32]) {
        let blocks = bytes.chunks_exact(self.bytes);
        for (block, out) in blocks.zip(out.chunks_exact_mut(self.length)) {
            (self.widen)(block, out);
        }
    }
}

/// Writes the bytes of the given rows of a weight, whole blocks one behind the other.
pub type FillBytes<'a> = &'a (dyn Fn(Range<usize>, &mut [u8]) + Sync);

/// Writes the codes of the given rows of a weight.
pub type FillCodes<'a> = &'a (dyn Fn(Range<usize>, RowCodes<'_>) + Sync);

/// The ops of a device. All methods are deterministic, and on the CPU independent of the number
/// of threads. Functions that a backend has beside them find its own type by [`Any`].
pub trait Backend: Any + Send + Sync {
    /// Short name for messages, such as `cpu(avx512, 2 threads)`.
    fn name(&self) -> String;

    /// Memory of `bytes` bytes with unspecified contents.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`], or if the device fails.
    fn allocate(&self, bytes: usize) -> Result<Storage>;

    /// `c = a b` or `c += a b`.
    ///
    /// # Errors
    /// If an operand is on another device or not in a supported layout.
    fn matmul(&self, args: MatmulArgs<'_>) -> Result<()>;

    /// `outputs[i] = a weights[i]ᵀ`: several products of one left operand `[M, K]`, which is
    /// prepared once.
    ///
    /// # Errors
    /// As [`Self::matmul`].
    fn matmul_each(
        &self,
        a: &Tensor,
        weights: &[&Arc<dyn PackedWeight>],
        outputs: &mut [Tensor],
        precision: Precision,
    ) -> Result<()>;

    /// Packs a weight `[N, K]` for products `x wᵀ`. It need not be in memory: `fill` is asked for
    /// some rows at a time, on any worker.
    ///
    /// # Errors
    /// If there is no room.
    fn pack(
        &self,
        shape: [usize; 2],
        precision: Precision,
        fill: FillRows<'_>,
    ) -> Result<Arc<dyn PackedWeight>>;

    /// [`Self::pack`] for a weight `[N, K]` whose codes are known.
    ///
    /// # Errors
    /// As [`Self::pack`].
    fn pack_codes(
        &self,
        shape: [usize; 2],
        precision: Precision,
        fill: FillCodes<'_>,
    ) -> Result<Arc<dyn PackedWeight>>;

    /// Whether weights can stay in the blocks of a file, see [`Self::pack_blocks`].
    fn keeps_blocks(&self) -> bool {
        false
    }

    /// [`Self::pack`] for a weight `[N, K]` of each of `E` experts (or of one layer, of one), whose rows
    /// are blocks of a file, `shape` being `[E, N, K]` and `K` a multiple of a block: they are kept as
    /// they are. In [`Precision::Blocks`] their integers are multiplied, if they have some; else they
    /// are widened with each product, the results of which are those of the values. `None`: this
    /// device does not, or not for products of this precision.
    fn pack_blocks(
        &self,
        _shape: [usize; 3],
        _precision: Precision,
        _format: BlockFormat,
        _fill: FillBytes<'_>,
    ) -> Option<Arc<dyn PackedWeight>> {
        None
    }

    /// The codes that [`Self::pack`] makes of rows of `k` values, as many as there are scales.
    ///
    /// # Errors
    /// If the device fails.
    fn quantize_rows(
        &self,
        precision: Precision,
        values: &[f32],
        k: usize,
        out: RowCodes<'_>,
    ) -> Result<()>;

    /// `y[i] = table[ids[i]]`; also gathers rows of activations.
    ///
    /// # Errors
    /// If an operand is in an unsupported layout.
    fn embedding(&self, table: &Tensor, ids: &[u32], y: &mut Tensor) -> Result<()>;

    /// `table[first + i] = x[i]`.
    ///
    /// # Errors
    /// If an operand is in an unsupported layout.
    fn write_rows(&self, table: &mut Tensor, first: usize, x: &Tensor) -> Result<()>;

    /// `dtable[ids[i]] += dy[i]`.
    ///
    /// # Errors
    /// If an operand is in an unsupported layout.
    fn embedding_backward(&self, dy: &Tensor, ids: &[u32], dtable: &mut Tensor) -> Result<()>;

    /// `y = x + z`, all of one shape, or `z` a row `[D]` that is added to every row of `x`.
    ///
    /// # Errors
    /// If an operand is in an unsupported layout.
    fn add(&self, x: &Tensor, z: &Tensor, y: &mut Tensor) -> Result<()>;

    /// `y += x`.
    ///
    /// # Errors
    /// If an operand is in an unsupported layout.
    fn add_into(&self, x: &Tensor, y: &mut Tensor) -> Result<()>;

    /// `y = a x + b y`; `y` is not read if `b` is 0.
    ///
    /// # Errors
    /// If an operand is in an unsupported layout.
    fn axpby(&self, a: f32, x: &Tensor, b: f32, y: &mut Tensor) -> Result<()>;

    /// `y[c] += sum_r x[r, c]`: the gradient of a bias.
    ///
    /// # Errors
    /// If an operand is in an unsupported layout.
    fn column_sum(&self, x: &Tensor, y: &mut Tensor) -> Result<()>;

    /// Root-mean-square normalization.
    ///
    /// # Errors
    /// If an operand is in an unsupported layout.
    fn rms_norm(&self, args: RmsNormArgs<'_>) -> Result<()>;

    /// Gradient of [`Backend::rms_norm`].
    ///
    /// # Errors
    /// If an operand is in an unsupported layout.
    fn rms_norm_backward(&self, args: RmsNormBackwardArgs<'_>) -> Result<()>;

    /// Rotary position embedding, or its inverse (the gradient).
    ///
    /// # Errors
    /// If an operand is in an unsupported layout.
    fn rope(&self, args: RopeArgs<'_>) -> Result<()>;

    /// Fused attention.
    ///
    /// # Errors
    /// If an operand is in an unsupported layout.
    fn attention(&self, args: AttentionArgs<'_>) -> Result<()>;

    /// Type in which attention that records reads queries, keys and values, and writes its output,
    /// fastest in this precision, its gradients being `f32`: `bf16` or `f32`.
    fn attention_dtype(&self, precision: Precision, head_dim: usize) -> DType;

    /// In which precision the device computes the gradient of attention where `precision` is asked
    /// for. The forward pass of training is of the same: the gradient recomputes its probabilities.
    fn attention_gradient(&self, precision: Precision) -> Precision;

    /// Gradient of [`Backend::attention`], recomputing the probabilities.
    ///
    /// # Errors
    /// If an operand is in an unsupported layout.
    fn attention_backward(&self, args: AttentionBackwardArgs<'_>) -> Result<()>;

    /// `y = silu(gate) * up`.
    ///
    /// # Errors
    /// If an operand is in an unsupported layout.
    fn swiglu(&self, args: SwigluArgs<'_>) -> Result<()>;

    /// Gradient of [`Backend::swiglu`].
    ///
    /// # Errors
    /// If an operand is in an unsupported layout.
    fn swiglu_backward(&self, args: SwigluBackwardArgs<'_>) -> Result<()>;

    /// Packs a weight `[N, K]` of each of `E` experts, `shape` being `[E, N, K]`. As
    /// [`Self::pack`], for rows of the stack `[E * N, K]`; only [`Self::experts`] takes it.
    ///
    /// # Errors
    /// As [`Self::pack`].
    fn pack_experts(
        &self,
        shape: [usize; 3],
        precision: Precision,
        fill: FillRows<'_>,
    ) -> Result<Arc<dyn PackedWeight>>;

    /// [`Self::pack_experts`] for weights whose codes are known.
    ///
    /// # Errors
    /// As [`Self::pack`].
    fn pack_expert_codes(
        &self,
        shape: [usize; 3],
        precision: Precision,
        fill: FillCodes<'_>,
    ) -> Result<Arc<dyn PackedWeight>>;

    /// Chooses the experts of each token.
    ///
    /// # Errors
    /// If an operand is in an unsupported layout.
    fn route(&self, args: RouteArgs<'_>) -> Result<()>;

    /// Gradient of [`Backend::route`].
    ///
    /// # Errors
    /// If an operand is in an unsupported layout.
    fn route_backward(&self, args: RouteBackwardArgs<'_>) -> Result<()>;

    /// The weighted sum of the experts of each token.
    ///
    /// # Errors
    /// If an operand is in an unsupported layout, or packed for another backend or precision.
    fn experts(&self, args: ExpertsArgs<'_>) -> Result<()>;

    /// Gradient of [`Backend::experts`], but for the experts' weights.
    ///
    /// # Errors
    /// If an operand is in an unsupported layout.
    fn experts_backward(&self, args: ExpertsBackwardArgs<'_>) -> Result<()>;

    /// `dw[e] += sum_r dy[r]ᵀ x[r]` over the rows of each expert: the gradient of a weight.
    ///
    /// # Errors
    /// If an operand is in an unsupported layout.
    fn expert_gradient(&self, args: ExpertGradientArgs<'_>) -> Result<()>;

    /// LM head fused with cross-entropy, in tiles over the vocabulary.
    ///
    /// # Errors
    /// If an operand is in an unsupported layout.
    fn cross_entropy(&self, args: CrossEntropyArgs<'_>) -> Result<()>;

    /// Gradient of [`Backend::cross_entropy`], recomputing the logits tile by tile.
    ///
    /// # Errors
    /// If an operand is in an unsupported layout.
    fn cross_entropy_backward(&self, args: CrossEntropyBackwardArgs<'_>) -> Result<()>;

    /// LM head fused with the choice of a token per row, in tiles over the vocabulary.
    ///
    /// # Errors
    /// If an operand is in an unsupported layout.
    fn candidates(&self, args: CandidateArgs<'_>) -> Result<Vec<Candidate>>;

    /// One AdamW update of one parameter.
    ///
    /// # Errors
    /// If an operand is in an unsupported layout.
    fn adamw(&self, args: AdamWArgs<'_>) -> Result<()>;

    /// Multiplies small operands that never leave the nearest memory, `rounds` times on every
    /// worker, and returns the FLOPs that it took. Its time gives the machine's GEMM peak,
    /// the roof of a roofline.
    ///
    /// # Errors
    /// If the device fails.
    fn gemm_peak(&self, precision: Precision, rounds: usize) -> Result<u64>;

    /// A recorder, if the device gains from one: a GPU does if it computes faster than ops are
    /// launched one by one.
    fn recorder(&self) -> Option<Box<dyn Recorder>>;

    /// What the device can do beyond the ops for a crate above this one, as the type of that crate;
    /// `None` if it can't.
    fn extension(&self, of: TypeId) -> Option<Box<dyn Any>>;

    /// Type of tensors that only products take: `bf16` if the device multiplies them in this
    /// precision as they are, else `f32`.
    fn operand_dtype(&self, precision: Precision) -> DType;

    /// `y[r, c] = bf16(x[r, c])`, to the nearest, ties to even, for a device whose operands are
    /// `bf16`. Rows of `y` may have gaps between them, which become zero.
    ///
    /// # Errors
    /// If a tensor is in an unsupported layout.
    fn round(&self, x: &Tensor, y: &mut Tensor) -> Result<()>;

    /// Sum of squares of all elements of each tensor, accumulated in `f64`.
    ///
    /// # Errors
    /// If a tensor is in an unsupported layout.
    fn sums_of_squares(&self, tensors: &[&Tensor]) -> Result<Vec<f64>>;

    /// The most memory of its own that the device has held for this backend; none if its memory is
    /// that of the process.
    fn peak_bytes(&self) -> Option<u64>;
}
