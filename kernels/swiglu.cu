// SwiGLU activation.
//
//   forward   y = gate s up, s = sigmoid(gate) = 1 / (1 + e^-gate)
//   backward  dup = dy gate s, dgate = dy up s (1 + gate (1 - s))
//
// Layout: contiguous, all of one shape; f32, or bf16 for y of the second entry, which a product
//   with bf16 operands reads next. 128-bit accesses if addresses allow, else single elements.
// Threads: flat runs of 4 elements (8 if y is bf16).
// Accumulation: none; the exponential and the quotient are those of IEEE-rounded code (no
//   approximate functions): about 40 instructions per element take less time than its bytes.
// Bytes: 12 per element (10 to bf16), backward 20. FLOPs: 6, backward 12. Bound by memory.
// Deterministic: yes.
// Source: Shazeer 2020, eq. 6 (arXiv 2002.05202).
#include "load128.cuh"

namespace llada {

// 0 for large negative x, where e^-x is infinite.
__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <typename T>
struct Swiglu {
  const LladaSwigluArgs& args;
  template <int N>
  __device__ __forceinline__ void run(int64_t at) const {
    float gate[N], up[N];
    load(args.gate + at, gate);
    load(args.up + at, up);
#pragma unroll
    for (int i = 0; i < N; i++) up[i] *= gate[i] * sigmoid(gate[i]);
    store(static_cast<T*>(args.y) + at, up);
  }
};

struct SwigluBackward {
  const LladaSwigluBackwardArgs& args;
  template <int N>
  __device__ __forceinline__ void run(int64_t at) const {
    float gate[N], up[N], dy[N];
    load(args.gate + at, gate);
    load(args.up + at, up);
    load(args.dy + at, dy);
#pragma unroll
    for (int i = 0; i < N; i++) {
      const float s = sigmoid(gate[i]);
      const float slope = s * (1.0f + gate[i] * (1.0f - s));
      up[i] = dy[i] * up[i] * slope;
      gate[i] = dy[i] * (gate[i] * s);
    }
    store(args.dgate + at, up);
    store(args.dup + at, gate);
  }
};

}  // namespace llada

extern "C" __global__ void __launch_bounds__(LLADA_ELEMENTWISE_THREADS)
    llada_swiglu_fwd_f32(const LladaSwigluArgs args) {
  const bool vectors = llada::aligned128(args.gate, args.up, static_cast<float*>(args.y));
  llada::for_each_run<4>(args.n, vectors, llada::Swiglu<float>{args});
}

extern "C" __global__ void __launch_bounds__(LLADA_ELEMENTWISE_THREADS)
    llada_swiglu_fwd_bf16(const LladaSwigluArgs args) {
  const bool vectors = llada::aligned128(args.gate, args.up, static_cast<LladaBf16*>(args.y));
  llada::for_each_run<8>(args.n, vectors, llada::Swiglu<LladaBf16>{args});
}

extern "C" __global__ void __launch_bounds__(LLADA_ELEMENTWISE_THREADS)
    llada_swiglu_bwd_f32(const LladaSwigluBackwardArgs args) {
  const bool vectors = llada::aligned128(args.gate, args.up, args.dy, args.dgate, args.dup);
  llada::for_each_run<4>(args.n, vectors, llada::SwigluBackward{args});
}
