// Additions and column sums.
//
//   add         y[i] = x[i] + z[i]            residual connections, accumulated gradients
//   add_row     y[r, c] = x[r, c] + z[c]      biases
//   axpby       y[i] = a x[i] + b y[i]        momentum
//   column_sum  y[k, c] (+)= sum_r x[r, c]    gradients of biases, second stage of weights' ones
//
// Layout: contiguous f32; 128-bit accesses if addresses and widths allow, else single elements.
// Threads: add and axpby walk over flat runs of 4. add_row walks over tiles of rows; a thread
//   keeps its part of z in registers. In column_sum a block owns 4 `lanes` columns of a chunk of
//   rows: each row of its threads sums every (threads / lanes)-th row of the chunk in f32, then
//   the rows of threads are added pairwise through 4 KiB of shared memory.
// Bytes: 12 per element (add, axpby; axpby with b = 0: 8), 8 (add_row), 4 (column_sum).
// FLOPs: 1 per element; 2 for axpby. Bound by memory.
// Deterministic: yes. A column is summed in an order that depends on the shape alone.
#include "load128.cuh"

namespace llada {

struct Add {
  const LladaAddArgs& args;
  template <int N>
  __device__ __forceinline__ void run(int64_t at) const {
    float x[N], z[N];
    load(args.x + at, x);
    load(args.z + at, z);
#pragma unroll
    for (int i = 0; i < N; i++) x[i] += z[i];
    store(args.y + at, x);
  }
};

// Rounds after each step, except that `b y` is fused with the sum, as on the CPU.
struct Axpby {
  const LladaAxpbyArgs& args;
  template <int N>
  __device__ __forceinline__ void run(int64_t at) const {
    float x[N], y[N] = {};
    load(args.x + at, x);
    if (args.b != 0.0f) load(args.y + at, y);
#pragma unroll
    for (int i = 0; i < N; i++) {
      const float ax = __fmul_rn(args.a, x[i]);
      x[i] = args.b != 0.0f ? __fmaf_rn(args.b, y[i], ax) : ax;
    }
    store(args.y + at, x);
  }
};

template <int N>
__device__ __forceinline__ void add_row(const LladaAddRowArgs& args) {
  const RowTile tile(args.lanes_log2);
  tile.for_each_column<N>(args.d, [&](int64_t column) {
    float z[N];
    load(args.z + column, z);
    tile.for_each_row(args.rows, [&](int64_t row) {
      const int64_t at = row * args.d + column;
      float x[N];
      load(args.x + at, x);
#pragma unroll
      for (int i = 0; i < N; i++) x[i] += z[i];
      store(args.y + at, x);
    });
  });
}

constexpr int kThreadsLog2 = 8;
static_assert(1 << kThreadsLog2 == kThreads, "its logarithm");

template <int N>
__device__ __forceinline__ void column_sum(const LladaColumnSumArgs& args,
                                           float (*shared)[kThreads]) {
  const int lane = threadIdx.x & ((1 << args.lanes_log2) - 1);
  const int thread_row = threadIdx.x >> args.lanes_log2;
  const int thread_rows_log2 = kThreadsLog2 - args.lanes_log2;
  const int thread_rows = 1 << thread_rows_log2;
  const int64_t first = blockIdx.y * args.chunk_rows + thread_row;
  const int64_t end = min((blockIdx.y + int64_t{1}) * args.chunk_rows, args.rows);
  // Of `first, first + thread_rows, ...` below `end`; `thread_rows` is a power of two.
  const int64_t n_rows = (end - first + thread_rows - 1) >> thread_rows_log2;
  const int64_t tile = static_cast<int64_t>(N) << args.lanes_log2;
  // The same number of rounds for all threads of a block, for the sake of the barriers.
#pragma unroll 1
  for (int64_t base = blockIdx.x * tile; base < args.d; base += gridDim.x * tile) {
    const int64_t column = base + lane * N;
    const bool is_inside = column < args.d;
    float sum[N] = {};
    if (is_inside) {
      const float* from = args.x + first * args.d + column;
#pragma unroll 4
      for (int64_t row = 0; row < n_rows; row++, from += thread_rows * args.d) {
        float x[N];
        load(from, x);
#pragma unroll
        for (int i = 0; i < N; i++) sum[i] += x[i];
      }
    }
#pragma unroll
    for (int i = 0; i < N; i++) shared[i][threadIdx.x] = sum[i];
    for (int half = thread_rows / 2; half > 0; half /= 2) {
      __syncthreads();
      if (thread_row < half) {
#pragma unroll
        for (int i = 0; i < N; i++) {
          sum[i] += shared[i][threadIdx.x + (half << args.lanes_log2)];
          shared[i][threadIdx.x] = sum[i];
        }
      }
    }
    if (is_inside && thread_row == 0) {
      float* y = args.y + blockIdx.y * args.d + column;
      if (args.accumulate != 0) {
        float before[N];
        load(y, before);
#pragma unroll
        for (int i = 0; i < N; i++) sum[i] = before[i] + sum[i];
      }
      store(y, sum);
    }
    __syncthreads();
  }
}

}  // namespace llada

extern "C" __global__ void __launch_bounds__(LLADA_ELEMENTWISE_THREADS)
    llada_add_fwd_f32(const LladaAddArgs args) {
  llada::for_each_run<4>(args.n, llada::aligned128(args.x, args.z, args.y), llada::Add{args});
}

extern "C" __global__ void __launch_bounds__(LLADA_ELEMENTWISE_THREADS)
    llada_add_row_fwd_f32(const LladaAddRowArgs args) {
  if (args.d % 4 == 0 && llada::aligned128(args.x, args.z, args.y)) {
    llada::add_row<4>(args);
  } else {
    llada::add_row<1>(args);
  }
}

extern "C" __global__ void __launch_bounds__(LLADA_ELEMENTWISE_THREADS)
    llada_axpby_fwd_f32(const LladaAxpbyArgs args) {
  llada::for_each_run<4>(args.n, llada::aligned128(args.x, args.y), llada::Axpby{args});
}

extern "C" __global__ void __launch_bounds__(LLADA_ELEMENTWISE_THREADS)
    llada_column_sum_fwd_f32(const LladaColumnSumArgs args) {
  __shared__ float shared[4][llada::kThreads];
  if (args.d % 4 == 0 && llada::aligned128(args.x, args.y)) {
    llada::column_sum<4>(args, shared);
  } else {
    llada::column_sum<1>(args, shared);
  }
}
