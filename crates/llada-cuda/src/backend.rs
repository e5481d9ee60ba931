//! The list of ops: each method hands its arguments to the file of its op.

use std::any::{Any, TypeId};
use std::sync::Arc;

use llada_diffusion::DenoiserExtension;
use llada_tensor::backend::{
    AdamWArgs, AttentionArgs, AttentionBackwardArgs, Backend, Candidate, CandidateArgs,
    CrossEntropyArgs, CrossEntropyBackwardArgs, FillCodes, FillRows, MatmulArgs, PackedWeight,
    Recorder, RmsNormArgs, RmsNormBackwardArgs, RopeArgs, RowCodes, Storage, SwigluArgs,
    SwigluBackwardArgs,
};
use llada_tensor::{DType, Precision, Result, Tensor};

use crate::context::Context;
use crate::graphs::Graphs;
use crate::ops::{
    adamw, add, attention, candidates, cross_entropy, embedding, matmul, quantized, rms_norm, rope,
    swiglu,
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
    fn name(&self) -> String {
        self.cx.name().to_owned()
    }
    fn allocate(&self, bytes: usize) -> Result<Storage> {
        let memory = self.cx.allocator().take(bytes)?;
        Ok(Storage::Device(Box::new(memory)))
    }
    fn matmul(&self, args: MatmulArgs<'_>) -> Result<()> {
        matmul::matmul(&self.cx, args)
    }
    fn matmul_each(
        &self,
        a: &Tensor,
        weights: &[&Arc<dyn PackedWeight>],
        outputs: &mut [Tensor],
        precision: Precision,
    ) -> Result<()> {
        matmul::matmul_each(&self.cx, a, weights, outputs, precision)
    }
    fn pack(
        &self,
        shape: [usize; 2],
        precision: Precision,
        fill: FillRows<'_>,
    ) -> Result<Arc<dyn PackedWeight>> {
        matmul::pack(&self.cx, shape, precision, fill)
    }
    fn pack_codes(
        &self,
        shape: [usize; 2],
        precision: Precision,
        fill: FillCodes<'_>,
    ) -> Result<Arc<dyn PackedWeight>> {
        matmul::pack_codes(&self.cx, shape, precision, fill)
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
    fn embedding(&self, table: &Tensor, ids: &[u32], y: &mut Tensor) -> Result<()> {
        embedding::embedding(&self.cx, table, ids, y)
    }
    fn write_rows(&self, table: &mut Tensor, first: usize, x: &Tensor) -> Result<()> {
        embedding::write_rows(&self.cx, table, first, x)
    }
    fn embedding_backward(&self, dy: &Tensor, ids: &[u32], dtable: &mut Tensor) -> Result<()> {
        embedding::embedding_backward(&self.cx, dy, ids, dtable)
    }
    fn add(&self, x: &Tensor, z: &Tensor, y: &mut Tensor) -> Result<()> {
        add::add(&self.cx, x, z, y)
    }
    fn add_into(&self, x: &Tensor, y: &mut Tensor) -> Result<()> {
        add::add_into(&self.cx, x, y)
    }
    fn axpby(&self, a: f32, x: &Tensor, b: f32, y: &mut Tensor) -> Result<()> {
        add::axpby(&self.cx, a, x, b, y)
    }
    fn column_sum(&self, x: &Tensor, y: &mut Tensor) -> Result<()> {
        add::column_sum(&self.cx, x, y)
    }
    fn rms_norm(&self, args: RmsNormArgs<'_>) -> Result<()> {
        rms_norm::rms_norm(&self.cx, args)
    }
    fn rms_norm_backward(&self, args: RmsNormBackwardArgs<'_>) -> Result<()> {
        rms_norm::rms_norm_backward(&self.cx, args)
    }
    fn rope(&self, args: RopeArgs<'_>) -> Result<()> {
        rope::rope(&self.cx, args)
    }
    fn attention(&self, args: AttentionArgs<'_>) -> Result<()> {
        attention::attention(&self.cx, args)
    }
    fn attention_gradient(&self, precision: Precision) -> Precision {
        precision
    }
    fn attention_dtype(&self, precision: Precision, head_dim: usize) -> DType {
        attention::dtype(precision, head_dim)
    }
    fn attention_backward(&self, args: AttentionBackwardArgs<'_>) -> Result<()> {
        attention::attention_backward(&self.cx, args)
    }
    fn swiglu(&self, args: SwigluArgs<'_>) -> Result<()> {
        swiglu::swiglu(&self.cx, args)
    }
    fn swiglu_backward(&self, args: SwigluBackwardArgs<'_>) -> Result<()> {
        swiglu::swiglu_backward(&self.cx, args)
    }
    fn cross_entropy(&self, args: CrossEntropyArgs<'_>) -> Result<()> {
        cross_entropy::cross_entropy(&self.cx, args)
    }
    fn cross_entropy_backward(&self, args: CrossEntropyBackwardArgs<'_>) -> Result<()> {
        cross_entropy::cross_entropy_backward(&self.cx, args)
    }
    fn candidates(&self, args: CandidateArgs<'_>) -> Result<Vec<Candidate>> {
        candidates::candidates(&self.cx, args)
    }
    fn adamw(&self, args: AdamWArgs<'_>) -> Result<()> {
        adamw::adamw(&self.cx, args)
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
            Precision::Bf16 => DType::Bf16,
            // Integers are multiplied with rotated rows.
            Precision::F32 | Precision::Int8 | Precision::Int4 => DType::F32,
        }
    }
    fn round(&self, x: &Tensor, y: &mut Tensor) -> Result<()> {
        matmul::round(&self.cx, x, y)
    }
    fn sums_of_squares(&self, tensors: &[&Tensor]) -> Result<Vec<f64>> {
        adamw::sums_of_squares(&self.cx, tensors)
    }
}
