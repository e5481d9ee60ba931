//! Products of bf16 by cuBLASLt, which is loaded at run time.
//!
//! cuBLAS has columns inside and computes `D = op(A) op(B)`; `c` of shape `[M, N]` with columns
//! inside is its transpose, so that `A` is `b` and `B` is `a`, and `D` is `[N, M]`.
//!
//! The software device has no cuBLASLt: only a GPU shows that this works.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::{
    cublasComputeType_t, cublasLtHandle_t, cublasLtMatmulAlgo_t, cublasLtMatmulDesc_t,
    cublasLtMatmulDescAttributes_t, cublasLtMatmulPreference_t,
    cublasLtMatmulPreferenceAttributes_t, cublasLtMatrixLayout_t, cublasLtMatrixLayoutAttribute_t,
    cudaDataType, is_culib_present,
};
use llada_tensor::{DType, Error, Result};

use super::plain::{PlainGemm, scaled};
use crate::context::{Context, Gemm};
use crate::error::unusable;
use crate::memory::Allocator;
use crate::product::{GemmArgs, Operand, Write};

/// Memory that an algorithm may use, as NVIDIA advises for Hopper.
const WORKSPACE_BYTES: usize = 32 << 20;
/// Shapes whose algorithms are kept; when there are more, all are found again.
const MAX_PLANS: usize = 512;

/// NVIDIA's library of matrix products.
pub(crate) struct CublasLt {
    handle: cublasLtHandle_t,
    /// What was found for each shape; nothing if the library has no algorithm for it.
    plans: Mutex<BTreeMap<Shape, Option<Plan>>>,
}

// SAFETY: the library's handles may be used from any thread; plans are used under the lock.
unsafe impl Send for CublasLt {}
// SAFETY: as above, and the handle itself is only read.
unsafe impl Sync for CublasLt {}

impl std::fmt::Debug for CublasLt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CublasLt").finish_non_exhaustive()
    }
}

impl CublasLt {
    /// Opens the library.
    ///
    /// # Errors
    /// [`Error::Device`] that names the library if it is not installed.
    pub(crate) fn new(allocator: &Allocator) -> Result<Self> {
        // SAFETY: loading the library runs its initializers, as in any CUDA program. A call into a
        // library that is missing would panic.
        if !unsafe { is_culib_present() } {
            let reason = "libcublasLt is not installed".to_owned();
            return Err(unusable(allocator.name(), "loading cuBLASLt", reason));
        }
        let _bound = allocator.bind()?;
        let handle = result::create_handle().map_err(said(allocator, "cublasLtCreate"))?;
        let plans = Mutex::default();
        Ok(Self { handle, plans })
    }

    /// The product without scales; `false` if the library has no algorithm for it.
    fn multiply(&self, cx: &Context, args: &GemmArgs, shape: Shape) -> Result<bool> {
        let workspace = cx.scratch(WORKSPACE_BYTES)?;
        // Before the plans are locked: it may wait for a thread that records, which needs them.
        let allocator = cx.allocator();
        let _bound = allocator.bind()?;
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if plans.len() >= MAX_PLANS && !plans.contains_key(&shape) {
            plans.clear();
        }
        let plan = match plans.entry(shape) {
            std::collections::btree_map::Entry::Occupied(found) => found.into_mut(),
            std::collections::btree_map::Entry::Vacant(room) => {
                room.insert(Plan::find(self.handle, &shape).map_err(said(allocator, "cublasLt"))?)
            }
        };
        let Some(plan) = plan else {
            return Ok(false);
        };
        let beta = match args.write {
            Write::Add => 1.0_f32,
            Write::Replace | Write::ReplaceBf16 => 0.0,
        };
        let alpha = 1.0_f32;
        let [a, b] = [args.b.pointer, args.a.pointer].map(|pointer| pointer as *const c_void);
        let c = args.c as *mut c_void;
        // SAFETY: the descriptors live as long as the plan, and say where the operands' elements
        // are, which the caller's tensors and scratch hold; the workspace goes back to the
        // allocator of the same stream.
        unsafe {
            result::matmul(
                self.handle,
                plan.product.0,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                a,
                plan.a.0,
                b,
                plan.b.0,
                c,
                plan.c.0,
                c,
                plan.c.0,
                &raw const plan.algorithm,
                workspace.pointer() as *mut c_void,
                WORKSPACE_BYTES,
                allocator.stream().cu_stream().cast(),
            )
        }
        .map_err(said(allocator, "cublasLtMatmul"))?;
        Ok(true)
    }
}

impl Gemm for CublasLt {
    fn gemm(&self, cx: &Context, args: &GemmArgs) -> Result<()> {
        if args.m == 0 || args.n == 0 || args.batch == 0 {
            return Ok(());
        }
        if args.k == 0 || args.dtype != DType::Bf16 {
            return PlainGemm.gemm(cx, args);
        }
        if let Some(scales) = args.column_scales {
            return scaled(self, cx, args, scales);
        }
        let done = match Shape::of(args) {
            Some(shape) => self.multiply(cx, args, shape)?,
            None => false,
        };
        match done {
            true => Ok(()),
            false => PlainGemm.gemm(cx, args),
        }
    }
}

impl Drop for CublasLt {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and nobody else has it.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// One operand as cuBLAS sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Side {
    /// Length of the axis whose neighbors are next to each other.
    inner: u64,
    outer: u64,
    leading: i64,
    batch_stride: i64,
    /// Whether the inner axis is that of the sum.
    k_inside: bool,
    /// Power of two that divides the address, at most 256.
    alignment: u32,
}

impl Side {
    /// `outer_size` is `M` or `N`; nothing if neither axis has neighbors next to each other.
    fn of(x: &Operand, outer: (usize, usize), k: (usize, usize)) -> Option<Self> {
        let k_inside = k.1 == 1 || k.0 == 1;
        let (inner, outer) = if k_inside { (k, outer) } else { (outer, k) };
        if inner.1 != 1 && inner.0 != 1 {
            return None;
        }
        let leading = if outer.0 == 1 { inner.0 } else { outer.1 };
        if leading < inner.0 {
            return None;
        }
        Some(Self {
            inner: inner.0 as u64,
            outer: outer.0 as u64,
            leading: i64::try_from(leading).ok()?,
            batch_stride: i64::try_from(x.batch_stride).ok()?,
            k_inside,
            alignment: alignment(x.pointer),
        })
    }
}

fn alignment(pointer: u64) -> u32 {
    1 << pointer.trailing_zeros().min(8)
}

/// All that an algorithm depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    a: Side,
    b: Side,
    c: Side,
    c_dtype: DType,
    batch: i32,
}

impl Shape {
    fn of(args: &GemmArgs) -> Option<Self> {
        let (m, n, k) = (args.m, args.n, args.k);
        let c = Operand {
            pointer: args.c,
            row_stride: args.c_row_stride,
            column_stride: 1,
            batch_stride: args.c_batch_stride,
        };
        Some(Self {
            a: Side::of(&args.a, (m, args.a.row_stride), (k, args.a.column_stride))?,
            b: Side::of(&args.b, (n, args.b.column_stride), (k, args.b.row_stride))?,
            c: Side::of(&c, (m, c.row_stride), (n, c.column_stride))?,
            c_dtype: args.write.dtype(),
            batch: i32::try_from(args.batch).ok()?,
        })
    }
}

/// Descriptors of a shape, and how to compute it.
struct Plan {
    product: Product,
    /// That of `b`.
    a: Layout,
    /// That of `a`.
    b: Layout,
    c: Layout,
    algorithm: cublasLtMatmulAlgo_t,
}

type Said<T> = std::result::Result<T, CublasError>;

impl Plan {
    /// Asks the library for its best algorithm, if it has one.
    fn find(handle: cublasLtHandle_t, shape: &Shape) -> Said<Option<Self>> {
        let operand_type = cudaDataType::CUDA_R_16BF;
        // `A` is [N, K] with columns inside: k inside is its transpose; `B` is [K, M].
        let product = Product::new(shape.b.k_inside, !shape.a.k_inside)?;
        let a = Layout::new(operand_type, &shape.b, shape.batch)?;
        let b = Layout::new(operand_type, &shape.a, shape.batch)?;
        let output_type = match shape.c_dtype {
            DType::F32 => cudaDataType::CUDA_R_32F,
            DType::Bf16 => operand_type,
        };
        let c = Layout::new(output_type, &shape.c, shape.batch)?;
        let preference = Preference::new(shape)?;
        // SAFETY: all descriptors live until the end of this function.
        let found = unsafe {
            result::get_matmul_algo_heuristic(handle, product.0, a.0, b.0, c.0, c.0, preference.0)
        };
        Ok(found.ok().map(|found| Self {
            product,
            a,
            b,
            c,
            algorithm: found.algo,
        }))
    }
}

/// A descriptor of `D = op(A) op(B)`.
struct Product(cublasLtMatmulDesc_t);

impl Product {
    fn new(transpose_a: bool, transpose_b: bool) -> Said<Self> {
        let compute = cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let product = Self(result::create_matmul_desc(
            compute,
            cudaDataType::CUDA_R_32F,
        )?);
        for (attribute, transpose) in [
            (
                cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA,
                transpose_a,
            ),
            (
                cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSB,
                transpose_b,
            ),
        ] {
            // `CUBLAS_OP_N` or `CUBLAS_OP_T` of cublas_api.h, which cudarc does not bind here.
            let operation = i32::from(transpose);
            let (value, bytes) = ((&raw const operation).cast(), size_of_val(&operation));
            // SAFETY: the descriptor lives, and the attribute is of this type.
            unsafe { result::set_matmul_desc_attribute(product.0, attribute, value, bytes) }?;
        }
        Ok(product)
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and nobody else has it.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

/// A descriptor of a batch of matrices.
struct Layout(cublasLtMatrixLayout_t);

impl Layout {
    fn new(dtype: cudaDataType, side: &Side, batch: i32) -> Said<Self> {
        let layout = result::create_matrix_layout(dtype, side.inner, side.outer, side.leading)?;
        let layout = Self(layout);
        layout.set(
            cublasLtMatrixLayoutAttribute_t::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
            &batch,
        )?;
        layout.set(
            cublasLtMatrixLayoutAttribute_t::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
            &side.batch_stride,
        )?;
        Ok(layout)
    }

    fn set<T>(&self, attribute: cublasLtMatrixLayoutAttribute_t, value: &T) -> Said<()> {
        let (pointer, bytes) = ((&raw const *value).cast(), size_of::<T>());
        // SAFETY: the descriptor lives, and both attributes are set with their own types.
        unsafe { result::set_matrix_layout_attribute(self.0, attribute, pointer, bytes) }
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and nobody else has it.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

/// What an algorithm may rely on.
struct Preference(cublasLtMatmulPreference_t);

impl Preference {
    fn new(shape: &Shape) -> Said<Self> {
        use cublasLtMatmulPreferenceAttributes_t as Attribute;
        let preference = Self(result::create_matmul_pref()?);
        preference.set(
            Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            &WORKSPACE_BYTES,
        )?;
        for (attribute, side) in [
            (
                Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                shape.b,
            ),
            (
                Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                shape.a,
            ),
            (
                Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                shape.c,
            ),
            (
                Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
                shape.c,
            ),
        ] {
            preference.set(attribute, &side.alignment)?;
        }
        Ok(preference)
    }

    fn set<T>(&self, attribute: cublasLtMatmulPreferenceAttributes_t, value: &T) -> Said<()> {
        let (pointer, bytes) = ((&raw const *value).cast(), size_of::<T>());
        // SAFETY: the descriptor lives; sizes are `usize` and alignments `u32`, as the library has.
        unsafe { result::set_matmul_pref_attribute(self.0, attribute, pointer, bytes) }
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and nobody else has it.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

fn said(allocator: &Allocator, call: &'static str) -> impl Fn(CublasError) -> Error {
    move |error| unusable(allocator.name(), call, format!("{:?}", error.0))
}

#[cfg(test)]
mod tests;
