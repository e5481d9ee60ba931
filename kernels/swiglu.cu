// SwiGLU activation.
//
//   forward   y = gate s up, s = sigmoid(gate) = 1 / (1 + e^-gate)
//   backward  dup = dy gate s, dgate = dy up s (1 + gate (1 - s))
//
// Layout: all of one shape; f32, contiguous, or bf16 for what products with bf16 operands write
//   before or read next (of the entry `f32_bf16` y alone), whose rows may be filled up. 128-bit
//   accesses if addresses allow, else single elements.
// Threads: flat runs of 4 elements (8 with bf16).
// Accumulation: none; the exponential and the quotient are those of IEEE-rounded code (no
//   approximate functions): about 40 instructions per element take less time than its bytes.
// Bytes: 12 per element (10 to bf16, 6 in bf16), backward 20 (10 in bf16). FLOPs: 6, backward 12.
//   Bound by memory.
// Deterministic: yes.
// Source: Shazeer 2020, eq. 6 (arXiv 2002.05202).
#include "load128.cuh"

namespace llada {

// 0 for large negative x, where e^-x is infinite.
__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <typename Input, typename T>
struct Swiglu {
  const LladaSwigluArgs& args;

  __device__ const Input* gate() const { return static_cast<const Input*>(args.gate); }
  __device__ const Input* up() const { return static_cast<const Input*>(args.up); }
  __device__ T* y() const { return static_cast<T*>(args.y); }
  __device__ bool aligned() const { return aligned128(gate(), up(), y()); }

  template <int N>
  __device__ __forceinline__ void run(int64_t at) const {
    float g[N], u[N];
    load(gate() + at, g);
    load(up() + at, u);
#pragma unroll
    for (int i = 0; i < N; i++) u[i] *= g[i] * sigmoid(g[i]);
    store(y() + at, u);
  }
};

template <typename T>
struct SwigluBackward {
  const LladaSwigluBackwardArgs& args;

  __device__ const T* gate() const { return static_cast<const T*>(args.gate); }
  __device__ const T* up() const { return static_cast<const T*>(args.up); }
  __device__ T* dgate() const { return static_cast<T*>(args.dgate); }
  __device__ T* dup() const { return static_cast<T*>(args.dup); }
  __device__ const T* dy() const { return static_cast<const T*>(args.dy); }
  __device__ bool aligned() const { return aligned128(gate(), up(), dy(), dgate(), dup()); }

  template <int N>
  __device__ __forceinline__ void run(int64_t at) const {
    float g[N], u[N], slopes[N];
    load(gate() + at, g);
    load(up() + at, u);
    load(dy() + at, slopes);
#pragma unroll
    for (int i = 0; i < N; i++) {
      const float s = sigmoid(g[i]);
      const float slope = s * (1.0f + g[i] * (1.0f - s));
      u[i] = slopes[i] * u[i] * slope;
      g[i] = slopes[i] * (g[i] * s);
    }
    store(dgate() + at, u);
    store(dup() + at, g);
  }
};

template <int N, typename Op>
__device__ __forceinline__ void run_all(const Op& op) {
  for_each_run<N>(op.args.rows * op.args.columns, op.aligned(), op);
}

// The same over rows of bf16 that may be filled up to whole vectors; what fills them up is neither
// read nor written. Rows have fewer than 2^31 runs.
template <typename Op>
__device__ __forceinline__ void run_rows(const Op& op) {
  constexpr int N = 8;
  const int64_t columns = op.args.columns, stride = op.args.row_stride;
  if (columns == stride || op.args.rows <= 1) {
    run_all<N>(op);
    return;
  }
  const bool vectors = op.aligned() && stride % N == 0;
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  const uint32_t per_row = static_cast<uint32_t>((columns + N - 1) / N);
#pragma unroll 1
  for (int64_t run = thread; run < op.args.rows * per_row; run += threads) {
    const int64_t row = run / per_row, column = run % per_row * N;
    const int64_t at = row * stride + column;
    if (vectors && column + N <= columns) {
      op.template run<N>(at);
    } else {
      for (int64_t i = 0; i < min(static_cast<int64_t>(N), columns - column); i++) {
        op.template run<1>(at + i);
      }
    }
  }
}

}  // namespace llada

extern "C" __global__ void __launch_bounds__(LLADA_ELEMENTWISE_THREADS)
    llada_swiglu_fwd_f32(const LladaSwigluArgs args) {
  llada::run_all<4>(llada::Swiglu<float, float>{args});
}

extern "C" __global__ void __launch_bounds__(LLADA_ELEMENTWISE_THREADS)
    llada_swiglu_fwd_f32_bf16(const LladaSwigluArgs args) {
  llada::run_all<8>(llada::Swiglu<float, LladaBf16>{args});
}

extern "C" __global__ void __launch_bounds__(LLADA_ELEMENTWISE_THREADS)
    llada_swiglu_fwd_bf16(const LladaSwigluArgs args) {
  llada::run_rows(llada::Swiglu<LladaBf16, LladaBf16>{args});
}

extern "C" __global__ void __launch_bounds__(LLADA_ELEMENTWISE_THREADS)
    llada_swiglu_bwd_f32(const LladaSwigluBackwardArgs args) {
  llada::run_all<4>(llada::SwigluBackward<float>{args});
}

extern "C" __global__ void __launch_bounds__(LLADA_ELEMENTWISE_THREADS)
    llada_swiglu_bwd_bf16(const LladaSwigluBackwardArgs args) {
  llada::run_rows(llada::SwigluBackward<LladaBf16>{args});
}
