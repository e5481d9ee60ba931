//! The ops of a device: those of the list are in a file each, see [`llada_tensor::delegate_ops`].

use std::any::{Any, TypeId};
use std::sync::Arc;

use llada_diffusion::DenoiserExtension;
use llada_tensor::backend::{Backend, Recorder, RowCodes, Storage};
use llada_tensor::{DType, Precision, Result, Tensor};

use crate::context::Context;
use crate::graphs::Graphs;
use crate::ops::{
    adamw, add, attention, candidates, cross_entropy, embedding, matmul, moe, quantized, rms_norm,
    rope, swiglu,
};

/// A CUDA device.
#[derive(Debug)]
pub(crate) struct CudaBackend {
    cx: Arc<Context>,
}

impl CudaBackend {
    pub(crate) fn new(cx: Context) -> Self {
        Self { cx: Arc::new(cx) }
    }
}

impl Backend for CudaBackend {
    llada_tensor::delegate_ops!(self => &self.cx);

    fn name(&self) -> String {
        self.cx.name().to_owned()
    }
    fn allocate(&self, bytes: usize) -> Result<Storage> {
        let memory = self.cx.allocator().take(bytes)?;
        Ok(Storage::Device(Box::new(memory)))
    }
    fn quantize_rows(
        &self,
        precision: Precision,
        values: &[f32],
        k: usize,
        out: RowCodes<'_>,
    ) -> Result<()> {
        quantized::quantize_rows(&self.cx, precision, values, k, out)
    }
    fn attention_gradient(&self, precision: Precision) -> Precision {
        precision
    }
    fn attention_dtype(&self, precision: Precision, head_dim: usize) -> DType {
        attention::dtype(precision, head_dim)
    }
    fn gemm_peak(&self, precision: Precision, rounds: usize) -> Result<u64> {
        matmul::gemm_peak(&self.cx, precision, rounds)
    }
    fn recorder(&self) -> Option<Box<dyn Recorder>> {
        Some(Box::new(Graphs::new(Arc::clone(&self.cx))))
    }
    fn extension(&self, of: TypeId) -> Option<Box<dyn Any>> {
        (of == TypeId::of::<DenoiserExtension>()).then(|| {
            let graphs = Graphs::new(Arc::clone(&self.cx));
            Box::new(DenoiserExtension(Box::new(graphs))) as Box<dyn Any>
        })
    }
    fn peak_bytes(&self) -> Option<u64> {
        Some(self.cx.allocator().peak_bytes())
    }
    fn operand_dtype(&self, precision: Precision) -> DType {
        match precision {
            Precision::Bf16 | Precision::Blocks => DType::Bf16,
            // Integers are multiplied with rotated rows.
            Precision::F32 | Precision::Int8 | Precision::Int4 => DType::F32,
        }
    }
    fn round(&self, x: &Tensor, y: &mut Tensor) -> Result<()> {
        matmul::round(&self.cx, x, y)
    }
}
