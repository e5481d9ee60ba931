//! The CPU backend.

mod adamw;
mod add;
mod attention;
mod candidates;
mod context;
mod cross_entropy;
mod embedding;
pub(crate) mod level;
mod matmul;
mod panels;
mod peak;
mod quantized;
mod rms_norm;
mod rope;
mod simd;
mod swiglu;
mod tasks;
mod workers;

use std::any::{Any, TypeId};
use std::sync::Arc;

use crate::backend::{
    AdamWArgs, AttentionArgs, AttentionBackwardArgs, Backend, Candidate, CandidateArgs,
    CrossEntropyArgs, CrossEntropyBackwardArgs, FillCodes, FillRows, MatmulArgs, PackedWeight,
    Recorder, RmsNormArgs, RmsNormBackwardArgs, RopeArgs, RowCodes, Storage, SwigluArgs,
    SwigluBackwardArgs,
};
use crate::{CpuConfig, CpuLevel, DType, Error, Pool, Precision, Result, Tensor};
use context::Context;
use quantized::Source;
use workers::Workers;

#[derive(Debug)]
pub(crate) struct CpuBackend {
    level: CpuLevel,
    workers: Workers,
    pool: Arc<Pool>,
}

impl CpuBackend {
    pub(crate) fn new(config: CpuConfig) -> Result<Self> {
        let level = CpuLevel::resolve(config.level)?;
        Ok(Self {
            level,
            workers: Workers::new(config.threads)?,
            pool: Arc::new(Pool::default()),
        })
    }

    fn context(&self) -> Context<'_> {
        Context {
            level: self.level,
            workers: &self.workers,
            pool: &self.pool,
        }
    }
}

impl Backend for CpuBackend {
    fn name(&self) -> String {
        format!(
            "cpu({}, {} threads)",
            self.level.name(),
            self.workers.threads()
        )
    }
    fn allocate(&self, bytes: usize) -> Result<Storage> {
        Ok(Storage::Host(self.pool.take(bytes)))
    }
    fn matmul(&self, args: MatmulArgs<'_>) -> Result<()> {
        matmul::matmul(self.context(), args)
    }
    fn matmul_each(
        &self,
        a: &Tensor,
        weights: &[&Arc<dyn PackedWeight>],
        outputs: &mut [Tensor],
        precision: Precision,
    ) -> Result<()> {
        matmul::matmul_each(self.context(), a, weights, outputs, precision)
    }
    fn pack(
        &self,
        shape: [usize; 2],
        precision: Precision,
        fill: FillRows<'_>,
    ) -> Result<Arc<dyn PackedWeight>> {
        matmul::pack(self.context(), shape, precision, fill)
    }
    fn pack_codes(
        &self,
        shape: [usize; 2],
        precision: Precision,
        fill: FillCodes<'_>,
    ) -> Result<Arc<dyn PackedWeight>> {
        quantized::pack(self.context(), shape, precision, Source::Codes(fill))
    }
    fn quantize_rows(
        &self,
        precision: Precision,
        values: &[f32],
        k: usize,
        out: RowCodes<'_>,
    ) -> Result<()> {
        quantized::quantize_rows(self.context(), precision, values, k, out);
        Ok(())
    }
    fn embedding(&self, table: &Tensor, ids: &[u32], y: &mut Tensor) -> Result<()> {
        embedding::embedding(self.context(), table, ids, y)
    }
    fn write_rows(&self, table: &mut Tensor, first: usize, x: &Tensor) -> Result<()> {
        embedding::write_rows(table, first, x)
    }
    fn embedding_backward(&self, dy: &Tensor, ids: &[u32], dtable: &mut Tensor) -> Result<()> {
        embedding::embedding_backward(self.context(), dy, ids, dtable)
    }
    fn add(&self, x: &Tensor, z: &Tensor, y: &mut Tensor) -> Result<()> {
        add::add(self.context(), x, z, y)
    }
    fn add_into(&self, x: &Tensor, y: &mut Tensor) -> Result<()> {
        add::add_into(self.context(), x, y)
    }
    fn axpby(&self, a: f32, x: &Tensor, b: f32, y: &mut Tensor) -> Result<()> {
        add::axpby(self.context(), a, x, b, y)
    }
    fn column_sum(&self, x: &Tensor, y: &mut Tensor) -> Result<()> {
        add::column_sum(self.context(), x, y)
    }
    fn rms_norm(&self, args: RmsNormArgs<'_>) -> Result<()> {
        rms_norm::rms_norm(self.context(), args)
    }
    fn rms_norm_backward(&self, args: RmsNormBackwardArgs<'_>) -> Result<()> {
        rms_norm::rms_norm_backward(self.context(), args)
    }
    fn rope(&self, args: RopeArgs<'_>) -> Result<()> {
        rope::rope(self.context(), args)
    }
    fn attention(&self, args: AttentionArgs<'_>) -> Result<()> {
        attention::attention(self.context(), args)
    }
    fn attention_dtype(&self, _precision: Precision, _head_dim: usize) -> DType {
        DType::F32
    }
    fn attention_gradient(&self, _precision: Precision) -> Precision {
        Precision::F32
    }

    fn attention_backward(&self, args: AttentionBackwardArgs<'_>) -> Result<()> {
        attention::attention_backward(self.context(), args)
    }
    fn swiglu(&self, args: SwigluArgs<'_>) -> Result<()> {
        swiglu::swiglu(self.context(), args)
    }
    fn swiglu_backward(&self, args: SwigluBackwardArgs<'_>) -> Result<()> {
        swiglu::swiglu_backward(self.context(), args)
    }
    fn cross_entropy(&self, args: CrossEntropyArgs<'_>) -> Result<()> {
        cross_entropy::cross_entropy(self.context(), args)
    }
    fn cross_entropy_backward(&self, args: CrossEntropyBackwardArgs<'_>) -> Result<()> {
        cross_entropy::cross_entropy_backward(self.context(), args)
    }
    fn candidates(&self, args: CandidateArgs<'_>) -> Result<Vec<Candidate>> {
        candidates::candidates(self.context(), args)
    }
    fn adamw(&self, args: AdamWArgs<'_>) -> Result<()> {
        adamw::adamw(self.context(), args)
    }
    fn gemm_peak(&self, precision: Precision, rounds: usize) -> Result<u64> {
        Ok(peak::gemm_peak(self.context(), precision, rounds))
    }
    fn recorder(&self) -> Option<Box<dyn Recorder>> {
        None
    }
    fn extension(&self, _of: TypeId) -> Option<Box<dyn Any>> {
        None
    }
    fn operand_dtype(&self, _precision: Precision) -> DType {
        DType::F32
    }
    fn round(&self, _x: &Tensor, _y: &mut Tensor) -> Result<()> {
        let (op, what) = ("round", "operands are rounded while they are packed");
        Err(Error::InvalidArgument { op, what })
    }
    fn sums_of_squares(&self, tensors: &[&Tensor]) -> Result<Vec<f64>> {
        let sum = |x: &&Tensor| adamw::sum_of_squares(self.context(), x);
        tensors.iter().map(sum).collect()
    }
    fn peak_bytes(&self) -> Option<u64> {
        None
    }
}
