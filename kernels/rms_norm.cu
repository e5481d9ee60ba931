// Root-mean-square normalization over rows.
//
//   forward   y[r, c] = n[r, c] weight[c], n[r, c] = x[r, c] rstd[r],
//             rstd[r] = 1 / sqrt(mean_c(x[r, c]^2) + eps)
//   backward  dx = rstd (g - n mean_c(g n)) with g = dy weight,
//             partials[k] = sum of dy n over the rows of chunk k: launches of llada_column_sum_fwd
//             add them to dweight
//
// Layout: x, y [rows, d], weight [d], rstd [rows], partials [chunks, d]; f32, or bf16 for y of one
//   entry, which a product with bf16 operands reads next. 128-bit accesses if addresses and
//   widths allow, else single elements.
// Threads: a block owns a row (forward) or a chunk of rows (backward). A thread has the same
//   columns of each row, 16 elements in registers; backward it also sums its columns of dweight.
//   Only what is left of wider rows is read twice, and its part of dweight summed in memory.
// Shared memory: a sum per warp.
// Accumulation: f32; a row by thread, warp and block, a column of dweight down the rows.
// Bytes: forward 8 per element (6 to bf16), backward 12 and 8 per element of a partial sum.
//   FLOPs: 4, backward 9. Bound by memory.
// Deterministic: yes. A row depends on no other row; how rows are cut into chunks depends on
//   their number and width alone.
// Source: Zhang and Sennrich 2019, eq. 4 (arXiv 1910.07467).
#include "load128.cuh"
#include "reduce.cuh"

namespace llada {

constexpr int kMaxWarps = LLADA_RMS_NORM_THREADS / 32;

// Runs of N that a thread keeps in registers: all of its elements, but for rows without vectors,
// where the addresses of so many runs would not fit.
template <int N>
constexpr int kRunsOf = N == 1 ? 4 : LLADA_RMS_NORM_ELEMENTS / N;

// First column of this thread's k-th run of N; runs of neighbors are neighbors.
template <int N>
__device__ __forceinline__ int64_t column_of(int k) {
  return (static_cast<int64_t>(k) * blockDim.x + threadIdx.x) * N;
}

// A run's share of the sum of squares.
template <int N>
__device__ __forceinline__ float sum_of_squares(const float (&x)[N]) {
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < N; i++) squares = __fmaf_rn(x[i], x[i], squares);
  return squares;
}

template <int N, typename T>
__device__ __forceinline__ void write_run(const LladaRmsNormArgs& args, int64_t at, float rstd,
                                          const float (&weight)[N], float (&x)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) x[i] = x[i] * rstd * weight[i];
  store(static_cast<T*>(args.y) + at, x);
}

template <int N, typename T>
__device__ __forceinline__ void forward(const LladaRmsNormArgs& args, float* scratch) {
  constexpr int kRuns = kRunsOf<N>;
  const int64_t row = blockIdx.x, start = row * args.d;
  // All loads come before the first store, which none may pass.
  float x[kRuns][N], weight[kRuns][N];
#pragma unroll
  for (int k = 0; k < kRuns; k++) {
    const int64_t column = column_of<N>(k);
    if (column < args.d) {
      load(args.x + start + column, x[k]);
      load(args.weight + column, weight[k]);
    }
  }
  float squares = 0.0f;
#pragma unroll
  for (int k = 0; k < kRuns; k++) {
    const int64_t column = column_of<N>(k);
    if (column < args.d) squares += sum_of_squares(x[k]);
  }
  const int64_t step = static_cast<int64_t>(blockDim.x) * N;
#pragma unroll 1
  for (int64_t column = column_of<N>(kRuns); column < args.d; column += step) {
    float more[N];
    load(args.x + start + column, more);
    squares += sum_of_squares(more);
  }
  const float mean = block_reduce<Sum>(squares, scratch) / static_cast<float>(args.d);
  const float rstd = 1.0f / sqrtf(mean + args.eps);
  if (threadIdx.x == 0) args.rstd[row] = rstd;
#pragma unroll
  for (int k = 0; k < kRuns; k++) {
    const int64_t at = start + column_of<N>(k);
    if (at < start + args.d) write_run<N, T>(args, at, rstd, weight[k], x[k]);
  }
#pragma unroll 1
  for (int64_t column = column_of<N>(kRuns); column < args.d; column += step) {
    float more[N], more_weight[N];
    load(args.x + start + column, more);
    load(args.weight + column, more_weight);
    write_run<N, T>(args, start + column, rstd, more_weight, more);
  }
}

template <typename T>
__device__ __forceinline__ void forward(const LladaRmsNormArgs& args) {
  __shared__ float scratch[kMaxWarps];
  constexpr int N = 16 / sizeof(T);
  const bool vectors =
      args.d % N == 0 && aligned128(args.x, args.weight, static_cast<T*>(args.y));
  if (vectors) {
    forward<N, T>(args, scratch);
  } else {
    forward<1, T>(args, scratch);
  }
}

// Turns runs of x and dy into n and g; returns their share of sum_c(g n), and adds to the share
// of dweight.
template <int N>
__device__ __forceinline__ float normalize_run(const LladaRmsNormBackwardArgs& args, int64_t start,
                                               int64_t column, float rstd, float (&n)[N],
                                               float (&g)[N], float (&dweight)[N]) {
  float weight[N];
  load(args.weight + column, weight);
  load(args.x + start + column, n);
  load(args.dy + start + column, g);
  float dot = 0.0f;
#pragma unroll
  for (int i = 0; i < N; i++) {
    n[i] *= rstd;
    dweight[i] += g[i] * n[i];
    g[i] *= weight[i];
    dot += g[i] * n[i];
  }
  return dot;
}

template <int N>
__device__ __forceinline__ void write_dx(float* dx, float rstd, float mean, const float (&n)[N],
                                         const float (&g)[N]) {
  float out[N];
#pragma unroll
  for (int i = 0; i < N; i++) out[i] = rstd * (g[i] - n[i] * mean);
  store(dx, out);
}

template <int N>
__device__ __forceinline__ void backward(const LladaRmsNormBackwardArgs& args,
                                         float (&scratch)[2][kMaxWarps]) {
  constexpr int kRuns = kRunsOf<N>;
  const int64_t first = blockIdx.x * args.chunk_rows;
  const int64_t end = min(first + args.chunk_rows, args.rows);
  const int64_t step = static_cast<int64_t>(blockDim.x) * N;
  float* partial = args.partials + blockIdx.x * static_cast<int64_t>(args.d);
  float dweight[kRuns][N] = {};
#pragma unroll 1
  for (int64_t row = first; row < end; row++) {
    const int64_t start = row * args.d;
    const float rstd = args.rstd[row];
    float n[kRuns][N], g[kRuns][N];
    float dot = 0.0f;
#pragma unroll
    for (int k = 0; k < kRuns; k++) {
      const int64_t column = column_of<N>(k);
      if (column < args.d) {
        dot += normalize_run<N>(args, start, column, rstd, n[k], g[k], dweight[k]);
      }
    }
#pragma unroll 1
    for (int64_t column = column_of<N>(kRuns); column < args.d; column += step) {
      float more_n[N], more_g[N], sum[N] = {};
      if (row > first) load(partial + column, sum);
      dot += normalize_run<N>(args, start, column, rstd, more_n, more_g, sum);
      store(partial + column, sum);
    }
    // Two scratches in turn: a barrier lies between the reads of one and its next writes.
    const float mean =
        block_reduce<Sum>(dot, scratch[(row - first) % 2]) / static_cast<float>(args.d);
#pragma unroll
    for (int k = 0; k < kRuns; k++) {
      const int64_t column = column_of<N>(k);
      if (column < args.d) write_dx<N>(args.dx + start + column, rstd, mean, n[k], g[k]);
    }
#pragma unroll 1
    for (int64_t column = column_of<N>(kRuns); column < args.d; column += step) {
      float more_n[N], more_g[N], ignored[N] = {};
      normalize_run<N>(args, start, column, rstd, more_n, more_g, ignored);
      write_dx<N>(args.dx + start + column, rstd, mean, more_n, more_g);
    }
  }
#pragma unroll
  for (int k = 0; k < kRuns; k++) {
    const int64_t column = column_of<N>(k);
    if (column < args.d) store(partial + column, dweight[k]);
  }
}

}  // namespace llada

extern "C" __global__ void __launch_bounds__(LLADA_RMS_NORM_THREADS)
    llada_rms_norm_fwd_f32(const LladaRmsNormArgs args) {
  llada::forward<float>(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_RMS_NORM_THREADS)
    llada_rms_norm_fwd_bf16(const LladaRmsNormArgs args) {
  llada::forward<LladaBf16>(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_RMS_NORM_THREADS)
    llada_rms_norm_bwd_f32(const LladaRmsNormBackwardArgs args) {
  __shared__ float scratch[2][llada::kMaxWarps];
  if (args.d % 4 == 0 &&
      llada::aligned128(args.x, args.weight, args.dy, args.dx, args.partials)) {
    llada::backward<4>(args, scratch);
  } else {
    llada::backward<1>(args, scratch);
  }
}
