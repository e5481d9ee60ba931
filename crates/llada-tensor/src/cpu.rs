//! The CPU backend.

#![expect(
    clippy::needless_pass_by_value,
    reason = "argument structs hold outputs by mutable reference"
)]

mod adamw;
mod add;
mod attention;
mod blocks;
mod candidates;
mod context;
mod cross_entropy;
mod embedding;
pub(crate) mod level;
mod matmul;
mod moe;
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

use crate::backend::{Backend, BlockFormat, FillBytes, PackedWeight, Recorder, RowCodes, Storage};
use crate::{CpuConfig, CpuLevel, DType, Pool, Precision, Result, Tensor};
use context::Context;
use panels::Kind;
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
    crate::delegate_ops!(self => self.context());

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
    fn keeps_blocks(&self) -> bool {
        true
    }
    fn pack_blocks(
        &self,
        shape: [usize; 3],
        precision: Precision,
        format: BlockFormat,
        fill: FillBytes<'_>,
    ) -> Option<Arc<dyn PackedWeight>> {
        let pack = || blocks::pack_blocks(self.context(), shape, precision, format, fill);
        (!precision.is_integer()).then(pack)
    }
    fn attention_dtype(&self, _precision: Precision, _head_dim: usize) -> DType {
        DType::F32
    }
    fn attention_gradient(&self, precision: Precision) -> Precision {
        match self.operand_dtype(precision) {
            DType::Bf16 => Precision::Bf16,
            DType::F32 => Precision::F32,
        }
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
    fn operand_dtype(&self, precision: Precision) -> DType {
        match precision {
            Precision::Bf16 if Kind::of(self.level, precision).is_tiles() => DType::Bf16,
            _ => DType::F32,
        }
    }
    fn round(&self, x: &Tensor, y: &mut Tensor) -> Result<()> {
        matmul::round(self.context(), x, y)
    }
    fn peak_bytes(&self) -> Option<u64> {
        None
    }
}
