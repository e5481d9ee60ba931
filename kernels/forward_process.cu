// The forward process: which tokens of a ragged batch are masked.
//
//   p(b) = (1 - eps) t(b) + eps, eps = 1e-3
//   token q of sequence b is masked if u(q, b, step) < p(b), and if it may be
//
// u is a Philox draw with the counter (q, b, step) of one stream; without given noise levels,
// t(b) is one with the counter (step, step >> 32, b) of another: both are those of
// `llada_train::step`, bit for bit, and so is what is masked.
//
// Layout: ids, maskable, noised and p_mask [tokens], offsets [sequences + 1], t [sequences].
// Threads: one per token; it finds its sequence by bisection of the offsets.
// Bytes: 12 per token. About 250 instructions per token, of which the draws take most: some
//   microseconds for a million tokens.
// Deterministic: yes; a token depends on its place and the seed alone.
// Source: arXiv 2502.09992 section 2.1; `forward_process` in the reference's GUIDELINES.md.
#include "load128.cuh"
#include "philox.cuh"

namespace llada {

// Smallest masking probability.
constexpr float kEps = 1e-3f;

// The sequence b with offsets[b] <= token < offsets[b + 1].
__device__ __forceinline__ int64_t sequence_of(const LladaForwardProcessArgs& args,
                                               int64_t token) {
  int64_t low = 0, high = args.sequences;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    if (args.offsets[middle] <= token) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

struct ForwardProcess {
  const LladaForwardProcessArgs& args;
  template <int N>
  __device__ __forceinline__ void run(int64_t token) const {
    static_assert(N == 1, "a token at a time");
    const int64_t sequence = sequence_of(args, token);
    const uint32_t slot = static_cast<uint32_t>(sequence);
    const uint32_t step_low = static_cast<uint32_t>(args.step);
    const uint32_t step_high = static_cast<uint32_t>(args.step >> 32);
    const float t = args.t != nullptr
                        ? args.t[sequence]
                        : Philox(args.seed, args.ratio_stream).uniform_f32(step_low, step_high, slot);
    const float p = __fadd_rn(__fmul_rn(1.0f - kEps, t), kEps);
    const uint32_t position = static_cast<uint32_t>(token - args.offsets[sequence]);
    const float u = Philox(args.seed, args.mask_stream).uniform_f32(position, slot, step_low);
    const bool may_be = args.maskable == nullptr || args.maskable[token] != 0;
    const bool is_masked = u < p && may_be;
    args.noised[token] = is_masked ? args.mask_token_id : args.ids[token];
    args.p_mask[token] = is_masked ? p : 0.0f;
  }
};

}  // namespace llada

extern "C" __global__ void __launch_bounds__(LLADA_ELEMENTWISE_THREADS)
    llada_forward_process_fwd_u32(const LladaForwardProcessArgs args) {
  llada::for_each_run<1>(args.tokens, false, llada::ForwardProcess{args});
}
