// Rotary position embedding, its inverse, and the split of fused rows of queries, keys, values.
//
//   (y[i], y[i + half]) = (a cos - b sin, b cos + a sin), (a, b) = (x[i], x[i + half])
//   for every head of every row, with the cosines and sines of the row's position; the inverse,
//   which is also the gradient, has -sin.
//
// Layout: x, y [rows, heads, 2 half], tables [n_positions, half], positions [rows]; the split
//   reads [rows, heads + 2 kv_heads, 2 half] and writes q, k (rotated) and v, each contiguous, in
//   bf16. 128-bit accesses if addresses and widths allow, else single elements.
// Threads: a block owns a row of x, one after the other. Its threads form rows of `lanes`: a lane
//   owns pairs of a half, whose cosine and sine it keeps in registers, a row of lanes owns heads.
// Accumulation: none; every product and sum is rounded alone, so that the result is bit for bit
//   that of the CPU.
// Bytes: 8 per element (split: 6), and the tables once per row. FLOPs: 3 per element. Bound by
//   memory.
// Deterministic: yes.
// Source: Su et al. 2021 (arXiv 2104.09864); `rotate_half` of the reference.
#include "load128.cuh"

namespace llada {

// Rotates pairs in place.
template <int N>
__device__ __forceinline__ void rotate(float (&a)[N], float (&b)[N], const float (&cos)[N],
                                       const float (&sin)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) {
    const float old = a[i];
    a[i] = __fsub_rn(__fmul_rn(old, cos[i]), __fmul_rn(b[i], sin[i]));
    b[i] = __fadd_rn(__fmul_rn(b[i], cos[i]), __fmul_rn(old, sin[i]));
  }
}

// Calls `body(row, head, i, cos, sin)` for this thread's pairs (i.., i + half..) of N.
template <int N, typename Args, typename Body>
__device__ __forceinline__ void for_each_pair(const Args& args, int heads, const Body& body) {
  const int lanes = 1 << args.lanes_log2;
  const int lane = threadIdx.x & (lanes - 1), first_head = threadIdx.x >> args.lanes_log2;
  const int head_step = blockDim.x >> args.lanes_log2;
#pragma unroll 1
  for (int64_t row = blockIdx.x; row < args.rows; row += gridDim.x) {
    const int64_t table_row = static_cast<int64_t>(args.positions[row]) * args.half;
#pragma unroll 1
    for (int64_t i = lane * N; i < args.half; i += lanes * N) {
      float cos[N], sin[N];
      load(args.cos + table_row + i, cos);
      load(args.sin + table_row + i, sin);
      for (int head = first_head; head < heads; head += head_step) body(row, head, i, cos, sin);
    }
  }
}

template <int N, typename T>
__device__ __forceinline__ void rope(const LladaRopeArgs& args) {
  const auto body = [&](int64_t row, int head, int64_t i, const float(&cos)[N],
                        const float(&sin)[N]) {
    const int64_t at = (row * args.heads + head) * 2 * args.half + i;
    float a[N], b[N], signed_sin[N];
    load(args.x + at, a);
    load(args.x + at + args.half, b);
#pragma unroll
    for (int k = 0; k < N; k++) signed_sin[k] = __fmul_rn(args.sign, sin[k]);
    rotate(a, b, cos, signed_sin);
    store(static_cast<T*>(args.y) + at, a);
    store(static_cast<T*>(args.y) + at + args.half, b);
  };
  for_each_pair<N>(args, args.heads, body);
}

template <int N>
__device__ __forceinline__ void rope_qkv(const LladaRopeQkvArgs& args) {
  const int heads = args.heads + 2 * args.kv_heads;
  const auto body = [&](int64_t row, int head, int64_t i, const float(&cos)[N],
                        const float(&sin)[N]) {
    const int64_t at = (row * heads + head) * 2 * args.half + i;
    float a[N], b[N];
    load(args.qkv + at, a);
    load(args.qkv + at + args.half, b);
    const int kv_head = head - args.heads;
    if (kv_head < args.kv_heads) rotate(a, b, cos, sin);
    LladaBf16* y;
    if (kv_head < 0) {
      y = args.q + (row * args.heads + head) * 2 * args.half;
    } else if (kv_head < args.kv_heads) {
      y = args.k + (row * args.kv_heads + kv_head) * 2 * args.half;
    } else {
      y = args.v + (row * args.kv_heads + kv_head - args.kv_heads) * 2 * args.half;
    }
    store(y + i, a);
    store(y + i + args.half, b);
  };
  for_each_pair<N>(args, heads, body);
}

}  // namespace llada

extern "C" __global__ void __launch_bounds__(LLADA_ELEMENTWISE_THREADS)
    llada_rope_fwd_f32(const LladaRopeArgs args) {
  const bool aligned = llada::aligned128(args.x, args.cos, args.sin, static_cast<float*>(args.y));
  if (args.half % 4 == 0 && aligned) {
    llada::rope<4, float>(args);
  } else {
    llada::rope<1, float>(args);
  }
}

extern "C" __global__ void __launch_bounds__(LLADA_ELEMENTWISE_THREADS)
    llada_rope_fwd_bf16(const LladaRopeArgs args) {
  const bool aligned =
      llada::aligned128(args.x, args.cos, args.sin, static_cast<LladaBf16*>(args.y));
  if (args.half % 8 == 0 && aligned) {
    llada::rope<8, LladaBf16>(args);
  } else {
    llada::rope<1, LladaBf16>(args);
  }
}

extern "C" __global__ void __launch_bounds__(LLADA_ELEMENTWISE_THREADS)
    llada_rope_qkv_fwd_bf16(const LladaRopeQkvArgs args) {
  const bool vectors = args.half % 8 == 0 && llada::aligned128(args.qkv, args.cos, args.sin,
                                                               args.q, args.k, args.v);
  if (vectors) {
    llada::rope_qkv<8>(args);
  } else {
    llada::rope_qkv<1>(args);
  }
}
