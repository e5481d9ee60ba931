// AdamW with decoupled weight decay.
//
//   g = gradient_scale gradient
//   m = beta1 m + (1 - beta1) g
//   v = beta2 v + (1 - beta2) g^2
//   parameter = keep parameter - rate m / (sqrt(v) second_correction + eps)
//
// Layout: contiguous f32 of one shape; 128-bit accesses if addresses allow, else single elements.
// Threads: flat runs of 4 elements.
// Accumulation: none. Every rounding is spelled out, so that the result is bit for bit that of the
//   CPU's vector code: products are fused with the sums that it fuses, and nothing else is.
// Bytes: 28 per element (4 read, 3 written). FLOPs: 14, one of them a root and one a quotient, in
//   all about 60 instructions: a quarter of what an H100 can issue in the time of the bytes.
// Deterministic: yes.
// Source: Loshchilov and Hutter 2019, algorithm 2 (arXiv 1711.05101), as torch.optim.AdamW.
#include "load128.cuh"

namespace llada {

struct AdamW {
  const LladaAdamWArgs& args;
  template <int N>
  __device__ __forceinline__ void run(int64_t at) const {
    float p[N], g[N], m[N], v[N];
    load(args.parameter + at, p);
    load(args.gradient + at, g);
    load(args.first_moment + at, m);
    load(args.second_moment + at, v);
    const float rest1 = 1.0f - args.beta1, rest2 = 1.0f - args.beta2;
#pragma unroll
    for (int i = 0; i < N; i++) {
      g[i] = __fmul_rn(args.gradient_scale, g[i]);
      m[i] = __fmaf_rn(rest1, g[i], __fmul_rn(args.beta1, m[i]));
      v[i] = __fmaf_rn(args.beta2, v[i], __fmul_rn(rest2, __fmul_rn(g[i], g[i])));
      const float root = __fmaf_rn(__fsqrt_rn(v[i]), args.second_correction, args.eps);
      const float step = __fmul_rn(args.rate, __fdiv_rn(m[i], root));
      p[i] = __fsub_rn(__fmul_rn(args.keep, p[i]), step);
    }
    store(args.parameter + at, p);
    store(args.first_moment + at, m);
    store(args.second_moment + at, v);
  }
};

}  // namespace llada

extern "C" __global__ void __launch_bounds__(LLADA_ELEMENTWISE_THREADS)
    llada_adamw_fwd_f32(const LladaAdamWArgs args) {
  const bool vectors = llada::aligned128(args.parameter, args.gradient, args.first_moment,
                                         args.second_moment);
  llada::for_each_run<4>(args.n, vectors, llada::AdamW{args});
}
