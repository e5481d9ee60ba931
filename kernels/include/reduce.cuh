// Reductions over a warp and over a block, in a fixed order.
#pragma once

#include <stdint.h>

namespace llada {

constexpr uint32_t kFullWarp = 0xffffffffu;

struct Sum {
  template <typename T>
  __device__ static T apply(T a, T b) { return a + b; }
};

struct Max {
  // Takes a NaN over a number, so that a NaN cannot hide.
  __device__ static float apply(float a, float b) { return (a > b || a != a) ? a : b; }
};

// The result is in every lane, and the same in each.
template <typename Op, typename T>
__device__ __forceinline__ T warp_reduce(T x) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    x = Op::apply(x, __shfl_xor_sync(kFullWarp, x, distance));
  }
  return x;
}

// Reduces over all threads of a block, a multiple of 32 of them; every thread gets the result.
// `scratch` holds an element per warp, and may be used again after the next barrier.
template <typename Op, typename T>
__device__ __forceinline__ T block_reduce(T x, T* scratch) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  x = warp_reduce<Op>(x);
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  T result = scratch[0];
  for (int i = 1; i < warps; i++) result = Op::apply(result, scratch[i]);
  return result;
}

}  // namespace llada
