// Vector loads and stores of 128 bits, and the two ways in which the memory-bound kernels walk
// over their elements: flat runs and tiles of rows.
#pragma once

#include <stdint.h>

#include "llada_kernels.h"
#include "mma.cuh"

namespace llada {

// Threads of a block of the kernels that walk with `for_each_run` and `RowTile`.
constexpr int kThreads = LLADA_ELEMENTWISE_THREADS;

// Whether all of these addresses can be read and written 128 bits at a time. The same for all
// threads of a grid, so that a branch on it never diverges.
template <typename... Pointers>
__device__ __forceinline__ bool aligned128(const Pointers*... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) | ...) % 16) == 0;
}

// Reads a run of N elements as f32: one element, or as many as fill whole vectors of 128 bits.
template <int N>
__device__ __forceinline__ void load(const float* from, float (&to)[N]) {
  static_assert(N == 1 || N % 4 == 0, "one element or whole vectors");
  if constexpr (N == 1) {
    to[0] = *from;
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      const float4 v = *reinterpret_cast<const float4*>(from + i);
      to[i] = v.x, to[i + 1] = v.y, to[i + 2] = v.z, to[i + 3] = v.w;
    }
  }
}

template <int N>
__device__ __forceinline__ void load(const LladaBf16* from, float (&to)[N]) {
  static_assert(N == 1 || N % 8 == 0, "one element or whole vectors");
  if constexpr (N == 1) {
    to[0] = __uint_as_float(static_cast<uint32_t>(*from) << 16);
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 8) {
      const uint4 v = *reinterpret_cast<const uint4*>(from + i);
      const uint32_t pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int pair = 0; pair < 4; pair++) {
        to[i + 2 * pair] = __uint_as_float(pairs[pair] << 16);
        to[i + 2 * pair + 1] = __uint_as_float(pairs[pair] & 0xffff0000u);
      }
    }
  }
}

// Writes a run of N values, rounded to nearest even where the elements are bf16.
template <int N>
__device__ __forceinline__ void store(float* to, const float (&from)[N]) {
  static_assert(N == 1 || N % 4 == 0, "one element or whole vectors");
  if constexpr (N == 1) {
    *to = from[0];
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      store_128(to + i, make_uint4(__float_as_uint(from[i]), __float_as_uint(from[i + 1]),
                                   __float_as_uint(from[i + 2]), __float_as_uint(from[i + 3])));
    }
  }
}

template <int N>
__device__ __forceinline__ void store(LladaBf16* to, const float (&from)[N]) {
  static_assert(N == 1 || N % 8 == 0, "one element or whole vectors");
  if constexpr (N == 1) {
    *to = __bfloat16_as_ushort(__float2bfloat16_rn(from[0]));
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 8) {
      uint32_t pairs[4];
#pragma unroll
      for (int pair = 0; pair < 4; pair++) {
        pairs[pair] = pack_pair(from[i + 2 * pair], from[i + 2 * pair + 1]);
      }
      store_128(to + i, make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]));
    }
  }
}

// Calls `op.run<N>(at)` for the runs of N elements in `0..n`, and `op.run<1>(at)` for the
// elements that are left; for all of them if `vectors` is false. Thread i of the grid takes the
// runs i, i + threads, and so on.
//
// These loops, and those of `RowTile`, are not unrolled: most threads go through them once, and
// the number of rounds, which an unrolled loop needs, takes a 64-bit division.
template <int N, typename Op>
__device__ __forceinline__ void for_each_run(int64_t n, bool vectors, const Op& op) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  const int64_t n_runs = vectors ? n / N : 0;
#pragma unroll 1
  for (int64_t run = thread; run < n_runs; run += threads) {
    op.template run<N>(run * N);
  }
#pragma unroll 1
  for (int64_t at = n_runs * N + thread; at < n; at += threads) {
    op.template run<1>(at);
  }
}

// A thread's place in a grid over a matrix. The threads of a block form rows of
// `2^lanes_log2` lanes; grid x goes down the rows and grid y along the columns.
struct RowTile {
  int64_t first_row, row_step;
  int64_t first_run, run_step;

  __device__ __forceinline__ explicit RowTile(int lanes_log2) {
    const int lane = threadIdx.x & ((1 << lanes_log2) - 1);
    const int rows_per_block = blockDim.x >> lanes_log2;
    first_row = static_cast<int64_t>(blockIdx.x) * rows_per_block + (threadIdx.x >> lanes_log2);
    row_step = static_cast<int64_t>(gridDim.x) * rows_per_block;
    first_run = (static_cast<int64_t>(blockIdx.y) << lanes_log2) + lane;
    run_step = static_cast<int64_t>(gridDim.y) << lanes_log2;
  }

  // Calls `body(row)` for this thread's rows of `rows`.
  template <typename Body>
  __device__ __forceinline__ void for_each_row(int64_t rows, const Body& body) const {
#pragma unroll 1
    for (int64_t row = first_row; row < rows; row += row_step) body(row);
  }

  // Calls `body(column)` for this thread's runs of N of `d` columns.
  template <int N, typename Body>
  __device__ __forceinline__ void for_each_column(int64_t d, const Body& body) const {
#pragma unroll 1
    for (int64_t column = first_run * N; column < d; column += run_step * N) body(column);
  }
};

}  // namespace llada
