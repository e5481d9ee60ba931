//! See `/kernels/attention.cu`.

use std::sync::Arc;

use cudarc::driver::sys::CUdevice_attribute;
use llada_kernels::args::{
    LladaAttentionArgs, LladaAttentionBackwardArgs, LladaAttentionPlaces, LladaAttentionRoundArgs,
};
use llada_tensor::backend::{AttentionArgs, AttentionBackwardArgs, AttentionShape};
use llada_tensor::{DType, Error, Precision, Result, Tensor};

use crate::context::Context;
use crate::launch::attention as plan;
use crate::launch::attention::{Multiprocessors, Sizes};
use crate::launch::narrow;
use crate::memory::Scratch;
use crate::ops::common_dtype;

const IMAGE: &str = "attention";
/// Bytes of the loads of the kernels that round.
const VECTOR_BYTES: u64 = 16;

/// The shape of a call on the device.
struct Places {
    sizes: Sizes,
    args: LladaAttentionPlaces,
    /// Elements from a token to the next, of queries and of keys.
    strides: [i64; 2],
    /// What the arguments point to.
    _arrays: [Arc<Scratch>; 2],
}

impl Places {
    fn new(cx: &Context, op: &'static str, q: &Tensor, shape: AttentionShape<'_>) -> Result<Self> {
        let head_dim = q.shape()[1] / shape.n_heads;
        let heads = [shape.n_heads, shape.n_kv_heads, head_dim];
        let sizes = Sizes::new(shape.offsets, shape.of_keys(), heads)?;
        let offsets = cx.upload(shape.offsets)?;
        let key_offsets = match shape.key_offsets {
            Some(of_keys) => cx.upload(of_keys)?,
            None => Arc::clone(&offsets),
        };
        // A block as long as the sequences hides nothing.
        let block_size = shape.block_size.map_or(0, |size| size.get());
        let block_size = if block_size < sizes.keys {
            block_size
        } else {
            0
        };
        #[expect(clippy::cast_precision_loss, reason = "a head dimension fits")]
        let scale = 1.0 / (head_dim as f32).sqrt();
        let args = LladaAttentionPlaces {
            offsets: offsets.pointer(),
            key_offsets: key_offsets.pointer(),
            n_heads: narrow(op, shape.n_heads)?,
            n_kv_heads: narrow(op, shape.n_kv_heads)?,
            head_dim: narrow(op, head_dim)?,
            block_size: narrow(op, block_size)?,
            scale,
            padding: 0,
        };
        let q_stride = narrow(op, shape.n_heads * head_dim)?;
        let kv_stride = narrow(op, shape.n_kv_heads * head_dim)?;
        Ok(Self {
            sizes,
            args,
            strides: [q_stride, kv_stride].map(i64::from),
            _arrays: [offsets, key_offsets],
        })
    }
}

/// See [`llada_tensor::backend::Backend::attention`]: in bf16 where that is asked for and there is
/// a kernel for it.
pub(crate) fn attention(cx: &Context, args: AttentionArgs<'_>) -> Result<()> {
    let op = "attention";
    let places = Places::new(cx, op, args.q, args.shape)?;
    let [q_stride, kv_stride] = places.strides;
    let is_bf16 = common_dtype(op, args.q, &[args.k, args.v, args.y])? == DType::Bf16;
    let mut kernel_args = LladaAttentionArgs {
        q: cx.contiguous(op, args.q)?,
        k: cx.contiguous(op, args.k)?,
        v: cx.contiguous(op, args.v)?,
        y: cx.pointer_mut(args.y)?,
        lse: cx.f32s_mut(op, args.lse)?,
        q_stride,
        kv_stride,
        places: places.args,
        is_bf16: i32::from(is_bf16),
        padding: 0,
    };
    let read_as_vectors = [kernel_args.q, kernel_args.k, kernel_args.v, kernel_args.y];
    let is_aligned = read_as_vectors.iter().all(|at| at % VECTOR_BYTES == 0);
    if args.precision != Precision::F32
        && is_aligned
        && let Some(launch) = plan::forward_bf16(&places.sizes, multiprocessors(cx)?)?
    {
        let mut rounded = None;
        if !is_bf16 {
            let pair = Pair::f32([kernel_args.k, kernel_args.v], args.k.numel());
            let rounded = rounded.insert(round(cx, pair)?);
            [kernel_args.k, kernel_args.v] = rounded.pointers;
        }
        return cx.launch(IMAGE, launch.entry, launch.plan, &kernel_args);
    }
    if is_bf16 {
        return Err(no_kernel(op));
    }
    let launch = plan::forward_f32(&places.sizes)?;
    cx.launch(IMAGE, launch.entry, launch.plan, &kernel_args)
}

/// Two matrices of bf16.
struct Rounded {
    pointers: [u64; 2],
    _memory: Scratch,
}

fn no_kernel(op: &'static str) -> Error {
    let what = "there are kernels for bf16 tensors of head dimensions 64 and 128, on 16 bytes";
    Error::InvalidArgument { op, what }
}

/// See [`llada_tensor::backend::Backend::attention_dtype`].
pub(crate) fn dtype(precision: Precision, head_dim: usize) -> DType {
    match (precision, head_dim) {
        (Precision::Bf16 | Precision::Blocks, 64 | 128) => DType::Bf16,
        _ => DType::F32,
    }
}

/// Two matrices that are to be rounded.
#[derive(Clone, Copy)]
struct Pair {
    pointers: [u64; 2],
    /// Elements of each.
    n: usize,
    /// The first one is multiplied by it.
    factor: f32,
    /// Whether the first one is bf16 already.
    first_is_bf16: bool,
}

impl Pair {
    fn f32(pointers: [u64; 2], n: usize) -> Self {
        let (factor, first_is_bf16) = (1.0, false);
        Self {
            pointers,
            n,
            factor,
            first_is_bf16,
        }
    }
}

/// Rounds two matrices.
fn round(cx: &Context, pair: Pair) -> Result<Rounded> {
    let ([first, second], n) = (pair.pointers, pair.n);
    // Each begins where vectors may.
    let bytes = (n * size_of::<u16>()).next_multiple_of(16);
    let memory = cx.scratch(2 * bytes)?;
    let args = LladaAttentionRoundArgs {
        first,
        second,
        first_out: memory.pointer(),
        second_out: memory.pointer() + bytes as u64,
        n: i64::try_from(n).unwrap_or(i64::MAX),
        factor: pair.factor,
        first_is_bf16: i32::from(pair.first_is_bf16),
    };
    let launch = plan::round(n)?;
    cx.launch(IMAGE, launch.entry, launch.plan, &args)?;
    Ok(Rounded {
        pointers: [args.first_out, args.second_out],
        _memory: memory,
    })
}

/// See [`llada_tensor::backend::Backend::attention_backward`]: in bf16 where that is asked for and
/// there is a kernel for it.
pub(crate) fn attention_backward(cx: &Context, args: AttentionBackwardArgs<'_>) -> Result<()> {
    let op = "attention_backward";
    let places = Places::new(cx, op, args.q, args.shape)?;
    let [q_stride, kv_stride] = places.strides;
    let rows = args.lse.numel();
    let delta = cx.scratch(rows * size_of::<f32>())?;
    let is_bf16 = common_dtype(op, args.q, &[args.k, args.v, args.y])? == DType::Bf16;
    let mut kernel_args = LladaAttentionBackwardArgs {
        q: cx.contiguous(op, args.q)?,
        k: cx.contiguous(op, args.k)?,
        v: cx.contiguous(op, args.v)?,
        y: cx.contiguous(op, args.y)?,
        dy: cx.f32s(op, args.dy)?,
        lse: cx.f32s(op, args.lse)?,
        delta: delta.pointer(),
        dq: cx.f32s_mut(op, args.dq)?,
        dk: cx.f32s_mut(op, args.dk)?,
        dv: cx.f32s_mut(op, args.dv)?,
        q_stride,
        kv_stride,
        rounded_q: 0,
        rounded_k: 0,
        rounded_v: 0,
        rounded_dy: 0,
        rows: i64::try_from(rows).unwrap_or(i64::MAX),
        places: places.args,
        y_is_bf16: i32::from(is_bf16),
        padding: 0,
    };
    let [delta, dq, dkdv] = plan::backward_f32(&places.sizes, rows)?;
    cx.launch(IMAGE, delta.entry, delta.plan, &kernel_args)?;
    let of_bf16 = match args.precision {
        Precision::F32 => None,
        _ => plan::backward_bf16(&places.sizes)?,
    };
    let a = &kernel_args;
    let read_as_vectors = [a.q, a.k, a.v, a.dy, a.dq, a.dk, a.dv];
    let is_aligned = read_as_vectors.iter().all(|at| at % VECTOR_BYTES == 0);
    let Some(of_bf16) = of_bf16.filter(|_| is_aligned) else {
        if is_bf16 {
            return Err(no_kernel(op));
        }
        cx.launch(IMAGE, dq.entry, dq.plan, &kernel_args)?;
        return cx.launch(IMAGE, dkdv.entry, dkdv.plan, &kernel_args);
    };
    let factor = places.args.scale * std::f32::consts::LOG2_E;
    let of_queries = Pair {
        factor,
        first_is_bf16: is_bf16,
        ..Pair::f32([a.q, a.dy], args.q.numel())
    };
    let of_queries = round(cx, of_queries)?;
    let mut of_keys = None;
    [kernel_args.rounded_k, kernel_args.rounded_v] = match is_bf16 {
        true => [a.k, a.v],
        false => {
            let pair = Pair::f32([a.k, a.v], args.k.numel());
            of_keys.insert(round(cx, pair)?).pointers
        }
    };
    [kernel_args.rounded_q, kernel_args.rounded_dy] = of_queries.pointers;
    for launch in of_bf16 {
        cx.launch(IMAGE, launch.entry, launch.plan, &kernel_args)?;
    }
    Ok(())
}

fn multiprocessors(cx: &Context) -> Result<Multiprocessors> {
    let attribute = |attribute| {
        let value = cx.allocator().stream().context().attribute(attribute);
        value.map_err(cx.allocator().failed("cuDeviceGetAttribute"))
    };
    let count = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
    let shared_bytes =
        attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?;
    Ok(Multiprocessors {
        count: usize::try_from(count).unwrap_or(0),
        shared_bytes: u32::try_from(shared_bytes).unwrap_or(0),
    })
}
