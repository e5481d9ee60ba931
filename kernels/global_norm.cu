// Sum of squares of all elements, accumulated in f64.
//
//   norm   partials[b] = sum of x[i]^2 over the tiles of block b
//   total  totals[t] = sum of partials[t, b], for all tensors in one launch
//
// Layout: contiguous f32; 128-bit loads if the address allows, else single elements.
// Threads: a block takes tiles of 4 runs per thread, block b the tiles b, b + blocks, and so on;
//   a second launch of a block per tensor adds what the blocks have.
// Accumulation: the 16 squares (4 without vectors) that a thread has of a tile in f32, those sums
//   in f64: cards for consumers have few f64 units, and every element would keep them busy. A
//   partial sum is off by at most 16 roundings of f32.
// Shared memory: a sum per warp. Bytes: 4 per element. FLOPs: 2. Bound by memory.
// Deterministic: yes, and alike on all devices: the grid depends on n alone.
#include "load128.cuh"
#include "reduce.cuh"

namespace llada {

// Runs of a tile per thread: so many loads are in flight.
constexpr int kRuns = LLADA_GLOBAL_NORM_RUNS;

// Sum of this thread's squares of `x[0..n]`, n a multiple of N.
template <int N>
__device__ __forceinline__ double sum_of_squares(const float* x, int64_t n) {
  const int64_t tile = kThreads * kRuns * N;
  double total = 0.0;
#pragma unroll 1
  for (int64_t base = blockIdx.x * tile; base < n; base += gridDim.x * tile) {
    float sum = 0.0f;
#pragma unroll
    for (int run = 0; run < kRuns; run++) {
      const int64_t at = base + (run * kThreads + static_cast<int>(threadIdx.x)) * N;
      float v[N] = {};
      if (at < n) load(x + at, v);
#pragma unroll
      for (int i = 0; i < N; i++) sum += v[i] * v[i];
    }
    total += sum;
  }
  return total;
}

}  // namespace llada

extern "C" __global__ void __launch_bounds__(LLADA_ELEMENTWISE_THREADS)
    llada_global_norm_fwd_f32(const LladaGlobalNormArgs args) {
  __shared__ double scratch[llada::kThreads / 32];
  const int64_t n_in_runs = llada::aligned128(args.x) ? args.n / 4 * 4 : 0;
  double total = llada::sum_of_squares<4>(args.x, n_in_runs);
  total += llada::sum_of_squares<1>(args.x + n_in_runs, args.n - n_in_runs);
  total = llada::block_reduce<llada::Sum>(total, scratch);
  if (threadIdx.x == 0) args.partials[blockIdx.x] = total;
}

extern "C" __global__ void __launch_bounds__(LLADA_ELEMENTWISE_THREADS)
    llada_global_norm_total_fwd_f64(const LladaGlobalNormTotalArgs args) {
  __shared__ double scratch[llada::kThreads / 32];
  const double* partials = args.partials + blockIdx.x * args.n;
  double total = 0.0;
  for (int64_t i = threadIdx.x; i < args.n; i += llada::kThreads) total += partials[i];
  total = llada::block_reduce<llada::Sum>(total, scratch);
  if (threadIdx.x == 0) args.totals[blockIdx.x] = total;
}
