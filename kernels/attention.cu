// Fused attention over ragged batches, and its gradient.
//
//   y_i = sum_j p_ij v_j,  p_ij = exp(s_ij - lse_i),  s_ij = q_i . k_j / sqrt(E)
//   lse_i = ln sum_j exp(s_ij)
//
// over the keys j of the sequence that query i sees: all, or with a block size b those with
// j / b <= i / b. A query that sees no key has y = 0 and lse = -inf.
// Backward, with D_i = dy_i . y_i:
//
//   ds_ij = p_ij (dy_i . v_j - D_i)
//   dq_i = sum_j ds_ij k_j / sqrt(E),  dk_j = sum_i ds_ij q_i / sqrt(E),  dv_j = sum_i p_ij dy_i
//
// Shapes: q, y, dy, dq [T, H * E]; k, v, dk, dv [T_k, K * E]; lse [T, H]; all row-major, tokens
// first. A key head serves H / K consecutive query heads. Sequence b has the queries
// offsets[b] .. offsets[b + 1] and the keys key_offsets[b] .. key_offsets[b + 1].
//
// Grid: x is a tile of rows (queries; keys for dK and dV), y a head (a key head for dK and dV), z a
// sequence. x covers the longest sequence; blocks past the end of theirs return at once.
//
//   forward, tensor cores   attention_mma.cuh  64 or 128 queries, tiles of 64 keys; E = 64, 128
//   gradient, tensor cores  attention_bwd_mma.cuh  64 queries or keys; E = 64, 128
//   forward and gradient    attention_f32.cuh  tiles of 64 by 64 in f32; E up to 64, 128, 256
//
// Where tensor cores compute, keys and values of f32 are rounded to bf16 by a kernel of their own,
// once for all queries that meet them, and queries and probabilities when they are used.
// Scores, maxima and sums are f32 everywhere.
//
// The gradient recomputes the probabilities from lse, so that nothing of size T^2 is kept: one
// kernel makes D, one dQ, one dK and dV, which visits every pair once more instead of adding to dQ
// in an order that would change from run to run. A tape whose products are in bf16 asks for it on
// tensor cores (`Backend::attention_gradient`), any other in f32, as on the CPU.
//
// Work: 4 E FLOP per pair forward (2 products), 14 E backward (7 products: 5, and the two that both
// kernels need). Bytes: q, k, v, y once, but for L2, where every tile of queries reads all keys and
// values.
// Deterministic: no sum depends on the grid, on other sequences or on timing.
// Source: Dao et al. 2022 (arXiv 2205.14135); Dao 2023 (arXiv 2307.08691).
#include "attention_bwd_mma.cuh"
#include "attention_f32.cuh"
#include "attention_mma.cuh"

namespace llada {

// Rounds eight elements of each of two matrices per thread.
__device__ __forceinline__ void attention_round(const LladaAttentionRoundArgs& args) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (thread * LLADA_ATTENTION_ROUND_ELEMENTS >= args.n) return;
  const int64_t at = thread * LLADA_ATTENTION_ROUND_ELEMENTS;
  static_cast<uint4*>(args.first_out)[thread] =
      scaled_chunk(args.first, args.first_is_bf16 != 0, at, args.factor);
  static_cast<uint4*>(args.second_out)[thread] = scaled_chunk(args.second, false, at, 1.0f);
}

}  // namespace llada

#define LLADA_ATTENTION_MMA(head_dim, rows)                                               \
  extern "C" __global__ void __launch_bounds__(LLADA_ATTENTION_THREADS, 2)                \
      llada_attention_fwd_bf16_d##head_dim##_q##rows(const LladaAttentionArgs args) {     \
    llada::attention_fwd<head_dim, rows>(args);                                           \
  }

#define LLADA_ATTENTION_MMA_BACKWARD(head_dim)                                           \
  extern "C" __global__ void __launch_bounds__(LLADA_ATTENTION_THREADS, 2)               \
      llada_attention_bwd_bf16_dq_d##head_dim(const LladaAttentionBackwardArgs args) {   \
    llada::attention_bwd<head_dim, false>(args);                                         \
  }                                                                                      \
  extern "C" __global__ void __launch_bounds__(LLADA_ATTENTION_THREADS, 2)               \
      llada_attention_bwd_bf16_dkdv_d##head_dim(const LladaAttentionBackwardArgs args) { \
    llada::attention_bwd<head_dim, true>(args);                                          \
  }

// Head dimensions up to 64 times `chunks`; blocks per SM that the registers must allow.
#define LLADA_ATTENTION_F32(head_dim, chunks, blocks)                                     \
  extern "C" __global__ void __launch_bounds__(LLADA_ATTENTION_F32_THREADS, blocks)       \
      llada_attention_fwd_f32_d##head_dim(const LladaAttentionArgs args) {                \
    llada::attention_fwd_f32<chunks>(args);                                               \
  }                                                                                       \
  extern "C" __global__ void __launch_bounds__(LLADA_ATTENTION_F32_THREADS, blocks)       \
      llada_attention_bwd_f32_dq_d##head_dim(const LladaAttentionBackwardArgs args) {     \
    llada::attention_dq_f32<chunks>(args);                                                \
  }                                                                                       \
  extern "C" __global__ void __launch_bounds__(LLADA_ATTENTION_F32_THREADS, 1)            \
      llada_attention_bwd_f32_dkdv_d##head_dim(const LladaAttentionBackwardArgs args) {   \
    llada::attention_dkdv_f32<chunks>(args);                                              \
  }

LLADA_ATTENTION_MMA(64, 64)
LLADA_ATTENTION_MMA(64, 128)
LLADA_ATTENTION_MMA(128, 64)
LLADA_ATTENTION_MMA(128, 128)
LLADA_ATTENTION_MMA_BACKWARD(64)
LLADA_ATTENTION_MMA_BACKWARD(128)
LLADA_ATTENTION_F32(64, 1, 2)
LLADA_ATTENTION_F32(128, 2, 1)
LLADA_ATTENTION_F32(256, 4, 1)

extern "C" __global__ void __launch_bounds__(LLADA_ATTENTION_F32_THREADS)
    llada_attention_bwd_f32_delta(const LladaAttentionBackwardArgs args) {
  llada::attention_delta(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_ATTENTION_ROUND_THREADS)
    llada_attention_fwd_bf16_round(const LladaAttentionRoundArgs args) {
  llada::attention_round(args);
}
