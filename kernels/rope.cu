// Rotary position embedding and its inverse.
//
//   (y[i], y[i + half]) = (a cos - b sin, b cos + a sin), (a, b) = (x[i], x[i + half])
//   for every head of every row, with the cosines and sines of the row's position; the inverse,
//   which is also the gradient, has -sin. What a head has beyond 2 half passes.
//
// Layout: x, y [rows, heads, head_dim], tables [n_positions, half], positions [rows]; f32, or bf16
//   for y of one entry. 128-bit accesses if addresses and widths allow, else single elements.
// Threads: a block owns a row of x, one after the other. Its threads form rows of `lanes`: a lane
//   owns pairs of a half, whose cosine and sine it keeps in registers, a row of lanes owns heads.
// Accumulation: none; every product and sum is rounded alone, so that the result is bit for bit
//   that of the CPU.
// Bytes: 8 per element (6 to bf16), and the tables once per row. FLOPs: 3 per element. Bound by
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
    const int64_t at = (row * args.heads + head) * args.head_dim + i;
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
  // What is not rotated.
  const int rest = args.head_dim - 2 * args.half;
  if (rest == 0) return;
#pragma unroll 1
  for (int64_t row = blockIdx.x; row < args.rows; row += gridDim.x) {
#pragma unroll 1
    for (int i = threadIdx.x; i < args.heads * rest; i += blockDim.x) {
      const int64_t at = (row * args.heads + i / rest) * args.head_dim + 2 * args.half + i % rest;
      float x[1];
      load(args.x + at, x);
      store(static_cast<T*>(args.y) + at, x);
    }
  }
}

}  // namespace llada

extern "C" __global__ void __launch_bounds__(LLADA_ELEMENTWISE_THREADS)
    llada_rope_fwd_f32(const LladaRopeArgs args) {
  const bool aligned = llada::aligned128(args.x, args.cos, args.sin, static_cast<float*>(args.y));
  if (args.half % 4 == 0 && args.head_dim % 4 == 0 && aligned) {
    llada::rope<4, float>(args);
  } else {
    llada::rope<1, float>(args);
  }
}

extern "C" __global__ void __launch_bounds__(LLADA_ELEMENTWISE_THREADS)
    llada_rope_fwd_bf16(const LladaRopeArgs args) {
  const bool aligned =
      llada::aligned128(args.x, args.cos, args.sin, static_cast<LladaBf16*>(args.y));
  if (args.half % 8 == 0 && args.head_dim % 8 == 0 && aligned) {
    llada::rope<8, LladaBf16>(args);
  } else {
    llada::rope<1, LladaBf16>(args);
  }
}
