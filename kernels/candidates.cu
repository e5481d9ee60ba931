// LM head with the choice of a token per row, without storing the logits.
//
//   x[r, v]    = sum_d hidden[r, d] head[v, d] + bias[v]
//   x          = u + (w + 1) (x - u) with guidance, u the same for the unconditional states
//   token      = argmax_v x[r, v] - T ln(-ln uniform[r, v])     the lowest among equals
//   confidence = p[token], margin = p[first] - p[second], entropy = -sum_v p ln p, p = softmax(x)
//
// Layout: hidden [N, D], head [V, D], both bf16 or both f32; see include/head.cuh for the product.
// fwd: a block per 128 vocabulary entries and kRows rows (half of them with guidance); the grid has
//   the rows first, so that blocks that run together share the head. When the logits of the tile
//   lie in shared memory a warp reduces a row at a time, four neighboring entries per lane, to a
//   LladaCandidatePartial. Ids of `suppress` count as -inf; those of `suppress_confidence` can be
//   chosen and have no probability. Sums of the 128 exponentials are in f32, scores in f64.
//   Noise: a bound of it costs no logarithm, and only entries whose bound reaches the score of the
//   most promising one are evaluated.
// fwd_logits: the same for logits that another kernel has computed.
// merge: a warp per row reads the partials of all tiles twice: for the maximum and the best score,
//   then for the sums, in f64.
// NaN: a NaN logit is never chosen and makes confidence, margin and entropy NaN.
// Bytes: head once if N <= 64 (bf16) or 16 (f32), else once per row tile, mostly from L2; partials
//   32 N V / 128. FLOPs: 2 N V D. Deterministic; a row does not depend on the others.
// Source: arXiv 2502.09992, algorithm 5, eq. 16; Gumbel noise in f64, arXiv 2409.02908.
#include "head.cuh"
#include "philox.cuh"

namespace llada {

// `Stream::Gumbel` of llada-tensor.
constexpr uint32_t kStreamGumbel = 6;

// A token with its score; none if the score is -inf.
struct Scored {
  double score;
  uint32_t token;
  float logit;

  __device__ bool is_worse_than(const Scored& other) const {
    return other.score > score || (other.score == score && other.token < token);
  }
};

__device__ __forceinline__ Scored best_of_warp(Scored best) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    Scored other;
    other.score = __shfl_xor_sync(kFullWarp, best.score, distance);
    other.token = __shfl_xor_sync(kFullWarp, best.token, distance);
    other.logit = __shfl_xor_sync(kFullWarp, best.logit, distance);
    if (best.is_worse_than(other)) best = other;
  }
  return best;
}

// The two largest of two pairs; a NaN is not among them.
struct TopTwo {
  float first = -CUDART_INF_F;
  float second = -CUDART_INF_F;

  __device__ __forceinline__ void add(float other_first, float other_second) {
    second = fmaxf(fminf(first, other_first), fmaxf(second, other_second));
    first = fmaxf(first, other_first);
  }
};

__device__ __forceinline__ TopTwo top_of_warp(TopTwo top) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    const float first = __shfl_xor_sync(kFullWarp, top.first, distance);
    const float second = __shfl_xor_sync(kFullWarp, top.second, distance);
    top.add(first, second);
  }
  return top;
}

// At least the Gumbel noise -ln(-ln u), without a logarithm: -ln u >= 1 - u, which is bounded by
// a power of two.
__device__ __forceinline__ double gumbel_bound(double u) {
  const int exponent = ((__double2hiint(1.0 - u) >> 20) & 0x7ff) - 1023;
  // A hair more, for the rounding of the product.
  return static_cast<double>(-exponent) * (0.69314718055994531 + 1e-12) + 1e-12;
}

// The draws of a lane's four entries; `entry` is even.
__device__ __forceinline__ void draw(const LladaCandidatesArgs& args, int64_t row, int64_t entry,
                                     double (&u)[kLaneLogits]) {
  if (args.noise == LLADA_NOISE_PHILOX) {
    const Philox philox(args.seeds[row], kStreamGumbel);
    const uint32_t* key = args.keys + 3 * row;
    // Position and step share a word.
    const uint32_t sequence = key[0], place = key[1] << 12 ^ key[2];
#pragma unroll
    for (int i = 0; i < kLaneLogits; i += 2) {
      const uint32_t pair = static_cast<uint32_t>((entry + i) / 2);
      const double2 two = philox.uniform_f64_pair(pair, place, sequence);
      u[i] = two.x;
      u[i + 1] = two.y;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kLaneLogits; i++) {
    const bool is_there = entry + i < args.head.vocab_size;
    u[i] = is_there ? args.recorded[row * args.head.vocab_size + entry + i] : 0.5;
  }
}

// The best of the warp's entries with noise.
__device__ __forceinline__ Scored choose_noisy(const LladaCandidatesArgs& args, int64_t row,
                                               int64_t entry, const float (&x)[kLaneLogits]) {
  const double temperature = args.temperature;
  double u[kLaneLogits], bounds[kLaneLogits];
  draw(args, row, entry, u);
  double top = -CUDART_INF;
#pragma unroll
  for (int i = 0; i < kLaneLogits; i++) {
    bounds[i] = static_cast<double>(x[i]) + temperature * gumbel_bound(u[i]);
    top = MaxNumber::apply(top, bounds[i]);
  }
  top = warp_reduce<MaxNumber>(top);
  // The score of the entry with the highest bound is a bar that few others can reach.
  double bar = -CUDART_INF;
  Scored best = {-CUDART_INF, 0, -CUDART_INF_F};
#pragma unroll 1
  for (int pass = 0; pass < 2; pass++) {
#pragma unroll
    for (int i = 0; i < kLaneLogits; i++) {
      if (pass == 0 ? bounds[i] == top : bounds[i] >= bar) {
        const double score = static_cast<double>(x[i]) - temperature * log(-log(u[i]));
        const Scored other = {score, static_cast<uint32_t>(entry + i), x[i]};
        if (score > -CUDART_INF && best.is_worse_than(other)) best = other;
      }
    }
    if (pass == 0) bar = warp_reduce<MaxNumber>(best.score);
  }
  return best_of_warp(best);
}

// The best of the warp's entries without noise.
__device__ __forceinline__ Scored choose(int64_t entry, const float (&x)[kLaneLogits]) {
  Scored best = {-CUDART_INF, 0, -CUDART_INF_F};
#pragma unroll
  for (int i = 0; i < kLaneLogits; i++) {
    // In this order the first of equals stays.
    if (x[i] > best.logit) best = {x[i], static_cast<uint32_t>(entry + i), x[i]};
  }
  return best_of_warp(best);
}

// Which entries of the tile are in a list: bit b of word w says it of entry 32 w + b.
__device__ __forceinline__ void mark(uint32_t (&words)[kHeadTile / 32], const uint32_t* ids,
                                     int n_ids, int64_t first_token) {
  if (threadIdx.x >= kHeadTile) return;
  const uint64_t token = static_cast<uint64_t>(first_token) + threadIdx.x;
  bool is_listed = false;
  for (int i = 0; i < n_ids; i++) is_listed |= ids[i] == token;
  const uint32_t word = __ballot_sync(kFullWarp, is_listed);
  if (threadIdx.x % 32 == 0) words[threadIdx.x / 32] = word;
}

// The bits of a lane's four entries.
__device__ __forceinline__ uint32_t lane_bits(const uint32_t (&words)[kHeadTile / 32]) {
  const int lane = threadIdx.x % 32;
  return words[lane / 8] >> (kLaneLogits * (lane % 8)) & 0xf;
}

// Guided logit un + (w + 1) (cond - un); an entry that is excluded stays so.
__device__ __forceinline__ float guide(float cfg_scale, float cond, float un) {
  return cond == -CUDART_INF_F ? cond : un + (cfg_scale + 1.0f) * (cond - un);
}

template <typename T, int kRows>
__device__ __forceinline__ void candidates(const LladaCandidatesArgs& args) {
  using Shape = HeadShape<T, kRows>;
  extern __shared__ uint4 shared[];
  __shared__ uint32_t suppressed[kHeadTile / 32], uncounted[kHeadTile / 32];
  const LladaHead& head = args.head;
  const bool is_guided = head.unconditional != nullptr;
  const int rows = rows_per_state<kRows>(head);
  const int first_row = static_cast<int>(blockIdx.x) * rows;
  const int64_t first_entry = static_cast<int64_t>(blockIdx.y) * kHeadTile;
  const int64_t tile_index = (head.start + first_entry) / kHeadTile;
  mark(suppressed, args.suppress, args.n_suppress, head.start + first_entry);
  mark(uncounted, args.suppress_confidence, args.n_suppress_confidence, head.start + first_entry);
  const float* tile = head_logits<T, Shape>(head, shared, first_entry, first_row);

  const LaneLogits lane(head, first_entry);
  const int64_t token = head.start + lane.entry;
  const uint32_t is_suppressed = lane_bits(suppressed), is_uncounted = lane_bits(uncounted);
  for (int r = threadIdx.x / 32; r < rows && first_row + r < head.rows; r += Shape::kWarps) {
    float x[kLaneLogits];
    lane.read(tile + r * kLogitStride, x);
    if (is_guided) {
      float un[kLaneLogits];
      lane.read(tile + (rows + r) * kLogitStride, un);
#pragma unroll
      for (int i = 0; i < kLaneLogits; i++) x[i] = guide(args.cfg_scale, x[i], un[i]);
    }
    TopTwo top;
#pragma unroll
    for (int i = 0; i < kLaneLogits; i++) {
      if (is_suppressed >> i & 1) x[i] = -CUDART_INF_F;
      if (!(is_uncounted >> i & 1)) top.add(x[i], -CUDART_INF_F);
    }
    top = top_of_warp(top);
    float sum = 0.0f, weighted = 0.0f;
#pragma unroll
    for (int i = 0; i < kLaneLogits; i++) {
      const float e = is_uncounted >> i & 1 ? 0.0f : exp_below(x[i], top.first);
      sum += e;
      // Zero times an infinite distance would be NaN.
      weighted += e == 0.0f ? 0.0f : e * (x[i] - top.first);
    }
    sum = warp_reduce<Sum>(sum);
    weighted = warp_reduce<Sum>(weighted);
    const int64_t row = first_row + r;
    const Scored best = args.noise == LLADA_NOISE_NONE ? choose(token, x)
                                                       : choose_noisy(args, row, token, x);
    if (threadIdx.x % 32 == 0) {
      args.partials[row * args.tiles + tile_index] = {best.score, best.token, best.logit,
                                                      top.first,  top.second, sum,
                                                      weighted};
    }
  }
}

// A warp per row.
__device__ __forceinline__ void merge(const LladaCandidatesMergeArgs& args) {
  const int lane = threadIdx.x % 32;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (row >= args.rows) return;
  const LladaCandidatePartial* partials = args.partials + row * args.tiles;
  Scored best = {-CUDART_INF, 0, -CUDART_INF_F};
  TopTwo top;
  for (int64_t tile = lane; tile < args.tiles; tile += 32) {
    const LladaCandidatePartial part = partials[tile];
    const Scored other = {part.score, part.token, part.token_logit};
    if (other.score > -CUDART_INF && best.is_worse_than(other)) best = other;
    top.add(part.first, part.second);
  }
  best = best_of_warp(best);
  top = top_of_warp(top);
  // sum = sum_v e^(x - first), weighted = sum_v e^(x - first) (x - first), of the whole row.
  const double first = top.first;
  double sum = 0.0, weighted = 0.0;
  for (int64_t tile = lane; tile < args.tiles; tile += 32) {
    const LladaCandidatePartial part = partials[tile];
    if (part.sum == 0.0f) continue;
    const double distance = static_cast<double>(part.first) - first, shrink = exp(distance);
    sum += part.sum * shrink;
    weighted += (part.weighted + part.sum * distance) * shrink;
  }
  sum = warp_reduce<Sum>(sum);
  weighted = warp_reduce<Sum>(weighted);
  if (lane != 0) return;

  bool counts = true;
  if (best.score > -CUDART_INF) {
    for (int i = 0; i < args.n_suppress_confidence; i++) {
      counts = counts && args.suppress_confidence[i] != best.token;
    }
  }
  const double log_sum = log(sum), lse = first + log_sum;
  LladaCandidate out;
  out.token = best.token;
  out.confidence = counts ? static_cast<float>(exp(best.logit - lse)) : 0.0f;
  out.margin = static_cast<float>(exp(first - lse) - exp(top.second - lse));
  out.entropy = static_cast<float>(log_sum - weighted / sum);
  args.candidates[row] = out;
}

}  // namespace llada

#define LLADA_CANDIDATES(name, type, rows, blocks)                                               \
  extern "C" __global__ void __launch_bounds__(llada::HeadShape<type, rows>::kThreads, blocks)   \
      llada_candidates_fwd_##name(const LladaCandidatesArgs args) {                              \
    llada::candidates<type, rows>(args);                                                         \
  }

LLADA_CANDIDATES(bf16_r16, __nv_bfloat16, 16, 3)
LLADA_CANDIDATES(bf16_r32, __nv_bfloat16, 32, 2)
LLADA_CANDIDATES(bf16_r64, __nv_bfloat16, 64, 2)
LLADA_CANDIDATES(bf16_r128, __nv_bfloat16, 128, 1)
LLADA_CANDIDATES(f32_r16, float, 16, 3)
LLADA_CANDIDATES(f32_r64, float, 64, 2)
LLADA_CANDIDATES(logits_f32, llada::StoredLogits, 16, 4)

extern "C" __global__ void __launch_bounds__(128)
    llada_candidates_merge_f32(const LladaCandidatesMergeArgs args) {
  llada::merge(args);
}
