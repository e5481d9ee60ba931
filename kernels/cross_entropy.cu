// LM head with cross-entropy, without storing the logits [N, V].
//
//   x[r, v] = sum_d hidden[r, d] head[v, d] + bias[v]
//   lse[r]  = ln sum_v e^x[r, v],  loss[r] = lse[r] - x[r, target[r]]
//   dlogits[r, v] = dloss[r] (e^(x[r, v] - lse[r]) - [v = target[r]])
//
// Layout: hidden [N, D], head [V, D], both bf16 or both f32; see include/head.cuh for the product.
// fwd: a block per 128 vocabulary entries and kRows rows, rows first. A warp reduces a row of the
//   tile at a time, four neighboring entries per lane, to the maximum and the sum of the
//   exponentials in f32; the one block that meets a row's target writes its logit.
// fwd_logits: the same for logits that another kernel has computed.
// merge: a warp per row; the sums of the tiles are added in f64, so that the error of the loss is
//   that of the logits and of the exponentials of one tile.
// bwd: the same tile again, and its slope, into dlogits [N, len] of one part of the vocabulary;
//   the products of dlogits with head and hidden are matrix products of their own, and the
//   gradient of the bias is its column sum.
// Bytes: head once per row tile, mostly from L2; partials 8 N V / 128. FLOPs: 2 N V D.
// Deterministic; a row does not depend on the others.
// Source: arXiv 2502.09992, eq. 3.
#include "head.cuh"

namespace llada {

// The tile of a block, and the entries of a lane.
template <typename T, int kRows>
struct HeadBlock {
  using Shape = HeadShape<T, kRows>;
  int first_row;
  int64_t first_entry;

  __device__ HeadBlock()
      : first_row(static_cast<int>(blockIdx.x) * kRows),
        first_entry(static_cast<int64_t>(blockIdx.y) * kHeadTile) {}
};

template <typename T, int kRows>
__device__ __forceinline__ void cross_entropy(const LladaCrossEntropyArgs& args) {
  extern __shared__ uint4 shared[];
  const LladaHead& head = args.head;
  const HeadBlock<T, kRows> block;
  const int64_t tile_index = (head.start + block.first_entry) / kHeadTile;
  const float* tile =
      head_logits<T, HeadShape<T, kRows>>(head, shared, block.first_entry, block.first_row);

  const LaneLogits lane(head, block.first_entry);
  const int64_t token = head.start + lane.entry;
  for (int r = threadIdx.x / 32; r < kRows && block.first_row + r < head.rows;
       r += HeadShape<T, kRows>::kWarps) {
    float x[kLaneLogits];
    lane.read(tile + r * kLogitStride, x);
    float max = fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3]));
    max = warp_reduce<MaxNumber>(max);
    const int64_t row = block.first_row + r, target = args.targets[row];
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kLaneLogits; i++) {
      sum += exp_below(x[i], max);
      if (token + i == target && i < lane.left) args.target_logits[row] = x[i];
    }
    sum = warp_reduce<Sum>(sum);
    if (threadIdx.x % 32 == 0) args.partials[row * args.tiles + tile_index] = {max, sum};
  }
}

// A warp per row.
__device__ __forceinline__ void merge(const LladaCrossEntropyMergeArgs& args) {
  const int lane = threadIdx.x % 32;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (row >= args.rows) return;
  const LladaCrossEntropyPartial* partials = args.partials + row * args.tiles;
  float max = -CUDART_INF_F;
  for (int64_t tile = lane; tile < args.tiles; tile += 32) {
    max = MaxNumber::apply(max, partials[tile].max);
  }
  max = warp_reduce<MaxNumber>(max);
  double sum = 0.0;
  for (int64_t tile = lane; tile < args.tiles; tile += 32) {
    const LladaCrossEntropyPartial part = partials[tile];
    if (part.sum == 0.0f) continue;
    sum += part.sum * exp(static_cast<double>(part.max) - static_cast<double>(max));
  }
  sum = warp_reduce<Sum>(sum);
  if (lane != 0) return;
  const double lse = static_cast<double>(max) + log(sum);
  args.lse[row] = static_cast<float>(lse);
  args.losses[row] = static_cast<float>(lse - static_cast<double>(args.target_logits[row]));
}

template <typename T, int kRows>
__device__ __forceinline__ void cross_entropy_backward(const LladaCrossEntropyBackwardArgs& args) {
  extern __shared__ uint4 shared[];
  const LladaHead& head = args.head;
  const HeadBlock<T, kRows> block;
  const float* tile =
      head_logits<T, HeadShape<T, kRows>>(head, shared, block.first_entry, block.first_row);

  const LaneLogits lane(head, block.first_entry);
  for (int r = threadIdx.x / 32; r < kRows && block.first_row + r < head.rows;
       r += HeadShape<T, kRows>::kWarps) {
    float x[kLaneLogits];
    lane.read(tile + r * kLogitStride, x);
    const int64_t row = block.first_row + r, target = args.targets[row];
    const float lse = args.lse[row], dloss = args.dlosses[row];
    float slopes[kLaneLogits];
#pragma unroll
    for (int i = 0; i < kLaneLogits; i++) {
      const float slope = expf(x[i] - lse) * dloss;
      const bool is_target = head.start + lane.entry + i == target;
      slopes[i] = is_target ? slope - dloss : slope;
    }
    float* dlogits = args.dlogits + row * head.len + lane.entry;
    if (head.len % kLaneLogits == 0 && lane.left > 0) {
      // Neither rows nor lanes of such a part begin inside of 16 bytes.
      *reinterpret_cast<float4*>(dlogits) =
          make_float4(slopes[0], slopes[1], slopes[2], slopes[3]);
      continue;
    }
#pragma unroll
    for (int i = 0; i < kLaneLogits; i++) {
      if (i < lane.left) dlogits[i] = slopes[i];
    }
  }
}

}  // namespace llada

#define LLADA_CROSS_ENTROPY_FORWARD(name, type, rows, blocks)                                    \
  extern "C" __global__ void __launch_bounds__(llada::HeadShape<type, rows>::kThreads, blocks)   \
      llada_cross_entropy_fwd_##name(const LladaCrossEntropyArgs args) {                         \
    llada::cross_entropy<type, rows>(args);                                                      \
  }
#define LLADA_CROSS_ENTROPY_BACKWARD(name, type, rows, blocks)                                   \
  extern "C" __global__ void __launch_bounds__(llada::HeadShape<type, rows>::kThreads, blocks)   \
      llada_cross_entropy_bwd_##name(const LladaCrossEntropyBackwardArgs args) {                 \
    llada::cross_entropy_backward<type, rows>(args);                                             \
  }

LLADA_CROSS_ENTROPY_FORWARD(bf16_r16, __nv_bfloat16, 16, 3)
LLADA_CROSS_ENTROPY_FORWARD(bf16_r64, __nv_bfloat16, 64, 2)
LLADA_CROSS_ENTROPY_FORWARD(bf16_r128, __nv_bfloat16, 128, 1)
LLADA_CROSS_ENTROPY_FORWARD(f32_r16, float, 16, 3)
LLADA_CROSS_ENTROPY_FORWARD(f32_r64, float, 64, 2)
LLADA_CROSS_ENTROPY_FORWARD(logits_f32, llada::StoredLogits, 16, 4)

LLADA_CROSS_ENTROPY_BACKWARD(bf16_r16, __nv_bfloat16, 16, 3)
LLADA_CROSS_ENTROPY_BACKWARD(bf16_r64, __nv_bfloat16, 64, 2)
LLADA_CROSS_ENTROPY_BACKWARD(bf16_r128, __nv_bfloat16, 128, 1)
LLADA_CROSS_ENTROPY_BACKWARD(f32_r16, float, 16, 3)
LLADA_CROSS_ENTROPY_BACKWARD(f32_r64, float, 64, 2)

extern "C" __global__ void __launch_bounds__(128)
    llada_cross_entropy_merge_f32(const LladaCrossEntropyMergeArgs args) {
  llada::merge(args);
}
