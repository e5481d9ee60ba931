//! What only a library of products needs, with the kernels in its place, and how libraries see
//! operands.

use bytemuck::cast_slice;
use llada_tensor::DType;
use llada_tensor::backend::DeviceMemory as _;

#[cfg(not(real_gpu))]
use super::CublasLt;
use super::plain::{PlainGemm, scaled};
use crate::context::{Context, Gemm as _};
use crate::driver::{CudaConfig, open};
use crate::memory::Scratch;
use crate::product::{GemmArgs, Operand, Write};

fn context() -> Context {
    open(0, CudaConfig::default()).expect("the device under test")
}

fn upload(cx: &Context, values: &[f32]) -> Scratch {
    let mut memory = cx.scratch(size_of_val(values)).expect("a little memory");
    memory.write(0, cast_slice(values)).expect("it fits");
    memory
}

/// Small integers, so that every order of sums is exact.
fn integers(n: usize, factor: usize) -> Vec<f32> {
    (0..n).map(|i| (i * factor % 15) as f32 - 7.0).collect()
}

#[test]
fn scales_of_columns_after_a_product_are_those_in_it() {
    let cx = context();
    let [batch, m, n, k, row] = [2, 5, 37, 9, 40];
    let a = upload(&cx, &integers(batch * m * k, 7));
    let b = upload(&cx, &integers(batch * k * n, 11));
    let scales = upload(&cx, &integers(n, 4));
    let before = integers(batch * m * row, 13);
    for accumulate in [false, true] {
        let run = |multiply: &dyn Fn(&GemmArgs)| {
            let c = upload(&cx, &before);
            multiply(&GemmArgs {
                dtype: DType::F32,
                a: Operand {
                    batch_stride: m * k,
                    ..Operand::rows(a.pointer(), k)
                },
                b: Operand {
                    batch_stride: k * n,
                    ..Operand::rows(b.pointer(), n)
                },
                c: c.pointer(),
                c_row_stride: row,
                c_batch_stride: m * row,
                m,
                n,
                k,
                batch,
                column_scales: Some(scales.pointer()),
                write: Write::f32(accumulate),
            });
            let mut out = vec![0.0_f32; before.len()];
            cx.download(&c, &mut out).unwrap();
            out
        };
        let within = run(&|args| PlainGemm.gemm(&cx, args).unwrap());
        let after = run(&|args| scaled(&PlainGemm, &cx, args, scales.pointer()).unwrap());
        assert_eq!(within, after);
        assert_ne!(within, before);
    }
}

/// The software device has no cuBLASLt.
#[cfg(not(real_gpu))]
#[test]
fn a_missing_library_is_named() {
    let error = CublasLt::new(context().allocator()).unwrap_err();
    assert!(error.to_string().contains("libcublasLt"), "{error}");
}

#[test]
fn the_library_can_be_left_out() {
    let read = |value: &'static str| CudaConfig::from_variables(move |_| Some(value.into()));
    let cx = open(0, read("0")).expect("the device under test");
    let expected = "own products: LLADA_CUBLASLT=0";
    assert!(cx.name().ends_with(expected), "{}", cx.name());
    assert!(read("1").without_cublaslt.is_none());
    assert!(
        CudaConfig::from_variables(|_| None)
            .without_cublaslt
            .is_none()
    );
}
