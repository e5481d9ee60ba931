// Remasking: which predicted tokens of a step stay, and their place in the canvas.
//
//   competes[r]   = canvas[positions[r]] is the mask
//   rank[r]       = number of competing rows of the sequence that come before r
//   keep          = ranks below n; canvas[positions[r]] = candidates[r].token for those
//   n = quota                                         (quota)
//   n = max(1, first rank with confidence < bound)    (threshold)
//   n = k for the first rank k > 0 with confidence < 1 - bound / (k + 2), but all if that is the
//       last rank, or if there is none                (factor)
// Rows are ranked by confidence, margin or negative entropy, the highest first; among equals the
// first row; rows with a NaN come last, and neither a threshold nor a factor keeps them but as the
// best one. Where the mask itself won the mask stays.
//
// Layout: the rows of a sequence are neighbors, in the order of their positions; a block of 256
// threads per sequence, a row per thread in turn. Ranks are counted, with scores in tiles in
// shared memory, not sorted: O(rows^2) compares, 16 M at 4,096 rows, 1 k at a block of 32 masks.
// Nothing is read back: a host can launch step after step.
// Deterministic; a sequence does not depend on the others.
// Source: `generate` of the reference's generate.py; `get_transfer_index` and
// `get_transfer_index_dynamic` of Fast-dLLM; bit for bit the rules of llada-sample.
#include <math_constants.h>

#include "llada_kernels.h"
#include "reduce.cuh"

namespace llada {

constexpr int kRemaskThreads = 256;
// The rank of a row that does not compete.
constexpr uint32_t kNoRank = 0xffffffffu;

struct MinU32 {
  __device__ static uint32_t apply(uint32_t a, uint32_t b) { return min(a, b); }
};

__device__ __forceinline__ float score_of(const LladaCandidate& candidate, uint32_t score) {
  if (candidate.confidence != candidate.confidence) return CUDART_NAN_F;
  if (score == LLADA_SCORE_MARGIN) return candidate.margin;
  if (score == LLADA_SCORE_ENTROPY) return -candidate.entropy;
  return candidate.confidence;
}

// Whether row i with score a comes before row j with score b.
__device__ __forceinline__ bool comes_before(float a, uint32_t i, float b, uint32_t j) {
  const bool a_is_nan = a != a, b_is_nan = b != b;
  if (a_is_nan || b_is_nan) return a_is_nan == b_is_nan ? i < j : b_is_nan;
  return a > b || (a == b && i < j);
}

// Whether the rows from this rank on are left out; the best one is not in any case.
__device__ __forceinline__ bool ends(const LladaRemaskRule& rule, uint32_t rank,
                                     float confidence) {
  if (rule.keep == LLADA_KEEP_THRESHOLD) return !(confidence >= rule.bound);
  if (rank == 0) return false;
  const double bound = 1.0 - static_cast<double>(rule.bound) / (static_cast<double>(rank) + 2.0);
  return !(static_cast<double>(confidence) >= bound);
}

__device__ __forceinline__ void remask(const LladaRemaskArgs& args) {
  // Scores of a tile of rows; `competes` is 0 for those that are no longer masked.
  __shared__ float scores[kRemaskThreads];
  __shared__ bool competes[kRemaskThreads];
  __shared__ uint32_t scratch[kRemaskThreads / 32];
  const LladaRemaskRule rule = args.rules[blockIdx.x];
  const uint32_t* positions = args.positions + rule.first_row;
  const LladaCandidate* candidates = args.candidates + rule.first_row;
  uint32_t* ranks = args.ranks + rule.first_row;

  uint32_t n_competing = 0, first_end = kNoRank;
  for (uint32_t base = 0; base < rule.rows; base += kRemaskThreads) {
    const uint32_t r = base + threadIdx.x;
    const bool is_row = r < rule.rows;
    const bool is_masked = is_row && args.canvas[positions[r]] == args.mask_token_id;
    const float score = is_row ? score_of(candidates[r], rule.score) : 0.0f;
    uint32_t rank = 0;
    for (uint32_t tile = 0; tile < rule.rows; tile += kRemaskThreads) {
      const uint32_t other = tile + threadIdx.x;
      __syncthreads();
      if (other < rule.rows) {
        scores[threadIdx.x] = score_of(candidates[other], rule.score);
        competes[threadIdx.x] = args.canvas[positions[other]] == args.mask_token_id;
      }
      __syncthreads();
      const uint32_t n = min(rule.rows - tile, static_cast<uint32_t>(kRemaskThreads));
      for (uint32_t i = 0; i < n; i++) {
        rank += competes[i] && comes_before(scores[i], tile + i, score, r);
      }
    }
    if (!is_row) continue;
    ranks[r] = is_masked ? rank : kNoRank;
    n_competing += is_masked;
    if (is_masked && rule.keep != LLADA_KEEP_QUOTA && ends(rule, rank, candidates[r].confidence)) {
      first_end = min(first_end, rank);
    }
  }
  // Also: nobody reads the canvas any more before it is written.
  n_competing = block_reduce<Sum>(n_competing, scratch);
  __syncthreads();
  first_end = block_reduce<MinU32>(first_end, scratch);

  uint32_t n_kept = rule.quota;
  if (rule.keep == LLADA_KEEP_THRESHOLD) n_kept = max(first_end, 1u);
  if (rule.keep == LLADA_KEEP_FACTOR) n_kept = first_end + 1 < n_competing ? first_end : kNoRank;
  for (uint32_t r = threadIdx.x; r < rule.rows; r += kRemaskThreads) {
    if (ranks[r] == kNoRank || ranks[r] >= n_kept) continue;
    args.canvas[positions[r]] = candidates[r].token;
  }
}

}  // namespace llada

extern "C" __global__ void __launch_bounds__(llada::kRemaskThreads)
    llada_remask_fwd_f32(const LladaRemaskArgs args) {
  llada::remask(args);
}
